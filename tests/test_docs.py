"""The code in the documentation runs as it stands there, and prints what its comments say.

Every page is looked at, whoever adds one. A block with `asyncio.run(` is a program and runs alone; all other
Python of a page is one story, told in order. `pages` has the words that a page may say to these tests.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import tomllib
from typing import TYPE_CHECKING

import pytest
import yaml
from command import ROOT
from pages import WORDS, Block, blocks_of, documents, pages
from story import BEFORE, BEGINS, story_of
from warm import Warm

from llmcache_plugins.repository.embedded import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from servers import Server

    from llmcache_plugins.testing.provider_server import ProviderServer

SCENARIOS = ("static_faq", "chat", "realtime", "batch")
PITFALLS = 7
"""Rows of the table, each with a program of its own."""
ELIDED = re.compile(r"(?<=[\[{])\.\.\.(?=[\]}])")
"""`[...]` and `{...}`: what is of no interest."""
READERS: dict[str, Callable[[str], object]] = {
    "json": lambda text: json.loads(ELIDED.sub("", text)),
    "jsonl": lambda text: [json.loads(ELIDED.sub("", line)) for line in text.splitlines()],
    "toml": tomllib.loads,
    "yaml": lambda text: list(yaml.safe_load_all(text)),
}
LANGUAGES = {"", "python", "sh", "console", "text", *READERS}
"""The commands in the second to the fourth are those of test_commands_shown."""
MOST_NOT_EXECUTED = 3
"""Blocks of Python that say why they cannot run. They are rare, or the pages promise what nobody checks."""

BLOCKS = [block for page in pages() for block in blocks_of(page)]
PYTHON = [block for block in BLOCKS if block.language == "python"]
PROGRAMS = [block for block in PYTHON if block.is_program and "not executed" not in block.said]
STORIES = [page for page in sorted({block.page for block in PYTHON}) if story_of(page)]
THEIRS = re.compile(
    r"^\s*(?:from|import) (?:langchain|litellm|openai|llmcache_plugins\.adapters)", re.MULTILINE
)


@pytest.fixture(scope="module")
def ours() -> Iterator[Warm]:
    modules = ("redis.asyncio", "redis.asyncio.cluster", "hiredis", "msgspec")
    with Warm(*modules, options=("-W", "error")) as process:
        yield process


@pytest.fixture
async def environment(
    stand_in: ProviderServer, valkey: Server, tmp_path: Path
) -> AsyncIterator[dict[str, str]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "examples").symlink_to(ROOT / "examples")
    yield {
        "HERE": str(tmp_path / "here"),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # LiteLLM downloads its price list otherwise
        "OPENAI_API_KEY": "test",
        "OPENAI_BASE_URL": stand_in.base_url,
        "PORT": str(port),
        "URL": valkey.tcp_url,
        "XDG_CACHE_HOME": str(tmp_path),
    }
    directory = tmp_path / "llmcache" / "server"
    if directory.exists():
        await asyncio.to_thread(EmbeddedServer(directory).stop)


def prints_what_it_says(block: Block, printed: list[str]) -> None:
    if "output varies" not in block.said:
        assert [line for line in block.told if line in printed] == printed, str(block)


def logs_what_they_say(blocks: list[Block], logged: str) -> None:
    expected = [block.said["logs"] for block in blocks if "logs" in block.said]
    assert all(part in logged for part in expected), logged
    assert expected or not logged, logged


@pytest.mark.timeout(240)  # the first one waits for the imports
@pytest.mark.parametrize("block", PROGRAMS, ids=str)
async def test_a_program_prints_what_its_comments_say(
    request: pytest.FixtureRequest, environment: dict[str, str], tmp_path: Path, block: Block
):
    warm = request.getfixturevalue("frameworks" if THEIRS.search(block.code) else "ours")
    program = tmp_path / "program.py"
    code = f"{BEFORE}\n{block.said.get('setup', '')}\n{block.code}"
    program.write_text(code.replace("redis://localhost", environment["URL"]), "utf-8")
    done = await asyncio.to_thread(warm.run, program, env=environment)

    assert done.returncode == 0, done.stderr
    logs_what_they_say([block], done.stderr)
    assert done.stdout
    prints_what_it_says(block, done.stdout.splitlines())


@pytest.mark.timeout(240)
@pytest.mark.parametrize("page", STORIES)
async def test_the_other_blocks_of_a_page_run_one_after_the_other(
    request: pytest.FixtureRequest, environment: dict[str, str], page: str
):
    blocks = story_of(page)
    theirs = any(THEIRS.search(f"{block.said.get('setup')}\n{block.code}") for block in blocks)
    warm = request.getfixturevalue("frameworks" if theirs else "ours")
    done = await asyncio.to_thread(warm.run, ROOT / "tests" / "story.py", env={**environment, "PAGE": page})

    assert done.returncode == 0, done.stderr
    logs_what_they_say(blocks, done.stderr)
    _, *chapters = done.stdout.split(BEGINS)
    for block, chapter in zip(blocks, chapters, strict=True):
        line, *printed = chapter.splitlines()
        assert int(line) == block.line
        prints_what_it_says(block, printed)


PAGE = """
A page of somebody who has read CONTRIBUTING.md.

