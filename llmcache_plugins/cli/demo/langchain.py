"""The LangChain part: scenes of an application, each without a cache, with LangChain's own and with ours.

Owns how the scenes are played, by real models over HTTP. Imports LangChain, which takes seconds: import it
when the part is to run. What is played is in `scenes`, what it means in `figures`.
"""

from __future__ import annotations

import functools
import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from langchain_core.caches import InMemoryCache
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.tools import StructuredTool
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from llmcache_plugins.adapters.langchain import LangChainCache, cached
from llmcache_plugins.cli.demo import scenes
from llmcache_plugins.cli.demo.plays import MEDIAN_SHARE, Script, Transcript, scenes_of, tally
from llmcache_plugins.cli.load.calls import at_once
from llmcache_plugins.cli.load.stage import TIMEOUT, open_http, open_source

if TYPE_CHECKING:
    from collections.abc import Callable

    from langchain_core.caches import BaseCache

    from llmcache_plugins.cache import ResponseCache
    from llmcache_plugins.cli.demo.figures import Scene, Tally
    from llmcache_plugins.cli.load.stage import Api, Source

__all__ = ["run_langchain"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Models:
    """The models of one application."""

    plain: ChatOpenAI
    """The user's, with a cache or without."""
    streaming: ChatOpenAI
    """The one that it streams with: LangChain asks no cache for a stream, `cached()` does."""


async def run_langchain(
    api: Api, *, model: str, cache: ResponseCache, median_seconds: float, on_done: Callable[[int], None]
) -> tuple[Scene, ...]:
    """Play all scenes; return what each took. `on_done` is told how many more calls were made.

    The three applications run at once. Each has a client of its own and, if it is the stand-in, a provider
    of its own, so that no call is counted for another.
    """
    scripts = _scripts(callers=scenes.burst_callers(is_stand_in=api.is_stand_in))
    ours = LangChainCache(cache)

    async def column(models_of: Callable[[Source, object], _Models]) -> list[Tally]:
        async with (
            open_source(api, median_seconds=median_seconds * MEDIAN_SHARE) as source,
            open_http(source.api, wire=source.wire) as http,
        ):
            models = models_of(source, http)
            return [await tally(script, models, source, on_done) for script in scripts]

    def uncached(source: Source, http: object) -> _Models:
        chat = _chat(source.api, model, http, cache=False)
        return _Models(plain=chat, streaming=chat)

    def in_memory(source: Source, http: object) -> _Models:
        chat = _chat(source.api, model, http, cache=InMemoryCache())
        return _Models(plain=chat, streaming=chat)

    def with_ours(source: Source, http: object) -> _Models:
        return _Models(
            plain=_chat(source.api, model, http, cache=ours),
            streaming=cached(_chat(source.api, model, http), ours),
        )

    columns = await at_once(map(column, (uncached, in_memory, with_ours)))
    return scenes_of(scripts, columns)


def _chat(api: Api, model: str, http: object, *, cache: BaseCache | bool | None = None) -> ChatOpenAI:
    return ChatOpenAI(
        model=model,
        base_url=api.base_url,
        api_key=SecretStr(api.key),
        http_async_client=http,
        # One from the environment cannot be had beside a client that counts.
        openai_proxy=None,
        timeout=TIMEOUT,
        max_retries=api.max_retries,
        cache=cache,
    )


# --- The scenes -------------------------------------------------------------------------------------------


def _scripts(*, callers: int) -> tuple[Script[_Models], ...]:
    return (
        Script(
            name="chat replay",
            description=f"chat of {len(scenes.TURNS)} turns, {scenes.PLAYS} times",
            play=_play_chat,
        ),
        Script(
            name="agent",
            description=f"agent with a tool, {scenes.PLAYS} times",
            play=_play_agent,
        ),
        Script(
            name="stream",
            description=f"stream, {scenes.STREAMS} at once, {scenes.STREAMS} in turn",
            play=_play_streams,
        ),
        Script(
            name="burst",
            description=f"question, {callers} at once",
            play=functools.partial(_play_burst, callers=callers),
        ),
    )


async def _play_chat(models: _Models) -> list[Transcript]:
    return [await _talk(models.plain) for _ in range(scenes.PLAYS)]


async def _talk(model: ChatOpenAI) -> Transcript:
    messages: list[BaseMessage] = [SystemMessage(scenes.SYSTEM)]
    said = []
    for turn in scenes.TURNS:
        messages.append(HumanMessage(turn))
        answer = await model.ainvoke(messages)
        messages.append(answer)
        said.append(_said(answer))
    return tuple(said)


def _search_help(topic: str, limit: int = 1) -> str:
    """Search the help pages for a topic."""
    return f"{limit} page(s) on {topic}: open every day from 9 to 18."


async def _play_agent(models: _Models) -> list[Transcript]:
    return [await _work(models.plain) for _ in range(scenes.PLAYS)]


async def _work(model: ChatOpenAI) -> Transcript:
    # A real model may call with arguments that do not fit: then it is told so.
    tool = StructuredTool.from_function(_search_help, name="search_help", handle_validation_error=True)
    agent = model.bind_tools([tool])
    messages: list[BaseMessage] = [HumanMessage(scenes.AGENT_QUESTION)]
    said: list[str] = []
    while len(said) < scenes.AGENT_STEPS:
        answer = await agent.ainvoke(messages)
        messages.append(answer)
        said.append(_said(answer))
        if not answer.tool_calls:
            break
        messages += [await tool.ainvoke(call) for call in answer.tool_calls]
    return tuple(said)


async def _play_streams(models: _Models) -> list[Transcript]:
    # At once first: later they would all be hits.
    together = await at_once(_read(models.streaming) for _ in range(scenes.STREAMS))
    return [*together, *[await _read(models.streaming) for _ in range(scenes.STREAMS)]]


async def _read(model: ChatOpenAI) -> Transcript:
    chunks = [chunk async for chunk in model.astream(scenes.STREAM_QUESTION)]
    return (_said(functools.reduce(operator.add, chunks)),)


async def _play_burst(models: _Models, *, callers: int) -> list[Transcript]:
    async def ask() -> Transcript:
        return (_said(await models.plain.ainvoke(scenes.BURST_QUESTION)),)

    return await at_once(ask() for _ in range(callers))


def _said(message: AIMessage) -> str:
    """Return what is equal for equal answers: not their ids, and not what is noted of them."""
    return repr((message.content, [(call["name"], call["args"]) for call in message.tool_calls]))
