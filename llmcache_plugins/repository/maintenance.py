"""What concerns a whole namespace: sweeping, evicting, measuring.

Works on one link and one key layout at a time; every step is one script on one bucket.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING

from llmcache_plugins.repository.reading import NAMESPACE_SUBJECT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmcache_plugins.keys import BucketKeys, KeyLayout
    from llmcache_plugins.repository.link import Link
    from llmcache_plugins.repository.scripts import Argument

__all__ = ["evict_to", "latest", "measure", "sweep"]

_SWEEP_AT_ONCE = 200


async def sweep(link: Link, layout: KeyLayout) -> int:
    """Unlink, page by page, what the invalidation of a namespace has voided; return how many entries went.

    Entries, vectors, chunks of streams, leases and what failed flights have left, and then what the books
    still say of entries that are gone. All that is void was there when the invalidation was acknowledged, so
    no page can miss it.
    """
    removed, matcher = 0, layout.matcher()
    async for page in link.scan(layout.pattern()):
        by_bucket: dict[int, list[str]] = defaultdict(list)
        for match in filter(None, map(matcher.fullmatch, page)):
            by_bucket[int(match["bucket"])].append(match["name"])
        for number, names in by_bucket.items():
            removed += await _sweep_bucket(link, layout.bucket(number), names)
    await _heal_all(link, layout, insist=True)
    return removed


async def _sweep_bucket(link: Link, keys: BucketKeys, names: Sequence[str]) -> int:
    arguments = {"root": keys.root, "subject": NAMESPACE_SUBJECT}
    return sum(
        [
            int(await link.run("sweep", keys, arguments, names[i : i + _SWEEP_AT_ONCE], insist=True))
            for i in range(0, len(names), _SWEEP_AT_ONCE)
        ]
    )


async def measure(link: Link, layout: KeyLayout) -> list[tuple[int, int]]:
    """Return entries and bytes of each bucket, upper bounds."""
    names = [layout.bucket(number) for number in range(layout.buckets)]
    return [tuple(r) for r in await asyncio.gather(*(link.run("measure", n, {}) for n in names))]


async def latest(link: Link, layout: KeyLayout, most: int) -> list[tuple[str, int]]:
    """Return digest and length in bytes of the entries used last, the latest first."""
    names = [layout.bucket(number) for number in range(layout.buckets)]
    pages = await asyncio.gather(*(link.run("latest", bucket, {"most": most}) for bucket in names))
    rows = [
        (float(time), member) for page in pages for member, time in zip(page[::2], page[1::2], strict=True)
    ]
    parts = (member.decode().partition(":") for _, member in sorted(rows, reverse=True)[:most])
    return [(digest, int(length)) for digest, _, length in parts]


async def evict_to(link: Link, layout: KeyLayout, most: int) -> int:
    """Take what is gone off the books, then the least recently used beyond `most`; return how many."""
    names = [layout.bucket(number) for number in range(layout.buckets)]
    await _heal_all(link, layout)
    counts = [entries for entries, _ in await measure(link, layout)]
    quotas = zip(names, shares(counts, most), strict=True)
    return sum(await asyncio.gather(*(_evict(link, bucket, keep) for bucket, keep in quotas)))


def shares(counts: Sequence[int], most: int) -> list[int]:
    """Split a bound over buckets in proportion to what they hold."""
    total = sum(counts)
    if total <= most:
        return list(counts)
    quotas = [most * count // total for count in counts]
    for i in sorted(range(len(counts)), key=lambda i: -counts[i])[: most - sum(quotas)]:
        quotas[i] += 1
    return quotas


async def _heal_all(link: Link, layout: KeyLayout, *, insist: bool = False) -> None:
    numbers = range(layout.buckets)
    await asyncio.gather(*(_heal(link, layout.bucket(number), insist=insist) for number in numbers))


async def _heal(link: Link, names: BucketKeys, *, insist: bool) -> None:
    for script in ("heal", "prune"):
        cursor = b""
        while cursor != b"0":
            arguments: dict[str, Argument] = {"root": names.root, "cursor": cursor or b"0"}
            cursor = await link.run(script, names, arguments, insist=insist)


async def _evict(link: Link, names: BucketKeys, keep: int) -> int:
    evicted = 0
    while True:
        gone: int
        left: int
        gone, left = await link.run("evict", names, {"root": names.root, "keep": keep})
        evicted += gone
        if left <= keep:
            return evicted
