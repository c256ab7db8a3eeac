"""Hears of calls that have failed where nothing else tells: of completion models, and of synchronous calls.

LangChain tells a cache of answers only, and their tasks and threads live on. An asynchronous call of a chat
model has a task of its own: whoever was sent to make it sees that task end, and needs no handler here.
"""

from __future__ import annotations

from inspect import currentframe
from typing import TYPE_CHECKING, Any, Final, cast

from langchain_core.callbacks import AsyncCallbackHandler
from langchain_core.tracers.context import register_configure_hook

from llmcache_plugins.adapters.under_way import abandon, is_under_way
from llmcache_plugins.loops import running_loop

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import ContextVar

__all__ = ["listen"]

_BETWEEN: Final = frozenset(("langchain_core.callbacks.manager", "langchain_core.runnables.config"))
_CHAT_MODELS: Final = "langchain_core.language_models.chat_models"
_RUNNABLES: Final = "langchain_core.runnables."


def listen() -> None:
    """Ask LangChain to tell of failures, from now on and in the whole process. Once is enough."""
    register_configure_hook(cast("ContextVar[_Failures | None]", _asked), inheritable=False)


class _Unheard:
    """An event that is of no interest while one waits for a failure.

    LangChain makes an event loop for what an asynchronous handler has to do in a thread, at each token, and
    waits for a thread of the executor for what a synchronous one has to do on a loop.
    """

    def __get__(self, _handler: object, _kind: type) -> Callable[..., Any]:
        return _ignore if running_loop() is None else _aignore


def _ignore(*_arguments: Any, **_keywords: Any) -> None:
    pass


async def _aignore(*_arguments: Any, **_keywords: Any) -> None:
    pass


class _Failures(AsyncCallbackHandler):
    """Sees the failed calls of completion models and of synchronous ones, whose tasks and threads live on.

    Hears nothing unless this context was sent to call: LangChain asks each handler of each event, tokens
    included, what it ignores, in a task for each. So there is one; LangChain runs an asynchronous one in
    threads as well, a synchronous one would wait for a thread of the loop's executor. Not run inline: then
    langchain-core 1.8 keeps `on_llm_start` from all others.
    """

    ignore_agent = ignore_chain = ignore_chat_model = ignore_custom_event = True
    ignore_retriever = ignore_retry = True
    on_llm_start = on_llm_new_token = on_llm_end = on_stream_event = _Unheard()

    @property
    def ignore_llm(self) -> bool:
        return not is_under_way()

    async def on_llm_error(self, error: BaseException, **_kwargs: Any) -> None:
        abandon(error)


_failures = _Failures()


class _Asked:
    """What LangChain asks, as a context variable, whom to tell of the call that begins.

    It makes tasks for every handler of a call, three for one that is a hit: a quarter of all that the hit
    takes. So where it is known that nothing would be heard, there is none; within a call that others wait
    for there always is one: who makes it may hand it on to another model.
    """

    def get(self) -> _Failures | None:
        """Return the handler, unless it is a chat model's asynchronous call, or no call of a model."""
        frame = currentframe()
        frame = frame and frame.f_back
        while frame is not None and (module := frame.f_globals.get("__name__", "")) in _BETWEEN:
            frame = frame.f_back
        if frame is None or is_under_way():
            return _failures
        if module == _CHAT_MODELS and frame.f_code.co_name[0] == "a":
            return None
        return None if module.startswith(_RUNNABLES) else _failures


_asked = _Asked()
