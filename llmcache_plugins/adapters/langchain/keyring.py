"""The keys of the calls that LangChain asks for, those of the last few thousand at hand.

What hits has been asked before: then a digest of the two strings stands for the reading of them.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmcache_plugins.adapters.langchain.keys import bypass_reason, request_of
from llmcache_plugins.adapters.langchain.shown import shown
from llmcache_plugins.adapters.langchain.values import GenerationsCodec
from llmcache_plugins.errors import SignatureError
from llmcache_plugins.keys import CacheKey
from llmcache_plugins.signature import Unsigned

if TYPE_CHECKING:
    from llmcache_plugins.cache import ResponseCache

__all__ = ["KeyRing", "LateKey"]

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

    def __call__(self, prompt: str, llm_string: str) -> CacheKey | str | LateKey:
        """Return the key, or the reason; or what is still to be waited for."""
        digest = _digest_of(prompt, llm_string)
        known = self._known.get(digest)
        if known is not None:
            return known
        try:
            key = bypass_reason(llm_string) or self._read(request_of(prompt, llm_string))
        except SignatureError as error:
            key = _reason_of(error)
        if isinstance(key, Unsigned):
            return LateKey(self, digest, key)
        return self.note(digest, key)

    def known(self, prompt: str, llm_string: str) -> CacheKey | None:
        """Return the key, if it is at hand."""
        known = self._known.get(_digest_of(prompt, llm_string))
        return known if isinstance(known, CacheKey) else None

    def _read(self, request: dict[str, object]) -> CacheKey | Unsigned:
        body = shown(request)
        return self._cache.read_key(request, codec=_CODEC, model=body.get("model"), request=lambda: body)

    def note(self, digest: bytes, key: CacheKey | str) -> CacheKey | str:
        """Keep a key, or a reason, and return it."""
        self._known[digest] = key
        if len(self._known) > _MOST:
            self._known.popitem(last=False)
        return key


@dataclass(frozen=True, slots=True)
class LateKey:
    """A key that would hold up the loop."""

    _ring: KeyRing
    _digest: bytes
    _unsigned: Unsigned

    async def made(self) -> CacheKey | str:
        """Return the key, or the reason why there is none."""
        key: CacheKey | str
        try:
            key = await asyncio.to_thread(self._unsigned.sign)
        except SignatureError as error:
            key = _reason_of(error)
        return self._ring.note(self._digest, key)


def _digest_of(prompt: str, llm_string: str) -> bytes:
    # A length first: no two pairs have one text.
    text = f"{len(prompt)}:{prompt}{llm_string}".encode("utf-8", "surrogatepass")
    return hashlib.sha256(text).digest()


def _reason_of(error: SignatureError) -> str:
    return f"was asked what {error.reason}"
