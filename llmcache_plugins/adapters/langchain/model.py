"""`cached(model, cache)`: a chat model of the same type, all of whose calls go through a cache.

LangChain never asks a cache for a stream. So the model itself is changed, below all that LangChain builds on
one: a copy of the instance gets a class of its own, derived from the model's, whose `_generate`, `_stream`,
`_agenerate` and `_astream` ask the cache. What is built on it (bound tools, structured output, agents,
callbacks, events) sees a model of the type it knows.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, cast

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables.config import ensure_config

from llmcache_plugins.adapters.langchain.cache import LangChainCache
from llmcache_plugins.adapters.langchain.calls import SAID, ModelCall, ModelCalls, checked, said_in
from llmcache_plugins.adapters.langchain.pickling import Recipe, recipe_of
from llmcache_plugins.cache import CallOptions, ResponseCache
from llmcache_plugins.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from langchain_core.outputs import ChatGenerationChunk, ChatResult

__all__ = ["asking", "cached", "cached_part"]

M = TypeVar("M", bound=BaseChatModel)

_CALLS = "__llmcache_calls__"
_HIDDEN = {"cache": False, "rate_limiter": None}
"""What LangChain sees of a cached model's fields: it must neither ask a cache nor wait before each call."""
_SHARED_SLOTS = ("__dict__", "__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__")


def cached(
    model: M,
    cache: ResponseCache | LangChainCache,
    *,
    zero_usage: bool | None = None,
    **options: Unpack[CallOptions],
) -> M:
    """Return a copy of a chat model whose `invoke`, `stream`, `batch` and their twins use a cache.

        model = cached(ChatOpenAI(model="gpt-4o-mini"), cache)

    Identical calls cost one provider call, streamed or not: later ones hit, concurrent ones get its answer,
    and its chunks as they come. The copy is of the same type; bind tools, schemas, retries and fallbacks to
    it. LangChain's own cache is not asked any more. `options` are those of `CallOptions`, for every call; one
    call has its own by `config={"metadata": {"llmcache": {"ttl": 60}}}`, also of a chain around the model;
    `zero_usage` is by default that of a `LangChainCache`, else off.

    A model's rate limiter is charged only by calls of the provider. Pickled, it takes along where the cache
    is, without credentials: see the documentation. Raises `ConfigError` for what is not a chat model
    and for options that cannot work.
    """
    if not isinstance(model, BaseChatModel):
        raise ConfigError(
            f"cached() takes a chat model, not a {type(model).__name__}; cache the model first, then bind"
        )
    if isinstance(cache, ResponseCache):
        host = _host_of(cache)
    elif isinstance(cache, LangChainCache):
        host = cache
    else:
        raise ConfigError(f"cache must be a LangChainCache or a ResponseCache, not a {type(cache).__name__}")
    zeroes = host.zero_usage if zero_usage is None else zero_usage
    calls = getattr(type(model), _CALLS, None)
    kind = type(model) if calls is None else calls.kind
    settings = tuple(sorted(checked(options, host).items()))
    copy = model.model_copy()
    # Not by setattr: for pydantic that is a field.
    object.__setattr__(copy, "__class__", _class_of(kind, host, zeroes, settings))
    return copy


def asking(model: M, host: LangChainCache) -> M:
    """Return this very model, with the state it has, as one whose calls use a cache; `cached` returns a copy.

    For whoever stands between an application and its model, and must not be noticed by either.
    """
    return cast("M", _plain(model, _class_of(type(model), host, host.zero_usage, ())))


@lru_cache(maxsize=64)
def _host_of(cache: ResponseCache) -> LangChainCache:
    return LangChainCache(cache)


@lru_cache(maxsize=256)
def _class_of(
    kind: type[M], host: LangChainCache, zero_usage: bool, options: tuple[tuple[str, Any], ...]
) -> type[M]:
    """Return a class of the same name whose calls use the cache.

    The cache belongs to the class and not to the instance: LangChain makes new instances of it, for
    configurable fields for one.
    """
    calls = ModelCalls(host, kind=kind, zero_usage=zero_usage, options=cast("CallOptions", dict(options)))
    methods = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    metaclass: Any = type(kind)
    made: type[M] = metaclass(kind.__name__, (kind,), {**methods, **_methods_of(calls)})
    # Once pydantic has made the class: for it these are fields, whose values stay what they were.
    for name, value in _HIDDEN.items():
        setattr(made, name, property(partial(_constant, value), partial(_write_down, name)))
    setattr(made, _CALLS, calls)
    return made


