"""The README's code runs as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from llmcache_plugins.testing.provider_server import ProviderServer

if TYPE_CHECKING:
    from collections.abc import Callable

    from servers import Server

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


_ITS_OWN = {
    # ChatOpenAI leaves its HTTP connection open when its loop ends, with or without a cache.
    "langchain": ("-W", "ignore::ResourceWarning"),
    # So does LiteLLM; and pydantic warns of LiteLLM's own types.
    "litellm": (
        "-W",
        "ignore::ResourceWarning",
        "-W",
        "ignore::UserWarning",
        "-W",
        "ignore::DeprecationWarning",
    ),
}


def test_the_first_example_is_the_one_in_examples():
    assert (ROOT / "examples" / "quickstart.py").read_text(encoding="utf-8") == BLOCKS[0]


@pytest.mark.parametrize("number", range(len(BLOCKS)))
async def test_every_code_block_runs(number: int, valkey: Server, tmp_path: Path):
    import asyncio

    async with ProviderServer() as provider:
        environment = {
            **os.environ,
            "OPENAI_BASE_URL": provider.base_url,
            "OPENAI_API_KEY": "test",
            "XDG_CACHE_HOME": str(tmp_path),
            # LiteLLM downloads its price list otherwise.
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        }
        code = BLOCKS[number].replace("redis://localhost", valkey.tcp_url)
        their_own = [option for name, options in _ITS_OWN.items() if name in code for option in options]
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-W", "error", *their_own, "-c", code],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env=environment,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert provider.calls == (1 if "openai" in code else 0)
    stop_embedded(tmp_path)


def stop_embedded(cache_home: Path) -> None:
    from llmcache_plugins.repository.embedded import EmbeddedServer

    directory = cache_home / "llmcache" / "server"
    if directory.exists():
        EmbeddedServer(directory).stop()


def test_both_commands_stand_in_the_readme_once():
    for marker in ("<!-- demo command -->", "<!-- test command -->"):
        assert README.count(marker) == 1


def test_the_first_screen_s_saved_dollars_are_what_its_command_says(
    called: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
):
    command, said = re.findall(r"^\$ llmcache (estimate .*)\n(.*)$", README, re.MULTILINE)[0]
    monkeypatch.chdir(ROOT)
    code, out, _ = called(*command.split())
    assert (code, out.splitlines()[0]) == (0, said)
    assert README[: README.index(said)].count("\n") < 40