<!-- setup:
import json
-->
```python
answers = [await gateway.resolve(query) for _ in range(2)]
print(json.dumps(answers[0] == answers[1]))
# true
```

In a list:

- so

  ```python
  async def test_a_user_would_write(cache, model):
      assert (await model.ainvoke(messages)).content
      print((await cache.stats()).provider_calls, question, url.partition(":")[0])
      # 1 What is a lease? redis
  ```

```python title="shop/asking.py"
def ask() -> str:
    return "asked"
```

```python
from asking import ask

print(ask())
# asked
```

<!-- not executed: it is not even Python -->
```python
...!
```
"""


async def test_a_page_finds_what_it_was_promised(
    environment: dict[str, str], frameworks: Warm, tmp_path: Path
):
    page = tmp_path / "page.md"
    page.write_text(PAGE, "utf-8")
    program = ROOT / "tests" / "story.py"
    done = await asyncio.to_thread(frameworks.run, program, env={**environment, "PAGE": str(page)})

    assert (done.returncode, done.stderr) == (0, "")
    assert (
        done.stdout
        == f"{BEGINS}8\ntrue\n{BEGINS}18\n1 What is a lease? redis\n{BEGINS}25\n{BEGINS}30\nasked\n"
    )


def test_every_block_of_python_is_run_or_says_why_not():
    not_executed = {
        str(block): block.said["not executed"] for block in PYTHON if "not executed" in block.said
    }
    varying = {str(block): block.said["output varies"] for block in PYTHON if "output varies" in block.said}

    told = [block for page in STORIES for block in story_of(page)]
    assert len(PYTHON) == len(PROGRAMS) + len(told) + len(not_executed)
    assert len(not_executed) <= MOST_NOT_EXECUTED, not_executed
    for reason in (not_executed | varying).values():
        assert len(reason.split()) >= 3, reason


def test_a_word_to_these_tests_stands_before_a_block():
    """One that does not is heard by nobody."""
    for page in pages():
        said = re.findall(rf"<!-- *(?:{'|'.join(WORDS)})\b", page.read_text("utf-8"))
        assert len(said) == sum(len(block.said) for block in blocks_of(page)), page


def test_every_block_says_which_language_it_is():
    for page in documents():
        for block in blocks_of(page):
            assert block.language in LANGUAGES, block


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language in READERS], ids=str)
def test_data_can_be_read(block: Block):
    assert READERS[block.language](block.code)


def test_each_pitfall_and_each_scenario_has_a_program():
    pitfalls = (ROOT / "docs" / "pitfalls.md").read_text("utf-8")
    anchors = re.findall(r"^\| \[[^]]+\]\(#([a-z-]+)\)", pitfalls, re.MULTILINE)
    titles = re.findall(r"^## (.+)\n\n```python$", pitfalls, re.MULTILINE)
    assert [re.sub("[^a-z -]", "", title.lower()).replace(" ", "-") for title in titles] == anchors
    assert len(anchors) == PITFALLS
    policies = "".join(block.code for block in PROGRAMS if block.page == "docs/policies.md")
    assert all(f'"{scenario}"' in policies for scenario in SCENARIOS)