def _methods_of(calls: ModelCalls) -> dict[str, Any]:
    """Return the methods that ask the cache. A model that cannot stream still cannot: LangChain looks."""

    def call_of(self: Any, messages: Any, stop: Any, run_manager: Any, arguments: Any) -> ModelCall:
        return ModelCall(_plain(self, calls.kind), messages, stop, run_manager, arguments)

    def generate(
        self: Any, messages: Any, stop: Any = None, run_manager: Any = None, **arguments: Any
    ) -> ChatResult:
        return calls.generate(call_of(self, messages, stop, run_manager, arguments))

    async def agenerate(
        self: Any, messages: Any, stop: Any = None, run_manager: Any = None, **arguments: Any
    ) -> ChatResult:
        return await calls.agenerate(call_of(self, messages, stop, run_manager, arguments))

    def stream(
        self: Any, messages: Any, stop: Any = None, run_manager: Any = None, **arguments: Any
    ) -> Iterator[ChatGenerationChunk]:
        return calls.stream(call_of(self, messages, stop, run_manager, arguments))

    def astream(
        self: Any, messages: Any, stop: Any = None, run_manager: Any = None, **arguments: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        return calls.astream(call_of(self, messages, stop, run_manager, arguments))

    def whole(self: Any, messages: Any, stop: Any = None, run_manager: Any = None, **arguments: Any) -> Any:
        told = _told(arguments, run_manager)
        return calls.kind._generate_with_cache(self, messages, stop=stop, run_manager=run_manager, **told)

    def awhole(self: Any, messages: Any, stop: Any = None, run_manager: Any = None, **arguments: Any) -> Any:
        told = _told(arguments, run_manager)
        return calls.kind._agenerate_with_cache(self, messages, stop=stop, run_manager=run_manager, **told)

    def in_chunks(self: Any, asked: Any, config: Any = None, **arguments: Any) -> Iterator[Any]:
        return calls.kind.stream(self, asked, config, **_told(arguments, ensure_config(config)))

    def ain_chunks(self: Any, asked: Any, config: Any = None, **arguments: Any) -> AsyncIterator[Any]:
        return calls.kind.astream(self, asked, config, **_told(arguments, ensure_config(config)))

    def reduce(self: Any) -> tuple[Any, ...]:
        recipe = recipe_of(calls.host, zero_usage=calls.zero_usage, options=calls.options)
        return _restored, (_plain(self, calls.kind), recipe)

    streams = calls.kind._stream is not BaseChatModel._stream
    astreams = streams or calls.kind._astream is not BaseChatModel._astream
    return {
        "_generate": generate,
        "_agenerate": agenerate,
        # LangChain tells a stream nothing of the call's configuration, whether it is asked for or chosen.
        "_generate_with_cache": whole,
        "_agenerate_with_cache": awhole,
        "stream": in_chunks,
        "astream": ain_chunks,
        **({"_stream": stream} if streams else {}),
        **({"_astream": astream} if astreams else {}),
        "__reduce__": reduce,
    }


def cached_part(model: BaseChatModel) -> tuple[BaseChatModel, ModelCalls] | None:
    """Return the model without its cache, and how its calls are cached; None for one that is not."""
    calls: ModelCalls | None = getattr(type(model), _CALLS, None)
    return None if calls is None else (_plain(model, calls.kind), calls)


def _told(arguments: dict[str, Any], holder: Any) -> dict[str, Any]:
    """Return a call's arguments, and with them what its configuration says of the cache."""
    said = said_in(holder)
    return arguments if said is None or SAID in arguments else {**arguments, SAID: said}


def _plain(model: BaseChatModel, kind: type[BaseChatModel]) -> BaseChatModel:
    """Return the same model without the cache: another object with the very same state.

    What the model writes down in a call, a client made when it is first needed for one, is kept.
    """
    plain = object.__new__(kind)
    for slot in _SHARED_SLOTS:
        object.__setattr__(plain, slot, getattr(model, slot))
    return plain


def _constant(value: object, _model: BaseChatModel) -> object:
    return value


def _write_down(name: str, model: BaseChatModel, value: object) -> None:
    model.__dict__[name] = value


def _restored(model: BaseChatModel, recipe: Recipe) -> BaseChatModel:
    """Return what a pickle of a cached model is: the plain model, where the cache is out of reach."""
    host = recipe.host()
    return model if host is None else cached(model, host, zero_usage=recipe.zero_usage, **recipe.options)
