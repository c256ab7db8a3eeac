"""APIs that the stand-in provider does not have, as LiteLLM calls them: the old completions, rerank,
transcription, and Anthropic's messages.

A real HTTP server on loopback that counts what reaches it. Knows nothing of caches.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from typing import TYPE_CHECKING, Any, Self

from aiohttp import web

if TYPE_CHECKING:
    from types import TracebackType


class MoreApis:
    """The server; `base_url` has no path."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.base_url = ""
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        application = web.Application()
        application.router.add_post("/v1/completions", self._completions)
        application.router.add_post("/v1/rerank", self._rerank)
        application.router.add_post("/v1/audio/transcriptions", self._transcriptions)
        application.router.add_post("/v1/messages", self._messages)
        self._runner = web.AppRunner(application, shutdown_timeout=0.5)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.base_url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.calls["completions"] += 1
        texts = [f"{prompt} and so on" for prompt in _listed(body["prompt"])]
        answer = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": body["model"]}
        if not body.get("stream"):
            choices = [_text_choice(i, text, "stop") for i, text in enumerate(texts)]
            usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
            return web.json_response({**answer, "choices": choices, "usage": usage})
        parts = [_text_choice(0, word + " ", None) for word in texts[0].split()]
        return await _events(
            request, [{**answer, "choices": [part]} for part in [*parts, _text_choice(0, "", "stop")]]
        )

    async def _rerank(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.calls["rerank"] += 1
        results = [{"index": i, "relevance_score": 1 / (i + 2)} for i in range(len(body["documents"]))]
        units = {"billed_units": {"search_units": 1}, "tokens": {"input_tokens": 5}}
        return web.json_response({"id": "rerank-1", "results": results, "meta": units})

    async def _transcriptions(self, request: web.Request) -> web.Response:
        form = await request.post()
        self.calls["transcriptions"] += 1
        content = form["file"].file.read()  # type: ignore[union-attr]
        return web.json_response({"text": f"heard {hashlib.sha256(content).hexdigest()[:8]}"})

    async def _messages(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.calls["messages"] += 1
        message = {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": body["model"],
            "content": [{"type": "text", "text": "hello there"}],
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "usage": {"input_tokens": 3, "output_tokens": 4},
        }
        if not body.get("stream"):
            return web.json_response(message)
        begun = {**message, "content": [], "stop_reason": None}
        block = {"type": "text", "text": ""}
        return await _events(
            request,
            [
                {"type": "message_start", "message": begun},
                {"type": "content_block_start", "index": 0, "content_block": block},
                {
                    "type": "content_block_delta",
                    "index": 0,
                    "delta": {"type": "text_delta", "text": "hello there"},
                },
                {"type": "content_block_stop", "index": 0},
                {
                    "type": "message_delta",
                    "delta": {"stop_reason": "end_turn", "stop_sequence": None},
                    "usage": {"output_tokens": 4},
                },
                {"type": "message_stop"},
            ],
        )


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _text_choice(index: int, text: str, finish_reason: str | None) -> dict[str, Any]:
    return {"index": index, "text": text, "finish_reason": finish_reason, "logprobs": None}


async def _events(request: web.Request, events: list[dict[str, Any]]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for event in events:
        name = f"event: {event['type']}\n" if "type" in event else ""
        await response.write(f"{name}data: {json.dumps(event)}\n\n".encode())
    if "type" not in events[0]:
        await response.write(b"data: [DONE]\n\n")
    return response
