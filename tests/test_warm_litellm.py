"""What `llmcache warm` stores for LiteLLM's models: its applications hit it, by every face."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import litellm
import openai
import pytest
from litellm_calls import QUIET, quiet  # noqa: F401

from llmcache_plugins import InferenceGateway, ResponseCache
from llmcache_plugins.adapters.litellm import LiteLLMCache
from llmcache_plugins.providers import LiteLLMProvider, OpenAIProvider

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from servers import Server

    from llmcache_plugins.testing.provider_server import ProviderServer

pytestmark = [*QUIET, pytest.mark.usefixtures("quiet")]

MESSAGES = [{"role": "user", "content": "What is a lease?"}]


@pytest.mark.parametrize("by", ["litellm", "the address"])
async def test_applications_hit_what_was_stored(
    valkey: Server,
    stand_in: ProviderServer,
    namespace: str,
    called: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    by: str,
):
    monkeypatch.setenv("OPENAI_API_KEY", "hush-hush")
    monkeypatch.setenv("OPENAI_BASE_URL", stand_in.base_url)
    file = tmp_path / "q.jsonl"
    file.write_text('"What is a lease?"\n')
    where = ("--url", valkey.url, "--namespace", namespace)
    whom = (
        ("--model", "openai/gpt-4o-mini")
        if by == "litellm"
        else ("--model", "gpt-4o-mini", "--api-base", stand_in.base_url)
    )
    code, out, err = await asyncio.to_thread(called, "warm", str(file), *where, *whom)

    assert (code, err) == (0, "")
    assert "1 seeded" in out
    patient: dict[str, Any] = {"namespace": namespace, "lookup_budget": 5.0, "socket_timeout": 5.0}
    async with (
        ResponseCache.from_url(valkey.url, **patient) as cache,
        openai.AsyncOpenAI() as client,
        LiteLLMCache.from_url(valkey.url, **patient) as hook,
    ):
        query = {"model": "gpt-4o-mini", "messages": MESSAGES}
        for provider, name in ((OpenAIProvider(client), ""), (LiteLLMProvider(), "openai/")):
            gateway = InferenceGateway(provider, cache)
            found = await gateway.resolve_detailed({**query, "model": f"{name}gpt-4o-mini"})
            assert found.outcome == "hit"
        monkeypatch.setattr(litellm, "cache", hook)
        answer = await litellm.acompletion(model="openai/gpt-4o-mini", messages=MESSAGES)
        assert answer._hidden_params["cache_hit"] is True
    assert stand_in.calls == 1


async def test_a_rate_limit_is_seen_at_once_and_tried_again_by_the_run(
    valkey: Server,
    stand_in: ProviderServer,
    namespace: str,
    called: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
):
    from llmcache_plugins.testing.provider_server import rate_limited

    monkeypatch.setenv("OPENAI_API_KEY", "hush-hush")
    monkeypatch.setenv("OPENAI_BASE_URL", stand_in.base_url)
    stand_in.script(*(rate_limited(retry_after=0.1) for _ in range(2)))
    file = tmp_path / "q.jsonl"
    file.write_text('"What is a lease?"\n')
    where = ("--url", valkey.url, "--namespace", namespace, "--model", "openai/gpt-4o-mini")
    code, out, _ = await asyncio.to_thread(called, "warm", str(file), *where, "--attempts", "2")

    # LiteLLM's own client would have tried on until it got its answer.
    assert (code, stand_in.calls) == (1, 2)
    assert "429 RateLimitError (line 1)" in out
