"""What there is: namespaces on a server, entries of one, and what lies beside an entry.

For people who look: nothing here is a use of an entry, and all of it may take its time. Owns the order and
the bounds of what is listed; what is shown of it is the caller's affair.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from llmcache_plugins.errors import ConfigError
from llmcache_plugins.keys import (
    BucketKeys,
    CacheKey,
    books_matcher,
    books_pattern,
    decode_name,
    require_digest,
)
from llmcache_plugins.repository import maintenance
from llmcache_plugins.repository.reading import NAMESPACE_SUBJECT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence

    from llmcache_plugins.keys import KeyLayout
    from llmcache_plugins.loops import PerLoop
    from llmcache_plugins.models import Found
    from llmcache_plugins.repository.link import Link

__all__ = ["Beside", "Books", "Listed", "Listing", "Namespaces"]

MOST_NAMESPACES = 100_000
"""Namespaces that are told apart at once, so that memory stays bounded: about 30 MB."""
LEAST_DIGITS = 8
"""Of a digest: four say in which bucket it is, the others leave few to choose among."""
_MOST_MEASURED = 256
_PAGE_ENTRIES = 64
_PAGE_BYTES = 8 * 1024 * 1024
"""What is read of entries at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """What the books say of a namespace: upper bounds, as of `ResponseRepository.size`."""

    spelled: str
    """As it is in Redis keys."""
    entries: int
    stored_bytes: int

    @property
    def name(self) -> str | None:
        """The name; None for one too long to be in the keys."""
        return decode_name(self.spelled)


@dataclass(frozen=True, slots=True, kw_only=True)
class Namespaces:
    """The largest namespaces first; `others` are those that are not among them."""

    largest: tuple[Books, ...]
    others: int
    is_whole: bool
    """False: there are more than `MOST_NAMESPACES`, and those that were met later are not counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """What lies beside an entry, seconds and numbers. Who has the lease is nobody's business."""

    seconds: float | None
    """How long the server keeps the entry; None if there is none."""
    lease_seconds: float | None
    """How long somebody still has who fetches it anew, unless they renew it; None for nobody."""
    vectors: int
    """Of so many embedders there is a vector of the question."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A valid entry, and what lies beside it."""

    key: CacheKey
    found: Found
    beside: Beside


@dataclass(slots=True)
class _Sum:
    seen: int = 0
    """A bit for each bucket: SCAN may name a key twice."""
    entries: int = 0
    stored_bytes: int = 0


@dataclass(slots=True)
class _Tally:
    """Namespaces under way, summed up over their buckets."""

    sums: dict[str, _Sum] = field(default_factory=dict)
    is_whole: bool = True

    def is_new(self, name: str, bucket: int) -> bool:
        found = self.sums.get(name)
        if found is None:
            if len(self.sums) >= MOST_NAMESPACES:
                self.is_whole = False
                return False
            found = self.sums[name] = _Sum()
        is_new = not found.seen >> bucket & 1
        found.seen |= 1 << bucket
        return is_new


