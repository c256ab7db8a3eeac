"""A provider that takes exactly so many seconds, in a process of its own, and the client that asks it.

It speaks the OpenAI wire format, because some of the alternatives bring their framework's client. Every
call gets an answer of its own, so it shows who was given which.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp import web

from benchmarks.processes import child

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection

WARM_UP = "warm-up"
"""Questions that begin like this are answered at once and not counted."""
MODEL = "stand-in"
_PROCESS = "x-process"
_START_SECONDS = 30.0

Ask = Callable[[str], Awaitable[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call that arrived. `began` is of `time.monotonic()`; `pid` is 0 for a client that is not ours."""

    pid: int
    began: float


@dataclass(frozen=True, slots=True)
class Provider:
    """A running provider."""

    url: str

    def calls(self) -> list[Call]:
        """Return all calls so far, in order of arrival."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{self.url}/calls", timeout=10) as response:
            return [Call(**call) for call in json.load(response)]


@contextlib.contextmanager
def provider(*, seconds: float) -> Iterator[Provider]:
    """Run a provider that is gone when the block ends."""
    with child(_serve, seconds) as process:
        yield Provider(process.receive(timeout=_START_SECONDS))


@contextlib.asynccontextmanager
async def open_ask(url: str) -> AsyncIterator[Ask]:
    """Give the client that every contender uses whose own framework brings none: keep-alive, no limit."""
    connector = aiohttp.TCPConnector(limit=0)
    headers = {_PROCESS: str(os.getpid())}
    async with aiohttp.ClientSession(
        connector=connector, headers=headers, timeout=aiohttp.ClientTimeout(total=None)
    ) as session:

        async def ask(question: str) -> str:
            async with session.post(f"{url}/chat/completions", json=query(question)) as response:
                response.raise_for_status()
                return str((await response.json())["choices"][0]["message"]["content"])

        yield ask


def query(question: str) -> dict[str, Any]:
    """Return the request body."""
    return {"model": MODEL, "messages": [{"role": "user", "content": question}]}


def _serve(connection: Connection, seconds: float) -> None:
    asyncio.run(_serve_forever(connection, seconds))


async def _serve_forever(connection: Connection, seconds: float) -> None:
    calls: list[dict[str, float]] = []

    async def complete(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        question = str(body["messages"][-1]["content"])
        if question.startswith(WARM_UP):
            return await _answer(request, body, "ready")
        calls.append({"pid": int(request.headers.get(_PROCESS, 0)), "began": time.monotonic()})
        text = f"answer {len(calls)}"
        await asyncio.sleep(seconds)
        return await _answer(request, body, text)

    async def tell(_request: web.Request) -> web.Response:
        return web.json_response(calls)

    application = web.Application()
    application.router.add_post("/v1/chat/completions", complete)
    application.router.add_get("/v1/calls", tell)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=4096).start()
    connection.send(f"http://127.0.0.1:{runner.addresses[0][1]}/v1")
    await asyncio.Event().wait()


async def _answer(request: web.Request, body: dict[str, Any], text: str) -> web.StreamResponse:
    message = {"role": "assistant", "content": text}
    if not body.get("stream"):
        usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return web.json_response({**_head("chat.completion"), "choices": [choice], "usage": usage})
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for delta, end in ((message, None), ({}, "stop")):
        choice = {"index": 0, "delta": delta, "finish_reason": end}
        chunk = {**_head("chat.completion.chunk"), "choices": [choice]}
        await response.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
    await response.write(b"data: [DONE]\n\n")
    return response


def _head(kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-stand-in", "object": kind, "created": int(time.time()), "model": MODEL}
