"""Normalizers under LiteLLM: its synchronous hook for keys runs no rule of the application on a loop."""

from __future__ import annotations

import asyncio
import re
import threading
import uuid
from typing import TYPE_CHECKING

import litellm
from litellm_calls import (  # noqa: F401
    QUIET,
    Chat,
    chat,
    keeps_streams,
    make,
    quiet,
    said,
    text_of,
    written,
)

if TYPE_CHECKING:
    from litellm_calls import Make

    from llmcache_plugins.testing.provider_server import ProviderServer

pytestmark = QUIET


class Rule:
    """Strips digits, and notes the threads it runs in."""

    def __init__(self) -> None:
        self.seen: set[int] = set()

    def __call__(self, text: str) -> str:
        self.seen.add(threading.get_ident())
        return re.sub(r"\d", "", text)

    def ran_elsewhere(self) -> bool:
        return bool(self.seen) and threading.get_ident() not in self.seen


async def test_equal_calls_hit(stand_in: ProviderServer, make: Make, chat: Chat):
    cache = make(normalizers=["uuid"])
    for _ in range(2):
        await litellm.acompletion(**chat(f"for {uuid.uuid4()}"))
        await written(cache)
    assert stand_in.calls == 1


@keeps_streams
async def test_a_rule_of_the_application_runs_in_no_event_loop(
    stand_in: ProviderServer, make: Make, chat: Chat
):
    rule = Rule()
    cache = make(normalizers=[rule])
    whole = await litellm.acompletion(**chat("call 1"))
    await written(cache)
    again = await litellm.acompletion(**chat("call 2"))
    assert text_of(again) == text_of(whole)
    first = await said(await litellm.acompletion(**chat("stream 1", stream=True)))
    await written(cache)
    second = await said(await litellm.acompletion(**chat("stream 2", stream=True)))
    assert text_of(first) == text_of(second)
    assert text_of(await asyncio.to_thread(litellm.completion, **chat("call 3"))) == text_of(whole)
    assert stand_in.calls == 2
    assert rule.ran_elsewhere()


async def test_calls_at_one_time_share_one(stand_in: ProviderServer, make: Make, chat: Chat):
    make(normalizers=[Rule()])
    answers = await asyncio.gather(*(litellm.acompletion(**chat(f"call {i}")) for i in range(10)))
    assert len({answer.id for answer in answers}) == 1
    assert stand_in.calls == 1


async def test_each_text_of_a_list_gets_its_own_vector(stand_in: ProviderServer, make: Make, chat: Chat):
    rule = Rule()
    cache = make(normalizers=[rule])
    await litellm.aembedding(**chat.to(input=["a 1", "b 1", "c 1"]))
    await written(cache)
    known = await litellm.aembedding(**chat.to(input=["c 2", "a 2", "b 2"]))
    await written(cache)
    litellm.cache = None
    fresh = await litellm.aembedding(**chat.to(input=["c 1", "a 1", "b 1"]))
    assert [item["embedding"] for item in known.data] == [item["embedding"] for item in fresh.data]
    assert stand_in.calls == 2
    assert rule.ran_elsewhere()


async def test_a_rule_that_fails_costs_the_cache_and_not_the_call(
    stand_in: ProviderServer, make: Make, chat: Chat
):
    def fails(text: str) -> str:
        raise ValueError(text)

    make(normalizers=[fails])
    for _ in range(2):
        assert text_of(await litellm.acompletion(**chat("hi")))
    assert (await litellm.aembedding(**chat.to(input=["a", "b"]))).data
    assert stand_in.calls == 3