class Listing:
    """The lists of one repository. Calls raise what those of the repository do.

    `read` returns the valid entry of a key, or None, and does not count as a use.
    """

    def __init__(
        self,
        *,
        prefix: str,
        links: PerLoop[Link],
        layout: Callable[[str, Link], KeyLayout],
        read: Callable[[CacheKey], Awaitable[Found | None]],
    ) -> None:
        self._prefix = prefix
        self._links = links
        self._layout = layout
        self._read = read

    async def namespaces(self, *, most: int = 1000) -> Namespaces:
        """Return the namespaces under the prefix that have books, those with most bytes first.

        Walks over all keys of all nodes, page by page: for a person who asks, not for a loop.
        """
        link = self._links.current()
        await asyncio.shield(link.opened())
        tally, matcher = _Tally(), books_matcher(self._prefix)
        async for page in link.scan(books_pattern(self._prefix)):
            matches = filter(None, map(matcher.fullmatch, page))
            found = [(one["namespace"], int(one["bucket"]), one["root"]) for one in matches]
            # A page of SCAN may be any size.
            for first in range(0, len(found), _MOST_MEASURED):
                await self._measure(link, tally, found[first : first + _MOST_MEASURED])
        books = [
            Books(spelled=spelled, entries=one.entries, stored_bytes=one.stored_bytes)
            for spelled, one in tally.sums.items()
        ]
        books.sort(key=lambda one: (-one.stored_bytes, -one.entries, one.spelled))
        return Namespaces(largest=tuple(books[:most]), others=len(books[most:]), is_whole=tally.is_whole)

    async def _measure(self, link: Link, tally: _Tally, found: Iterable[tuple[str, int, str]]) -> None:
        buckets = link.topology.buckets
        new = [
            (name, root) for name, bucket, root in found if bucket < buckets and tally.is_new(name, bucket)
        ]
        measured = await asyncio.gather(*(link.run("measure", BucketKeys(root), {}) for _, root in new))
        for (name, _), (entries, stored_bytes) in zip(new, measured, strict=True):
            tally.sums[name].entries += entries
            tally.sums[name].stored_bytes += max(stored_bytes, 0)

    async def latest(self, namespace: str, *, most: int) -> AsyncIterator[Listed]:
        """Yield the entries of a namespace that were used last, the latest first.

        What is gone or void is passed over, so there may be fewer.
        """
        link = self._links.current()
        layout = self._layout(namespace, link)
        rows = await maintenance.latest(link, layout, most)
        for page in _pages(rows):
            keys = [CacheKey(digest=d, namespace=namespace, prefix=self._prefix) for d in page]
            for one in await asyncio.gather(*map(self.look_at, keys)):
                if isinstance(one, Listed):
                    yield one

    async def look_at(self, key: CacheKey) -> Listed | Beside:
        """Return the valid entry of a key with what lies beside it; only that if there is none."""
        # One after the other: the first takes away what is void.
        found = await self._read(key)
        beside = await self.beside(key)
        return beside if found is None else Listed(key=key, found=found, beside=beside)

    async def beside(self, key: CacheKey) -> Beside:
        """Return what lies beside the entry of a key, whether or not there is one."""
        link = self._links.current()
        names = self._layout(key.namespace, link).request(key.digest)
        about = [f"k:{key.digest}", NAMESPACE_SUBJECT]
        entry_ms, lease_ms, vectors = await link.run("beside", names, {}, about)
        return Beside(seconds=_seconds(entry_ms), lease_seconds=_seconds(lease_ms), vectors=vectors)

    async def find(self, namespace: str, digits: str, *, most: int = 10) -> list[str]:
        """Return the digests on the books of a namespace that begin with some digits, at most `most`.

        At least 8 digits, all 64 need not be looked for. Some may have expired. Raises `ConfigError` for
        what is no beginning of a digest.
        """
        if len(digits) < LEAST_DIGITS or len(digits) > 64:
            raise ConfigError(f"a key is 64 hexadecimal digits, or at least the first {LEAST_DIGITS} of them")
        require_digest("key", digits.ljust(64, "0"))
        if len(digits) == 64:
            return [digits]
        link = self._links.current()
        layout = self._layout(namespace, link)
        bucket = layout.bucket(layout.bucket_of(digits))
        found: set[str] = set()
        cursor = b""
        while cursor != b"0" and len(found) < most:
            cursor, members = await link.run("find", bucket, {"head": digits, "cursor": cursor or b"0"})
            found.update(member.decode("ascii", "replace").partition(":")[0] for member in members)
        return sorted(found)[:most]


def _pages(rows: Sequence[tuple[str, int]]) -> Iterable[list[str]]:
    page: list[str] = []
    size = 0
    for digest, length in rows:
        if page and (len(page) >= _PAGE_ENTRIES or size + length > _PAGE_BYTES):
            yield page
            page, size = [], 0
        page.append(digest)
        size += length
    if page:
        yield page


def _seconds(milliseconds: int) -> float | None:
    return milliseconds / 1000 if milliseconds >= 0 else None
