"""The LiteLLM part: scenes of an application, each without a cache, with LiteLLM's own and with ours.

Owns how the scenes are played, by LiteLLM's own functions over HTTP, and that LiteLLM is left as it was.
Imports LiteLLM, which takes seconds: import it when the part is to run. What is played is in `scenes`, what
it means in `figures`.
"""

from __future__ import annotations

import functools
import os
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

# Without it LiteLLM downloads its price list when it is imported.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")

import litellm
from litellm.caching.caching import Cache
from litellm.router import Router
from litellm.types.caching import LiteLLMCacheType

from llmcache_plugins.adapters.litellm import LiteLLMCache
from llmcache_plugins.cli.demo import scenes
from llmcache_plugins.cli.demo.plays import MEDIAN_SHARE, Script, Transcript, scenes_of, tally
from llmcache_plugins.cli.load.calls import at_once
from llmcache_plugins.cli.load.stage import TIMEOUT, open_client, open_source

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator

    from openai import AsyncOpenAI

    from llmcache_plugins.cache import ResponseCache
    from llmcache_plugins.cli.demo.figures import Scene
    from llmcache_plugins.cli.load.stage import Api

__all__ = ["run_litellm"]

_MEDIAN_SHARE = MEDIAN_SHARE / 2
"""One application after the other, and LiteLLM has taken seconds to import."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _App:
    """An application that calls LiteLLM. Which cache it has is nothing it knows of."""

    name: str
    """Part of all it asks: LiteLLM may write the last answers of one when the next has begun."""
    to_model: dict[str, Any]
    """Arguments of each call: the model, where it is, and a client that counts."""

    async def complete(self, messages: list[Any], **more: Any) -> Any:
        return await litellm.acompletion(messages=messages, **self.to_model, **more)

    async def ask(self, question: str, **more: Any) -> Any:
        return await self.complete([*self.opening(), _of_user(question)], **more)

    async def embed(self, texts: Iterable[str]) -> Any:
        to_model = {**self.to_model, "model": f"openai/{scenes.EMBEDDING_MODEL}"}
        return await litellm.aembedding(input=[f"{text}, {self.name}" for text in texts], **to_model)

    def opening(self) -> list[Any]:
        """Return what each conversation begins with."""
        return [{"role": "system", "content": f"{scenes.SYSTEM} The shop is {self.name}."}]

    def router(self) -> Callable[[list[Any]], Awaitable[Any]]:
        """Return a way to ask a router over two deployments of the model."""
        to_model = {**self.to_model}
        client = to_model.pop("client")  # a router copies what it is told of a deployment
        deployments = [
            {"model_name": "assistant", "litellm_params": to_model, "model_info": {"id": place}}
            for place in ("one", "other")
        ]
        # Told to cache where there is none, a router makes one.
        router = Router(model_list=deployments, cache_responses=litellm.cache is not None, num_retries=0)
        return functools.partial(router.acompletion, "assistant", client=client)


async def run_litellm(
    api: Api, *, model: str, cache: ResponseCache, median_seconds: float, on_done: Callable[[int], None]
) -> tuple[Scene, ...]:
    """Play all scenes; return what each took. `on_done` is told how many more calls were made.

    The three applications run one after the other: LiteLLM has one cache for a process.
    """
    scripts = _scripts(is_stand_in=api.is_stand_in)
    ours = LiteLLMCache(cache)
    columns = []
    try:
        async with (
            open_source(api, median_seconds=median_seconds * _MEDIAN_SHARE) as source,
            open_client(source.api, wire=source.wire) as client,
        ):
            to_model = _to_model(source.api, model, client)
            caches = {"Alba": None, "Bora": Cache(type=LiteLLMCacheType.LOCAL), "Cima": ours}
            for name, own in caches.items():
                app = _App(name=name, to_model=to_model)
                with _litellm_with(own):
                    columns.append([await tally(script, app, source, on_done) for script in scripts])
    finally:
        ours.close()
    return scenes_of(scripts, columns)


def _to_model(api: Api, model: str, client: AsyncOpenAI) -> dict[str, Any]:
    return {
        "model": f"openai/{model}",
        "api_base": api.base_url,
        "api_key": api.key,
        "client": client,
        "timeout": TIMEOUT,
        "max_retries": api.max_retries,
    }


@contextmanager
def _litellm_with(cache: Cache | None) -> Iterator[None]:
    """Give LiteLLM a cache, and keep it from talking."""
    before = litellm.cache, litellm.suppress_debug_info
    litellm.cache, litellm.suppress_debug_info = cache, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydantic's, of LiteLLM's own types
            yield
    finally:
        litellm.cache, litellm.suppress_debug_info = before


# --- The scenes -------------------------------------------------------------------------------------------


def _scripts(*, is_stand_in: bool) -> tuple[Script[_App], ...]:
    lists = Script(
        name="embeddings",
        description=f"embeddings of {len(scenes.TEXTS)} lists, {scenes.PLAYS} times",
        play=_play_embeddings,
    )
    return (
        Script(
            name="chat replay",
            description=f"chat of {len(scenes.TURNS)} turns, {scenes.PLAYS} times",
            play=_play_chat,
        ),
        *([lists] if is_stand_in else []),
        Script(
            name="router",
            description=f"Router, {scenes.CALLERS} at once",
            play=_play_router,
        ),
        Script(
            name="burst",
            description=f"question, {scenes.CALLERS} at once",
            play=_play_burst,
        ),
        Script(
            name="stream",
            description=f"stream, {scenes.STREAMS} at once, {scenes.REPLAYS} in turn",
            play=_play_streams,
        ),
    )


async def _play_chat(app: _App) -> list[Transcript]:
    return [await _talk(app) for _ in range(scenes.PLAYS)]


async def _talk(app: _App) -> Transcript:
    messages = app.opening()
    said = []
    for turn in scenes.TURNS:
        messages.append(_of_user(turn))
        answer = (await app.complete(messages)).choices[0].message
        messages.append({"role": "assistant", "content": answer.content})
        said.append(str(answer.content))
    return tuple(said)


async def _play_embeddings(app: _App) -> list[Transcript]:
    return [await _embed_all(app) for _ in range(scenes.PLAYS)]


async def _embed_all(app: _App) -> Transcript:
    answers = [await app.embed(texts) for texts in scenes.TEXTS]
    return tuple(repr([item["embedding"] for item in answer.data]) for answer in answers)


async def _play_router(app: _App) -> list[Transcript]:
    router = app.router()

    async def ask() -> Transcript:
        answer = await router([*app.opening(), _of_user(scenes.ROUTER_QUESTION)])
        return (str(answer.choices[0].message.content),)

    return await at_once(ask() for _ in range(scenes.CALLERS))


async def _play_burst(app: _App) -> list[Transcript]:
    async def ask() -> Transcript:
        answer = await app.ask(scenes.BURST_QUESTION)
        return (str(answer.choices[0].message.content),)

    return await at_once(ask() for _ in range(scenes.CALLERS))


async def _play_streams(app: _App) -> list[Transcript]:
    # At once first: later they would all be hits.
    together = await at_once(_read(app) for _ in range(scenes.STREAMS))
    return [*together, *[await _read(app) for _ in range(scenes.REPLAYS)]]


async def _read(app: _App) -> Transcript:
    chunks = await app.ask(scenes.STREAM_QUESTION, stream=True)
    return ("".join([chunk.choices[0].delta.content or "" async for chunk in chunks if chunk.choices]),)


def _of_user(said: str) -> dict[str, str]:
    return {"role": "user", "content": said}
