"""A session: from its beginning to its end all caches of the process are on its decks.

Owns what is arranged and taken back, and when: a framework once it has been imported, as it takes seconds to
import and most sessions need none or one.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from threading import RLock
from typing import TYPE_CHECKING, Any

from llmcache_plugins.cache.standing_in import take_the_place
from llmcache_plugins.testing.recording.deck import Decks, Way
from llmcache_plugins.testing.recording.imports import AfterImport
from llmcache_plugins.testing.recording.patching import replaced
from llmcache_plugins.testing.recording.stand_in import TapeDeck

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Recording"]

_ADAPTERS = "llmcache_plugins.adapters."
_MODELS = "langchain_core.language_models."
_ASKED = {
    f"{_MODELS}chat_models": (
        "BaseChatModel",
        ("_generate_with_cache", "_agenerate_with_cache", "stream", "astream"),
        ("_chat_model_stream_v3", "_achat_model_stream_v3"),
    ),
    f"{_MODELS}llms": ("BaseLLM", ("generate", "agenerate", "stream", "astream"), ()),
}
"""Of LangChain: what a call comes by, whichever model it is of; then what only some versions have."""


class Recording:
    """One session, from `begin` to `end`; it may begin again. `decks` are its own."""

    def __init__(self, way: Way, *, rewrites: bool = False) -> None:
        self.decks = Decks(way, rewrites=rewrites)
        self._lock = RLock()
        self._ending = ExitStack()
        self._arranged: set[str] = set()

    def begin(self) -> None:
        """Take the place of all servers, and arrange the frameworks, now or when they are imported."""
        self._waiting = self._ending.enter_context(ExitStack())
        take_the_place(TapeDeck(self.decks))
        self._ending.callback(take_the_place, None)
        watched = ["litellm", f"{_ADAPTERS}litellm", f"{_ADAPTERS}langchain", *_ASKED]
        self._imports = AfterImport(watched, self._imported)
        self._ending.callback(self._imports.close)
        self.arrange()

    def arrange(self) -> None:
        """Arrange the frameworks that are there by now."""
        with self._lock:
            if self._is_ready("litellm", "litellm"):
                self._once("litellm", _litellm)
            if self._is_ready("langchain", *_ASKED):
                # From here on the real thing is in the place of what has waited for it.
                self._waiting.close()
                self._once("langchain", _langchain)

    def end(self) -> None:
        """Take all back."""
        self._ending.close()
        self._arranged.clear()

    def _once(self, framework: str, arrange: Callable[[bool], ExitStack]) -> None:
        if framework not in self._arranged:
            self._arranged.add(framework)
            self._ending.enter_context(arrange(self.decks.way is Way.STRICT))

    def _is_ready(self, adapter: str, *modules: str) -> bool:
        """Say whether a framework and our adapter for it can be used: neither is just being imported."""
        ours = _ADAPTERS + adapter
        begun = (*modules, ours) if ours in sys.modules else modules
        return all(map(self._imports.is_done, begun))

    def _imported(self, name: str) -> None:
        if name in _ASKED:
            # LangChain is still importing itself: at the first call it will not be.
            self._wait_for_a_call(name)
        else:
            self.arrange()

    def _wait_for_a_call(self, name: str) -> None:
        kind_name, methods, newer = _ASKED[name]
        kind = getattr(sys.modules[name], kind_name)
        for method in (*methods, *filter(kind.__dict__.__contains__, newer)):
            self._waiting.enter_context(replaced(kind, method, self._arranging(kind, method)))

    def _arranging(self, kind: type, name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            # A model of either kind is there, so the other's module can be had as well.
            for module in _ASKED:
                __import__(module)
            self.arrange()
            return getattr(kind, name)(*arguments, **named)

        return call


def _litellm(is_strict: bool) -> ExitStack:
    from llmcache_plugins.testing.recording.litellm import arranged

    return arranged(is_strict=is_strict)


def _langchain(is_strict: bool) -> ExitStack:
    from llmcache_plugins.testing.recording.langchain import arranged

    return arranged(is_strict=is_strict)
