"""A stand-in LLM provider: a real HTTP server on loopback that speaks the OpenAI wire format.

Owns the socket, the delays, the script of misbehaviour and the counters. What it says is composed by
`_openai_answers`. It knows nothing of caches: it is what a cache must not call twice.

    async with ProviderServer() as server:
        client = openai.AsyncOpenAI(base_url=server.base_url, api_key="any", max_retries=0)

Equal requests get equal texts; every call has its own id. Nothing sleeps unless a delay was asked for, and
tests wait for events (`called`, `release`) instead of guessing times.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llmcache_plugins.testing import _openai_answers as answers

try:
    from aiohttp import web
except ImportError as error:  # pragma: no cover - the tests have aiohttp
    raise ImportError(
        'the stand-in provider needs aiohttp: pip install "llmcache-plugins[cli]"',
    ) from error

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

__all__ = [
    "Behaviour",
    "Call",
    "ProviderServer",
    "clean_eof",
    "content_filter",
    "cut_stream",
    "empty_text",
    "filtered",
    "hanging",
    "no_choices",
    "rate_limited",
    "server_error",
    "truncated",
]

Wire = dict[str, Any]

_SPREAD = 0.35
"""Sigma of the log-normal delays: the slowest of a hundred answers takes a bit over twice the median."""
_UNTIL_FIRST_CHUNK = 0.3
"""The share of a streamed answer's time that passes before its first chunk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """How the server answers one call; the default is a complete answer."""

    status: int = 200
    error_code: str | None = None
    retry_after: float | None = None
    text: str | None = None
    """Said instead of the composed text."""
    finish_reason: str | None = None
    """Instead of `stop` or `tool_calls`."""
    no_choices: bool = False
    hang: bool = False
    """Say nothing until `release()`."""
    cut_after: int | None = None
    """Drop the connection after so many chunks."""
    end_after: int | None = None
    """End the stream in good order after so many chunks, without saying that the answer is complete."""


def rate_limited(*, retry_after: float | None = 1.0) -> Behaviour:
    """Return status 429."""
    return Behaviour(status=429, error_code="rate_limit_exceeded", retry_after=retry_after)


def server_error(*, status: int = 500) -> Behaviour:
    """Return a 5xx."""
    return Behaviour(status=status, error_code="server_error")


def content_filter() -> Behaviour:
    """Refuse the prompt, as Azure does: status 400 with code `content_filter`."""
    return Behaviour(status=400, error_code="content_filter")


def truncated() -> Behaviour:
    """Return an answer that met its token limit."""
    return Behaviour(finish_reason="length")


def filtered() -> Behaviour:
    """Return an answer that a filter has cut."""
    return Behaviour(finish_reason="content_filter")


def no_choices() -> Behaviour:
    """Return the shape of an answer that holds none."""
    return Behaviour(no_choices=True)


def empty_text() -> Behaviour:
    """Return a complete answer that says nothing."""
    return Behaviour(text="")


def hanging() -> Behaviour:
    """Say nothing until `release()`."""
    return Behaviour(hang=True)


def cut_stream(*, after: int = 2) -> Behaviour:
    """Drop the connection midway."""
    return Behaviour(cut_after=after)


