"""The blocks of one page, one after the other, in one namespace: what a reader does who types them in.

Run as a program, with PAGE in the environment. Owns the names that a page may use without making them, each a
real thing: the server of URL, the provider of OPENAI_BASE_URL. Says on stdout where each block begins. Knows
nothing of what the blocks should say.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import os
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from command import ROOT
from pages import Block, blocks_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

BEGINS = "\x1e"
"""Begins a line of stdout that says where the block is."""
THINGS = (
    "url",
    "question",
    "messages",
    "query",
    "cache",
    "client",
    "provider",
    "gateway",
    "model",
    "meters",
    "tracers",
)
"""What a page may use without making it; see `Things`."""

BEFORE = """\
import os
from llmcache_plugins import CacheConfig
os.chdir(os.environ["HERE"])
CacheConfig.__init__.__kwdefaults__.update(lookup_budget=5.0, commit_budget=5.0)
"""
"""Runs before what a page says: in a directory of its own, with examples/. And a test shares its machine
with others: after 50 ms a hit would be a miss."""

QUESTION = "What is a lease?"
MESSAGES = [{"role": "user", "content": QUESTION}]


def story_of(page: str) -> list[Block]:
    """Return the blocks of a page that share a namespace."""
    blocks = [block for block in blocks_of(ROOT / page) if block.language == "python"]
    return [block for block in blocks if not block.is_program and "not executed" not in block.said]


class Things:
    """What a page finds there: made when it is first named, and closed at the end."""

    def __init__(self, page: str, stack: AsyncExitStack) -> None:
        self._page = page
        self._stack = stack
        self._made: dict[str, Any] = {}

    async def get(self, name: str) -> Any:
        """Return the thing of that name."""
        if name not in self._made:
            make: Callable[[], Awaitable[Any]] = getattr(self, f"_{name}")
            self._made[name] = await make()
        return self._made[name]

    async def _url(self) -> str:
        return os.environ["URL"]

    async def _question(self) -> str:
        return QUESTION

    async def _messages(self) -> list[dict[str, str]]:
        return MESSAGES

    async def _query(self) -> dict[str, Any]:
        return {"model": "gpt-4o-mini", "messages": MESSAGES}

    async def _cache(self) -> Any:
        from llmcache_plugins import ResponseCache

        made = ResponseCache.from_url(await self.get("url"), namespace=self._page)
        return await self._stack.enter_async_context(made)

    async def _client(self) -> Any:
        from openai import AsyncOpenAI

        return await self._stack.enter_async_context(AsyncOpenAI())

    async def _provider(self) -> Any:
        from llmcache_plugins.providers import OpenAIProvider

        return OpenAIProvider(await self.get("client"))

    async def _gateway(self) -> Any:
        from llmcache_plugins import InferenceGateway

        return InferenceGateway(await self.get("provider"), await self.get("cache"))

    async def _model(self) -> Any:
        from langchain_openai import ChatOpenAI

        return ChatOpenAI(model="gpt-4o-mini")

    async def _meters(self) -> Any:
        from opentelemetry.sdk.metrics import MeterProvider

        return MeterProvider()

    async def _tracers(self) -> Any:
        from opentelemetry.sdk.trace import TracerProvider

        return TracerProvider()

    def __contains__(self, name: str) -> bool:
        return name in THINGS


async def tell(page: str) -> None:
    """Run all blocks."""
    names: dict[str, Any] = {"__name__": "story"}
    exec(BEFORE, {})
    async with AsyncExitStack() as stack:
        things = Things(page, stack)
        for block in story_of(page):
            sys.stdout.write(f"{BEGINS}{block.line}\n")
            if block.title:
                _import(block)
                continue
            known = set(names)
            for code, line in ((block.said.get("setup", ""), block.line), (block.code, block.line)):
                await _run(code, names, things, page=page, line=line)
            for name in [name for name in names if name.startswith("test_") and name not in known]:
                await _call(names[name], names, things)


def _import(block: Block) -> None:
    """Write the block where it says that it is, and import it from there; tests in it are for pytest."""
    file = Path(block.title)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(block.code, "utf-8")
    sys.path.insert(0, str(Path.cwd()))
    sys.modules[file.stem] = module = ModuleType(file.stem)
    exec(compile(block.code, block.title, "exec"), module.__dict__)


async def _run(code: str, names: dict[str, Any], things: Things, *, page: str, line: int) -> None:
    # The server's address, and a port that nobody else has: Prometheus' usual one may be taken.
    for written, meant in {"redis://localhost": "URL", "9464": "PORT"}.items():
        code = code.replace(written, os.environ[meant])
    tree = ast.parse(code)
    ast.increment_lineno(tree, line - 1)
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in things and node.id not in names:
            names[node.id] = await things.get(node.id)
    compiled = compile(tree, page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    done = eval(compiled, names)
    if inspect.iscoroutine(done):
        await done


async def _call(test: Callable[..., Any], names: dict[str, Any], things: Things) -> None:
    """Call a test that a page shows, as pytest would, with the things of its parameters' names."""
    given = {}
    for name in inspect.signature(test).parameters:
        given[name] = names[name] if name in names else await things.get(name)
    done = test(**given)
    if inspect.iscoroutine(done):
        await done


if __name__ == "__main__":
    asyncio.run(tell(os.environ["PAGE"]))
