"""The vectors of questions: beside their answers on the server, for mirrors in processes and searches there.

A vector is a field of the hash `vec:<digest>`, which lies in the slot of its entry, is attached only to the
entry it was made for, and goes with it. Several embedders' vectors lie side by side, each in a field of its
own. `vectors` says when each was attached, so that a mirror reads only what is new. Losing any of these keys
costs hits, never a wrong answer: whoever finds a digest here reads the entry and judges it.

Owns what the scripts and searches of vectors mean. Speaks bytes: what a vector means, and whether two are
near enough, it must not know.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from llmcache_plugins.errors import ConfigError
from llmcache_plugins.keys import require_digest
from llmcache_plugins.loops import PerLoop
from llmcache_plugins.models import VectorPage, VectorRow
from llmcache_plugins.repository.search import REFUSED, Search, field_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llmcache_plugins.budget import Budget
    from llmcache_plugins.keys import CacheKey, KeyLayout
    from llmcache_plugins.models import VectorMatch
    from llmcache_plugins.repository.link import Link, ScriptCall
    from llmcache_plugins.repository.scripts import Argument

__all__ = ["Vectors"]

_log = logging.getLogger("llmcache_plugins")

_LEAST_PAGE = 8
"""Vectors a bucket gives at a time, in a Cluster whose pages are shared among its 64."""


class Vectors:
    """The vectors of one repository. Calls raise what those of the repository do.

    `embedder` is an `embedder_id`. A caller that is cancelled, or past its budget, takes nothing back.
    """

    def __init__(self, *, links: PerLoop[Link], layout: Callable[[str, Link], KeyLayout]) -> None:
        self._links = links
        self._layout = layout
        self._unable: str | None = None
        self._said: set[str] = set()
        self._making: PerLoop[dict[tuple[str, str, int, str], asyncio.Task[bool]]] = PerLoop(dict)

    # -- beside an entry -------------------------------------------------------------------------------

    async def attach(
        self,
        key: CacheKey,
        *,
        fence: str,
        embedder: str,
        scope: str,
        text: str,
        canonical: str,
        vector: bytes,
        budget: Budget | None = None,
    ) -> float | None:
        """Lay a vector beside the entry of this key and fence; return how many seconds both live.

        None: the entry is gone or was replaced, and nothing was written. `scope` and `canonical` are digests
        (of what must be equal, and of the canonical text). Safe to repeat.
        """
        link = self._links.current()
        names = self._layout(key.namespace, link).request(key.digest)
        arguments: dict[str, Argument] = {
            "fence": fence,
            "root": names.root,
            "digest": key.digest,
            "scope": require_digest("scope", scope),
            "text": _encoded(text),
            "canonical": require_digest("canonical", canonical),
            "field": field_of(embedder),
            "data": vector,
        }
        left = await link.owned(link.run("attach", names, arguments), budget)
        return left / 1000 if left else None

    async def detach(self, key: CacheKey, *, budget: Budget | None = None) -> bool:
        """Take the vectors of a key away if its entry is gone; return whether it is."""
        link = self._links.current()
        names = self._layout(key.namespace, link).request(key.digest)
        arguments: dict[str, Argument] = {"root": names.root, "digest": key.digest}
        return bool(await link.owned(link.run("detach", names, arguments), budget))

    # -- for mirrors -----------------------------------------------------------------------------------

    async def changes(
        self,
        namespace: str,
        *,
        embedder: str,
        since: tuple[int, ...] = (),
        most: int = 512,
        budget: Budget | None = None,
    ) -> VectorPage:
        """Return vectors that were attached since a page that was read before; all of them without one.

        About `most` at a time, in one round trip to each node, beside the connection of lookups. What was
        detached meanwhile is not said: see `alive`.
        """
        link = self._links.current()
        layout = self._layout(namespace, link)
        begin = since or (0,) * layout.buckets
        share = max(_LEAST_PAGE, most // layout.buckets)

        def call(number: int) -> ScriptCall:
            names = layout.bucket(number)
            return (
                names,
                {
                    "root": names.root,
                    "field": field_of(embedder),
                    "after": f"{begin[number]:016d}",
                    "most": share,
                },
                (),
            )

        calls = [call(number) for number in range(layout.buckets)]
        pages = await link.owned(link.run_apart("changes", calls), budget)
        rows = [_row(row) for _, _, rows, _ in pages for row in rows]
        return VectorPage(
            rows=tuple(row for row in rows if row is not None),
            since=tuple(int(after) for after, *_ in pages),
            is_last=not any(more for _, more, *_ in pages),
            mentioned=sum(mentioned for *_, mentioned in pages),
        )

    async def alive(
        self, namespace: str, digests: Sequence[str], *, budget: Budget | None = None
    ) -> list[float]:
        """Return for each digest how many seconds its vectors live on; 0 for those that are gone.

        What has outlived its answer is taken away.
        """
        link = self._links.current()
        layout = self._layout(namespace, link)
        by_bucket: dict[int, list[int]] = defaultdict(list)
        for place, digest in enumerate(digests):
            by_bucket[layout.bucket_of(digest)].append(place)

        def call(number: int) -> ScriptCall:
            names = layout.bucket(number)
            return names, {"root": names.root}, [digests[place] for place in by_bucket[number]]

        replies = await link.owned(link.run_apart("alive", list(map(call, by_bucket))), budget)
        left = [0.0] * len(digests)
        for places, reply in zip(by_bucket.values(), replies, strict=True):
            for place, milliseconds in zip(places, reply, strict=True):
                left[place] = milliseconds / 1000
        return left

    # -- searched by the server ------------------------------------------------------------------------

    async def unable_to_search(self, *, budget: Budget | None = None) -> str:
        """Return why this server cannot search vectors by itself, in a few words; nothing if it can.

        Asked once: what a server can do does not change while it is used.
        """
        if self._unable is not None:
            return self._unable
        link = self._links.current()
        unable = await link.owned(self._search(link, None).unable(), budget)
        if unable != REFUSED:
            self._unable = unable
        return unable

    async def ensure_index(
        self,
        namespace: str,
        *,
        embedder: str,
        dim: int,
        algorithm: str,
        budget: Budget | None = None,
    ) -> bool:
        """See to it that the server has the index; return whether it had to be made.

        Safe in many processes at once. An index of another schema is made anew; the vectors stay, and until
        the server has read them again a search finds fewer of them.
        """
        link, making = self._links.current(), self._making.current()
        wanted = (namespace, embedder, dim, algorithm)
        task = making.get(wanted)
        if task is None or task.done():
            # All that begin at once ask once.
            ensuring = self._search(link, namespace).ensure(embedder, dim=dim, algorithm=algorithm)
            task = making[wanted] = link.spawn(ensuring)
            task.add_done_callback(lambda _: making.pop(wanted, None))
        return await (budget.wait_for(task) if budget else asyncio.shield(task))

    async def drop_index(self, namespace: str, *, embedder: str, budget: Budget | None = None) -> None:
        """Have the server forget an index, if it has it. The vectors stay."""
        link = self._links.current()
        await link.owned(self._search(link, namespace).drop(embedder), budget)

    async def search(
        self,
        namespace: str,
        *,
        embedder: str,
        scope: str,
        vector: bytes,
        k: int,
        budget: Budget | None = None,
    ) -> list[VectorMatch] | None:
        """Return the `k` vectors of a scope nearest to this one, the nearest first; None = no index."""
        link = self._links.current()
        searching = self._search(link, namespace).nearest(embedder, scope, vector, k=k)
        return await link.owned(searching, budget)

    async def search_canonical(
        self, namespace: str, *, embedder: str, scope: str, canonical: str, budget: Budget | None = None
    ) -> list[VectorMatch] | None:
        """Return questions of a scope with this canonical text; None = there is no index."""
        link = self._links.current()
        searching = self._search(link, namespace).with_canonical(embedder, scope, canonical)
        return await link.owned(searching, budget)

    async def count_indexed(
        self, namespace: str, *, embedder: str, budget: Budget | None = None
    ) -> int | None:
        """Return how many vectors the server's index holds; None = there is no index."""
        link = self._links.current()
        return await link.owned(self._search(link, namespace).count(embedder), budget)

    # -- saying so -------------------------------------------------------------------------------------

    def announce(self, text: str) -> None:
        """Log what is used and why, each thing once."""
        if text not in self._said:
            self._said.add(text)
            _log.info("%s", text)

    def _search(self, link: Link, namespace: str | None) -> Search:
        return Search(link, self._layout("probe" if namespace is None else namespace, link))


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _row(row: Sequence[Any]) -> VectorRow | None:
    """Return a row as it was attached, or None for what somebody else has written there."""
    digest, milliseconds, scope, canonical, text, vector = row
    try:
        return VectorRow(
            digest=require_digest("digest", digest.decode()),
            scope=require_digest("scope", scope.decode()),
            canonical=require_digest("canonical", canonical.decode()),
            text=text.decode("utf-8", "surrogatepass"),
            vector=vector,
            seconds=milliseconds / 1000,
        )
    except (UnicodeDecodeError, ConfigError):
        return None
