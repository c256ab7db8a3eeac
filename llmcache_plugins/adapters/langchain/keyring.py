"""The keys of the calls that LangChain asks for, those of the last few thousand at hand.

What hits has been asked before: then a digest of the two strings stands for the reading of them.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import TYPE_CHECKING

from llmcache_plugins.adapters.langchain.keys import bypass_reason, request_of
from llmcache_plugins.adapters.langchain.shown import shown
from llmcache_plugins.adapters.langchain.values import GenerationsCodec
from llmcache_plugins.errors import SignatureError

if TYPE_CHECKING:
    from llmcache_plugins.cache import ResponseCache
    from llmcache_plugins.keys import CacheKey

__all__ = ["KeyRing"]

_CODEC = GenerationsCodec()
_MOST = 4096
"""1.3 megabytes, by tracemalloc."""


class KeyRing:
    """Gives the key for `prompt` and `llm_string`, or the reason why there is none. Keeps neither string.

    Usable from any thread.
    """

    def __init__(self, cache: ResponseCache) -> None:
        self._cache = cache
        self._known: OrderedDict[bytes, CacheKey | str] = OrderedDict()

    def __call__(self, prompt: str, llm_string: str) -> CacheKey | str:
        """Return the key, or the reason."""
        # A length first: no two pairs have one text.
        text = f"{len(prompt)}:{prompt}{llm_string}".encode("utf-8", "surrogatepass")
        digest = hashlib.sha256(text).digest()
        known = self._known.get(digest)
        if known is not None:
            return known
        key: CacheKey | str
        try:
            key = bypass_reason(llm_string) or self._key_of(request_of(prompt, llm_string))
        except SignatureError as error:
            key = f"was asked what {error.reason}"
        self._known[digest] = key
        if len(self._known) > _MOST:
            self._known.popitem(last=False)
        return key

    def _key_of(self, request: dict[str, object]) -> CacheKey:
        return self._cache.key_of(request, codec=_CODEC, model=shown(request).get("model"))
