"""A sample of requests, each taken apart into its texts and everything else.

Two requests have one key if and only if their frames and their normalized texts are equal: so the effect of a
rule is found by comparing texts, without a digest for each. Keeps every distinct text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from llmcache_plugins.errors import SignatureError
from llmcache_plugins.normalize import has_reserved
from llmcache_plugins.signature import CacheSignatureEngine

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["Asked", "Sample", "Texts"]

Texts = tuple[str, ...]


class Asked(NamedTuple):
    """One distinct request."""

    frame: bytes
    """The digest of all that is no text."""
    paths: Texts
    texts: Texts
    is_open: bool
    """Whether normalizers may change it."""


class Sample:
    """Counts requests, and keeps the distinct ones in the order in which they first came."""

    def __init__(self, requests: Iterable[Mapping[str, Any] | str]) -> None:
        self.count = 0
        self.unreadable = 0
        self.asked: list[Asked] = []
        self._engine = CacheSignatureEngine()
        self._seen: set[tuple[bytes, Texts]] = set()
        self._paths: dict[Texts, Texts] = {}
        for request in requests:
            self._add(request)
        del self._seen

    def hits_with(self, texts: Iterable[Texts]) -> int:
        """Return how many requests would hit if the distinct ones had these texts."""
        pairs = zip(self.asked, texts, strict=True)
        return self.count - len({(asked.frame, asked.is_open, said) for asked, said in pairs})

    def _add(self, request: Mapping[str, Any] | str) -> None:
        try:
            frame, parts = self._engine.taken_apart(request)
        except SignatureError:
            self.unreadable += 1
            return
        self.count += 1
        texts = tuple(parts.values())
        if (frame, texts) in self._seen:
            return
        self._seen.add((frame, texts))
        paths = tuple(parts)
        self.asked.append(
            Asked(
                frame=frame,
                paths=self._paths.setdefault(paths, paths),
                texts=texts,
                is_open=not any(map(has_reserved, texts)),
            )
        )