def clean_eof(*, after: int = 2) -> Behaviour:
    """End a stream in good order without a finish reason."""
    return Behaviour(end_after=after)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request that arrived, as a script sees it."""

    serial: int
    api: str
    """`chat`, `responses` or `embeddings`."""
    request: Wire
    headers: dict[str, str]

    @property
    def prompt(self) -> str:
        """The last thing the user said."""
        return answers.prompt_of(self.request)

    @property
    def model(self) -> str:
        """The model that was asked for."""
        return str(self.request.get("model", ""))

    @property
    def streams(self) -> bool:
        """Whether chunks were asked for."""
        return bool(self.request.get("stream"))


Script = Callable[[Call], Behaviour | None]


@dataclass(slots=True)
class _Counters:
    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    running: int = 0
    most_running: int = 0
    abandoned: int = 0
    calls_by_model: Counter[str] = field(default_factory=Counter)
    calls_by_prompt: Counter[str] = field(default_factory=Counter)

    def as_dict(self) -> Wire:
        return {name: getattr(self, name) for name in self.__slots__}


class ProviderServer:
    """The stand-in. Use it with `async with`; it belongs to the event loop that entered it.

    `median_seconds` is the median of an answer's duration (0: at once), `seed` makes the delays
    repeatable. Entering binds `port` on loopback, 0 for a free one; leaving ends hanging answers and closes
    it. An address is part of what makes two requests equal: who records answers wants the same each time.
    """

    def __init__(self, *, median_seconds: float = 0.0, seed: int = 7, port: int = 0) -> None:
        self._port = port
        self.median_seconds = median_seconds
        self._rng = random.Random(seed)  # noqa: S311 - repeatable delays, no secrets
        self._counters = _Counters()
        self._queue: deque[Behaviour] = deque()
        self._script: Script = lambda _call: None
        self._changed = asyncio.Event()
        self._released = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self.base_url = ""
        """Where the API is, `/v1` included."""
        self.received: list[Call] = []
        """Every call, in order of arrival."""

    # What was asked.

    @property
    def calls(self) -> int:
        """Calls that arrived, whatever became of them; `GET /v1/models` and `/stats` are none."""
        return self._counters.calls

    @property
    def input_tokens(self) -> int:
        """Tokens read for answers that were given."""
        return self._counters.input_tokens

    @property
    def output_tokens(self) -> int:
        """Tokens produced for answers that were given, whole or in part."""
        return self._counters.output_tokens

    @property
    def running(self) -> int:
        """Calls that are being answered now."""
        return self._counters.running

    @property
    def most_running(self) -> int:
        """The largest number of calls that were answered at once."""
        return self._counters.most_running

    @property
    def abandoned(self) -> int:
        """Calls whose client went away before the answer was complete."""
        return self._counters.abandoned

    @property
    def calls_by_model(self) -> Counter[str]:
        """Calls by the model that was asked for."""
        return self._counters.calls_by_model

    @property
    def calls_by_prompt(self) -> Counter[str]:
        """Calls by the last thing the user said."""
        return self._counters.calls_by_prompt

    # What tests do.

    def script(self, *behaviours: Behaviour) -> None:
        """Answer the next calls like this, one each, in order of arrival; later ones as usual."""
        self._queue.extend(behaviours)

    def behave(self, script: Script) -> None:
        """Ask `script` about each call that `script()` does not cover; None means a complete answer."""
        self._script = script

    async def called(self, number: int = 1, *, timeout: float = 10.0) -> None:
        """Wait until `number` calls in all have arrived. Raises `TimeoutError`."""
        await self._until(lambda: self.calls >= number, timeout=timeout)

    async def idle(self, *, timeout: float = 10.0) -> None:
        """Wait until no call is being answered. Raises `TimeoutError`."""
        await self._until(lambda: self.running == 0, timeout=timeout)

    async def _until(self, reached: Callable[[], bool], *, timeout: float) -> None:
        async with asyncio.timeout(timeout):
            while not reached():
                await self._changed.wait()

    def _tell(self) -> None:
        """Wake all who wait: the event of this moment is set, those to come wait for the next."""
        self._changed.set()
        self._changed = asyncio.Event()

    def release(self) -> None:
        """Let every hanging call go on; calls that arrive later hang again."""
        self._released.set()
        self._released = asyncio.Event()

    # The server itself.

    async def __aenter__(self) -> Self:
        # handler_cancellation: a client that hangs up must end the call here too, as it does at providers.
        self._runner = web.AppRunner(self._application(), handler_cancellation=True, shutdown_timeout=0.5)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await site.start()
        self.base_url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()
        if self._runner is not None:
            await self._runner.cleanup()

    def _application(self) -> web.Application:
        application = web.Application(client_max_size=64 * 1024 * 1024)
        application.router.add_post("/v1/chat/completions", self._handler("chat"))
        application.router.add_post("/v1/responses", self._handler("responses"))
        application.router.add_post("/v1/embeddings", self._handler("embeddings"))
        application.router.add_get("/v1/models", self._models)
        application.router.add_get("/stats", self._stats)
        return application

    def _handler(self, api: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            call = await self._arrive(api, request)
            try:
                return await self._answer(request, call)
            except (asyncio.CancelledError, ConnectionResetError):
                self._counters.abandoned += 1
                raise
            finally:
                self._counters.running -= 1
                self._tell()

        return handle

    async def _arrive(self, api: str, request: web.Request) -> Call:
        body = await request.json()
        counters = self._counters
        counters.calls += 1
        counters.running += 1
        counters.most_running = max(counters.most_running, counters.running)
        call = Call(serial=counters.calls, api=api, request=body, headers=dict(request.headers))
        counters.calls_by_model[call.model] += 1
        counters.calls_by_prompt[call.prompt] += 1
        self.received.append(call)
        self._tell()
        return call

    async def _answer(self, request: web.Request, call: Call) -> web.StreamResponse:
        behaviour = (self._queue.popleft() if self._queue else self._script(call)) or Behaviour()
        if behaviour.hang:
            await self._released.wait()
        if behaviour.status != 200:
            return _error(behaviour)
        said = self._compose(call, behaviour)
        if call.streams:
            return await self._stream(request, call, behaviour, said)
        await self._pause(self._duration())
        if behaviour.cut_after is not None:
            _drop(request)
        self._bill(call, said)
        return web.json_response(_whole(call, behaviour, said))

    def _compose(self, call: Call, behaviour: Behaviour) -> answers.Said:
        request = call.request
        count = 0 if behaviour.no_choices else int(request.get("n") or 1)
        calls = answers.calls_for(request) if behaviour.text is None else ()
        texts = (
            answers.compose(request, choice=i) if behaviour.text is None else behaviour.text
            for i in range(count)
        )
        return answers.Said(
            serial=call.serial,
            created=int(time.time()),
            texts=tuple("" if calls else text for text in texts),
            finish_reason=behaviour.finish_reason or ("tool_calls" if calls else "stop"),
            tool_calls=calls if count else (),
            input_tokens=answers.input_tokens_of(request),
        )

    async def _stream(
        self, request: web.Request, call: Call, behaviour: Behaviour, said: answers.Said
    ) -> web.StreamResponse:
        make = answers.response_events if call.api == "responses" else answers.chat_chunks
        chunks = list(make(call.request, said))
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}
        )
        await response.prepare(request)
        self._bill(call, said)
        async for number, chunk in self._paced(chunks):
            if number == behaviour.cut_after:
                _drop(request)
                return response
            if number == behaviour.end_after:
                return response
            await response.write(_event(call.api, chunk))
        if call.api == "chat":
            await response.write(b"data: [DONE]\n\n")
        return response

    async def _paced(self, chunks: list[Wire]) -> AsyncIterator[tuple[int, Wire]]:
        """Yield the chunks over the time a whole answer takes."""
        duration = self._duration()
        await self._pause(duration * _UNTIL_FIRST_CHUNK)
        for number, chunk in enumerate(chunks):
            yield number, chunk
            await self._pause(duration * (1 - _UNTIL_FIRST_CHUNK) / len(chunks))

    def _duration(self) -> float:
        if self.median_seconds <= 0:
            return 0.0
        return self._rng.lognormvariate(math.log(self.median_seconds), _SPREAD)

    @staticmethod
    async def _pause(seconds: float) -> None:
        if seconds > 0:
            await asyncio.sleep(seconds)

    def _bill(self, call: Call, said: answers.Said) -> None:
        self._counters.input_tokens += said.input_tokens
        self._counters.output_tokens += 0 if call.api == "embeddings" else said.output_tokens

    async def _models(self, _request: web.Request) -> web.Response:
        model = {"id": "stand-in", "object": "model", "created": 0, "owned_by": "llmcache-plugins"}
        return web.json_response({"object": "list", "data": [model]})

    async def _stats(self, _request: web.Request) -> web.Response:
        return web.json_response(self._counters.as_dict())


def _whole(call: Call, behaviour: Behaviour, said: answers.Said) -> Wire:
    if call.api == "embeddings":
        return answers.embeddings(call.request, said, empty=behaviour.no_choices)
    return (answers.response if call.api == "responses" else answers.chat)(call.request, said)


def _event(api: str, chunk: Wire) -> bytes:
    """Return one server-sent event; the Responses API names each, chat completions do not."""
    name = f"event: {chunk['type']}\n" if api == "responses" else ""
    return f"{name}data: {json.dumps(chunk)}\n\n".encode()


def _drop(request: web.Request) -> None:
    """Break the connection: the client sees a body that ends too early."""
    if request.transport is not None:
        request.transport.abort()


def _error(behaviour: Behaviour) -> web.Response:
    headers = {} if behaviour.retry_after is None else {"Retry-After": f"{behaviour.retry_after:g}"}
    kind = "invalid_request_error" if behaviour.status < 429 else str(behaviour.error_code)
    body = {
        "message": f"The stand-in was told to answer {behaviour.status}.",
        "type": kind,
        "param": None,
        "code": behaviour.error_code,
    }
    return web.json_response({"error": body}, status=behaviour.status, headers=headers)
