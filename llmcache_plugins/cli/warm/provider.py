"""Who is asked, and how a line becomes a request of theirs: the same one that an application sends.

With an address the OpenAI SDK asks, without one LiteLLM, by the names it has for models. Both try once:
when to try again is for the whole run to say.
"""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal

from llmcache_plugins.cli.support import CannotRun
from llmcache_plugins.repository.urls import redact

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

__all__ = ["API_KEY", "Api", "builder", "open_provider"]

Api = Literal["chat", "responses", "embeddings"]
API_KEY = "OPENAI_API_KEY"

_ASKED_IN = {"chat": "messages", "responses": "input", "embeddings": "input"}


def builder(*, api: Api, model: str | None, by_litellm: bool) -> Callable[[Any], Mapping[str, Any]]:
    """Return what makes a request of a line; it raises `ValueError` for what is none."""
    field = _ASKED_IN[api]

    def build(said: Any) -> Mapping[str, Any]:
        if isinstance(said, str):
            said = {field: [{"role": "user", "content": said}] if api == "chat" else said}
        if not isinstance(said, dict):
            raise ValueError("not a request: write an object, or a prompt as a string")  # noqa: TRY004
        if not said.get(field):
            raise ValueError(f"not a request: it has no {field!r}")
        named = said.get("model") or model
        if not named:
            raise ValueError("it names no model: say --model NAME")
        return {**said, "model": named} | ({"max_retries": 0} if by_litellm else {})

    return build


@asynccontextmanager
async def open_provider(api_base: str | None, *, api: Api) -> AsyncIterator[Any]:
    """Give the provider to ask. Raises `CannotRun` without a key, `ImportError` that names the extra."""
    if api_base is None:
        yield _litellm(api)
        return
    from llmcache_plugins.providers import OpenAIProvider  # before the SDK: it names the extra

    provider: Any = OpenAIProvider
    from openai import AsyncOpenAI

    key = os.environ.get(API_KEY)
    if not key:
        raise CannotRun(
            f"no key for {redact(api_base)}: set {API_KEY}, to any word for a server that wants none"
        )
    async with AsyncOpenAI(base_url=api_base, api_key=key, max_retries=0) as client:
        yield provider(client, api=api)


def _litellm(api: Api) -> Any:
    from llmcache_plugins.providers import LiteLLMProvider

    provider: Any = LiteLLMProvider
    import litellm

    # It prints on stdout otherwise, in the middle of the report.
    litellm.suppress_debug_info = True
    return provider(api=api)
