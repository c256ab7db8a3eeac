"""Without a server of one's own: what a script remembers from one run to the next."""

from __future__ import annotations

import os
import signal
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import redis
from command import run
from waiting import wait_until

from llmcache_plugins.repository.embedded import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Iterator

SCRIPT = textwrap.dedent(
    """
    import asyncio, sys
    from llmcache_plugins import InferenceGateway, ResponseCache

    async def provider(query):
        return f"answer to {query}"

    async def main():
        async with ResponseCache.from_url(sys.argv[1]) as cache:
            gateway = InferenceGateway(provider, cache)
            if "forget" in sys.argv:
                await gateway.invalidate("question")
                return
            result = await gateway.resolve_detailed("question")
            print(result.answer, result.outcome, (await cache.stats()).provider_calls)

    asyncio.run(main())
    """
)


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "server"
    EmbeddedServer(tmp_path / "server").stop()


def said(directory: Path, *arguments: str) -> str:
    done = run(sys.executable, "-W", "error", "-c", SCRIPT, f"embedded://{directory}", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


def test_a_script_run_again_after_a_pause_does_not_pay_twice(directory: Path):
    EmbeddedServer(directory, idle_seconds=0.5).ensure()  # the first starter's patience counts
    socket = EmbeddedServer(directory).socket_path
    with redis.Redis(unix_socket_path=str(socket)) as busy:  # not idle until the script has begun
        busy.ping()
        assert said(directory) == "answer to question miss 1"
    # Asking it whether it runs would count as use.
    wait_until(lambda: not socket.exists(), description="it has stopped idle", timeout=15)
    assert said(directory) == "answer to question hit 0"


def test_what_was_invalidated_does_not_come_back_with_a_killed_server(directory: Path):
    said(directory)
    said(directory, "forget")
    pid = _server_pid(directory)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not _is_alive(pid), description="it is dead")
    assert said(directory) == "answer to question miss 1"


def test_many_scripts_that_start_together_share_one_server_and_one_answer(directory: Path):
    with ThreadPoolExecutor(4) as pool:
        outputs = list(pool.map(lambda _: said(directory), range(4)))
    assert all(output.startswith("answer to question") for output in outputs)
    assert sum(int(output[-1]) for output in outputs) == 1


def _server_pid(directory: Path) -> int:
    with redis.Redis(unix_socket_path=str(EmbeddedServer(directory).socket_path)) as client:
        return int(client.info("server")["process_id"])


def _is_alive(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return False
