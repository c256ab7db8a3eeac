"""A web service whose answers say how they came about, in HTTP's own words (RFC 9211, RFC 9111).

    pip install "llmcache-plugins[embedded,openai]" starlette uvicorn
    OPENAI_API_KEY=... uvicorn --app-dir examples asgi_app:app
    curl -i -d "What is a lease?" -H "Cache-Control: max-age=60" http://127.0.0.1:8000/answer

LLMCACHE_URL names its Redis; without one a server of your own is started. OPENAI_BASE_URL may be any server
that speaks OpenAI's API, such as `llmcache_plugins.testing.provider_server`, which needs no account.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from openai import AsyncOpenAI, OpenAIError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from llmcache_plugins import CacheMiss, InferenceGateway, ResponseCache
from llmcache_plugins.providers import OpenAIProvider

A_YEAR = 365 * 24 * 3600


@asynccontextmanager
async def lifespan(_app: Starlette) -> AsyncIterator[dict[str, Any]]:
    async with AsyncOpenAI() as client, ResponseCache.from_url(os.environ.get("LLMCACHE_URL")) as cache:
        yield {"gateway": InferenceGateway(OpenAIProvider(client), cache)}


async def answer(request: Request) -> PlainTextResponse:
    question = (await request.body()).decode(errors="replace")
    query = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": question}]}
    options = options_of(",".join(request.headers.getlist("cache-control")))
    try:
        # If users must not see each other's answers: tenant=..., from what you know of who asks.
        result = await request.state.gateway.resolve_detailed(query, **options)
    except CacheMiss:
        return PlainTextResponse("There is no stored answer.\n", status_code=504)
    return PlainTextResponse(result.answer.choices[0].message.content, headers=result.headers)


def options_of(cache_control: str) -> dict[str, Any]:
    """Return what a client asks for by RFC 9111, section 5.2.1, as the options of a call."""
    parts = (part.strip().partition("=") for part in cache_control.lower().split(","))
    said = {name: value.strip('"') for name, _, value in parts}
    options: dict[str, Any] = {}
    if "only-if-cached" in said:
        options["mode"] = "read_only"
    elif "no-cache" in said:
        options["mode"] = "refresh"
    if "no-store" in said:
        # Not mode "off": it forbids to keep this answer, not to give one that is there.
        options["ttl"] = 0
    if "no-cache" in said:
        options["max_age"] = 0
    elif "max-age" in said:
        # Who does not say a number of seconds is given no stored answer.
        seconds = said["max-age"]
        options["max_age"] = min(int(seconds[:9]), A_YEAR) if seconds.isdecimal() else 0
    return options


async def failed(_request: Request, error: Exception) -> PlainTextResponse:
    return PlainTextResponse(f"The provider did not answer: {type(error).__name__}\n", status_code=502)


app = Starlette(
    routes=[Route("/answer", answer, methods=["POST"])],
    exception_handlers={OpenAIError: failed},
    lifespan=lifespan,
)
