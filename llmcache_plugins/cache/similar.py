"""The semantic step of a flight: after an exact miss, before the lease, within a budget of its own.

Owns when the semantic layer is asked, that what it finds is read and judged like any entry, and that nothing
of it ever fails a call. What is near is the layer's affair, what is valid the repository's.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from msgspec.structs import replace

from llmcache_plugins.answers.calls import calls_a_tool
from llmcache_plugins.answers.texts import text_of
from llmcache_plugins.budget import Budget
from llmcache_plugins.errors import ConfigError, EmbeddingFailed, RepositoryError, RepositoryUnavailable
from llmcache_plugins.keys import CacheKey
from llmcache_plugins.loops import PerLoop, Tasks
from llmcache_plugins.models import Found, Outcome, SemanticMatch
from llmcache_plugins.semantic.matching import Verdict
from llmcache_plugins.semantic.question import Skip
from llmcache_plugins.telemetry import Purpose, SemanticLooked, ShadowCompared, VerifierAsked

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from llmcache_plugins.cache.accounts import Accounts
    from llmcache_plugins.cache.alike import Alike, Scoped
    from llmcache_plugins.cache.job import Job
    from llmcache_plugins.cache.opened import Opened
    from llmcache_plugins.models import EncodedAnswer, Entry, Resolution, Usage
    from llmcache_plugins.repository import ResponseRepository
    from llmcache_plugins.semantic import SemanticCacheLayer
    from llmcache_plugins.semantic.matching import Match

    Opener = Callable[[Job, Found], Opened | None]

__all__ = ["Similar"]

K = TypeVar("K")
V = TypeVar("V")

_log = logging.getLogger("llmcache_plugins")
_MOST_REMEMBERED = 4096
_MOST_COMPLAINTS = 100
_LET_GO = 1.0
"""Seconds that closing waits for verifiers to end."""
_NONE = "none"
"""Nothing near enough has passed."""
_NOT_KEPT = SemanticLooked(result="not_kept", similarity=None, seconds=0.0)


class Similar:
    """One cache's. Usable from any event loop; nothing here raises into a call."""

    def __init__(
        self,
        layer: SemanticCacheLayer,
        repository: ResponseRepository,
        accounts: Accounts,
        *,
        find: Callable[..., Awaitable[Resolution | None]],
    ) -> None:
        self._layer = layer
        self._repository = repository
        self._telemetry = repository.telemetry
        self._accounts = accounts
        self._matcher = layer.bind(repository.vectors, find=find, on_bill=self._embedded)
        self._tasks = PerLoop(Tasks)
        self._asking: PerLoop[set[asyncio.Task[Any]]] = PerLoop(set)
        """Verifiers that were asked: they may not let themselves be cancelled."""
        self._verdicts: OrderedDict[tuple[str, str, str, str], bool] = OrderedDict()
        self._refused: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._complaints: set[str] = set()

    async def open(self) -> None:
        """Load the embedder's model. Raises `ConfigError` when it cannot be loaded."""
        try:
            await self._matcher.open()
        except (EmbeddingFailed, RepositoryError) as error:
            self._complain(error)

    async def aclose(self) -> None:
        """End what is under way on the running loop."""
        if asking := self._asking.pop():
            for task in asking:
                task.cancel()
            await asyncio.wait(asking, timeout=_LET_GO)
        if (tasks := self._tasks.pop()) is not None:
            await tasks.finish(timeout=self._repository.config.commit_budget)
        await self._matcher.aclose()

    async def find(self, job: Job, opener: Opener) -> Opened | None:
        """Return the answer of an equivalent question, if it may be served. Never raises."""
        if (alike := job.asked.alike) is None:
            return None
        began = time.monotonic()
        vetoes: list[str] = []
        opened, result = await self._tried(job, alike, opener, vetoes)
        similarity = opened.match.similarity if opened is not None and opened.match is not None else None
        if opened is not None and opened.match is not None and self._layer.shadow:
            alike.shadow = (opened.match, opened.entry.answer)
            opened, result = None, "shadow"
        self._telemetry.emit(
            SemanticLooked(
                result=result,
                similarity=similarity,
                seconds=time.monotonic() - began,
                vetoes=tuple(vetoes),
            )
        )
        return opened

    async def look(self, job: Job, opener: Opener) -> Opened | None:
        """Like `find`, counting nothing, in the shadow or not. Raises what goes wrong."""
        alike = job.asked.alike
        scoped = await alike.scoped(job.key) if alike is not None else Skip.NO_QUESTION
        return None if isinstance(scoped, Skip) else await self._found(job, scoped, opener, None, [])

    async def note(self, job: Job, entry: Entry, *, fence: str = "") -> None:
        """Keep the question of an entry that was stored; its `fence`, if it is known. Never raises.

        On return it is found in this process, unless it is still to be embedded: then in a moment.
        """
        if (alike := job.asked.alike) is None:
            return
        try:
            await self._note(job, alike, entry, fence=fence)
        except Exception:  # noqa: BLE001 - an embedder's: the answer is stored, and paid for
            self._telemetry.emit(_NOT_KEPT)

    async def _note(self, job: Job, alike: Alike, entry: Entry, *, fence: str) -> None:
        scoped, tasks = await alike.scoped(job.key), self._tasks.current()
        if alike.shadow is not None:
            tasks.spawn(self._compare(*alike.shadow, entry.answer))
        if isinstance(scoped, Skip) or self._skips(scoped) or not self._matcher.can_keep(scoped.text):
            return
        adding = tasks.spawn(self._add(job, scoped, fence=fence))
        if self._matcher.knows(scoped.text):
            await asyncio.wait((adding,), timeout=self._layer.budget)

    async def report(self, match: SemanticMatch, *, ok: bool) -> None:
        """Keep what somebody says of a hit; a wrong answer is forgotten, and this pair served no more here.

        Raises `InvalidationIncomplete`, and `OSError` for a file that cannot be written.
        """
        if not ok:
            _remember(self._refused, (match.asked, match.stored), None)
            await self._repository.delete(match.key)
        if self._layer.feedback is not None:
            said = {"a": match.asked, "b": match.stored, "ok": ok}
            await asyncio.to_thread(_append, Path(self._layer.feedback), msgspec.json.encode(said))

    # -- looking ---------------------------------------------------------------------------------------

    async def _tried(
        self, job: Job, alike: Alike, opener: Opener, vetoes: list[str]
    ) -> tuple[Opened | None, str]:
        budget = Budget(self._layer.budget)
        try:
            scoped = await budget.wait_for(self._tasks.current().spawn(alike.scoped(job.key)))
            skip = scoped if isinstance(scoped, Skip) else self._skips(scoped)
            if isinstance(scoped, Skip) or skip is not None:
                return None, skip or Skip.NO_QUESTION
            if (hurdle := self._matcher.hurdle(scoped.text, within=self._layer.budget)) is not None:
                return None, hurdle
            opened = await self._found(job, scoped, opener, budget, vetoes)
        except RepositoryUnavailable:
            return None, Skip.LATE
        except Exception as error:  # noqa: BLE001 - an embedder's, an index's: it costs a hit, never a call
            self._complain(error)
            return None, Skip.FAILED
        return opened, "hit" if opened is not None else _NONE

    def _skips(self, scoped: Scoped) -> Skip | None:
        if self._layer.conversations == "first_turn" and not scoped.is_first_turn:
            return Skip.CONVERSATION
        return None

    async def _found(
        self, job: Job, scoped: Scoped, opener: Opener, budget: Budget | None, vetoes: list[str]
    ) -> Opened | None:
        finding = self._tasks.current().spawn(
            self._matcher.find(job.key.namespace, scoped.scope, scoped.text)
        )
        matches = await (budget.wait_for(finding) if budget is not None else finding)
        vetoes += map(str, matches.vetoes)
        verifying_until = time.monotonic() + self._layer.verifier_budget
        for match in matches.found:
            if match.digest == job.key.digest or (scoped.text, match.stored) in self._refused:
                continue  # its own entry, which was looked at already; or what somebody has called wrong
            opened = await self._opened(job, match, opener, budget, asked=scoped.text)
            if opened is None or not match.needs_verifier:
                if opened is not None:
                    return opened
                continue
            if await self._is_verified(job, scoped, match, opened, until=verifying_until):
                # It may have been invalidated meanwhile.
                return await self._opened(job, match, opener, budget, asked=scoped.text, verified=True)
        return None

    async def _opened(
        self,
        job: Job,
        match: Match,
        opener: Opener,
        budget: Budget | None,
        *,
        asked: str,
        verified: bool = False,
    ) -> Opened | None:
        key = CacheKey(
            digest=match.digest, namespace=job.key.namespace, prefix=job.key.prefix, model=job.key.model
        )
        if verified:
            # Not what the near cache has; and the time the verifier took was not the server's.
            budget = Budget(self._repository.config.lookup_budget)
        found = await self._repository.look_up(key, budget=budget, touch=not verified)
        if not isinstance(found, Found):
            self._tasks.current().spawn(self._matcher.forget(key))
            return None
        if found.entry.answer.kind != job.codec.kind:
            return None
        if not self._layer.serve_tool_calls and calls_a_tool(found.entry.answer):
            return None
        opened = opener(job, found)
        if opened is None or opened.outcome is not Outcome.HIT:
            return None
        said = SemanticMatch(
            key=key,
            similarity=match.similarity,
            passed=(*match.passed, "verifier") if verified else match.passed,
            asked=asked,
            stored=match.stored,
        )
        return replace(opened, match=said)

    async def _is_verified(
        self, job: Job, scoped: Scoped, match: Match, opened: Opened, *, until: float
    ) -> bool:
        place = (scoped.scope, scoped.text, match.digest, opened.fence)
        ok = self._verdicts.get(place)
        if ok is None:
            ok = await self._verified(job, scoped.text, match.stored, within=until - time.monotonic())
            if ok is not None:
                _remember(self._verdicts, place, ok)
        return ok is True

    async def _verified(self, job: Job, asked: str, stored: str, *, within: float) -> bool | None:
        """Ask the verifier; None for no answer, which counts as a no and is not remembered."""
        verifier = self._layer.verifier
        if verifier is None or within <= 0:
            return None
        began, ok = time.monotonic(), None
        # A task of its own: one that does not let itself be cancelled, or cancels itself, is its own affair.
        asking = asyncio.get_running_loop().create_task(_answer_of(verifier, asked, stored))
        here = self._asking.current()
        here.add(asking)
        asking.add_done_callback(partial(_heard, here))
        try:
            await asyncio.wait((asking,), timeout=within)
        finally:
            asking.cancel()
        if asking.done() and not asking.cancelled():
            if (error := asking.exception()) is None:
                verdict = asking.result()
                ok = bool(verdict.ok)
                self._accounts.spent(
                    Purpose.VERIFIER, verdict.usage, verdict.model, namespace=job.key.namespace
                )
            elif isinstance(error, Exception):
                self._complain(error)
        self._telemetry.emit(VerifierAsked(seconds=time.monotonic() - began, ok=ok))
        return ok

    def _embedded(self, model: str, usage: Usage) -> None:
        namespace = self._repository.config.namespace
        self._accounts.spent(Purpose.EMBEDDING, usage, model, namespace=namespace)

    def _complain(self, error: Exception) -> None:
        """Say each kind of failure once; only its name, for what it says may be somebody's question."""
        kind = type(error).__name__
        if kind not in self._complaints and len(self._complaints) < _MOST_COMPLAINTS:
            self._complaints.add(kind)
            why = f": {error}" if isinstance(error, ConfigError | EmbeddingFailed) else ""
            _log.warning("semantic cache: looking for a question failed (%s%s); that is a miss", kind, why)

    # -- keeping ---------------------------------------------------------------------------------------

    async def _add(self, job: Job, scoped: Scoped, *, fence: str) -> None:
        try:
            if not fence:
                found = await self._repository.look_up(job.key, touch=False)
                if not isinstance(found, Found):
                    return
                fence = found.fence
            await self._matcher.add(job.key, fence=fence, scope=scoped.scope, text=scoped.text)
        except Exception:  # noqa: BLE001 - an embedder's, an index's: the answer is stored all the same
            self._telemetry.emit(_NOT_KEPT)

    async def _compare(self, match: SemanticMatch, would_have: EncodedAnswer, said: EncodedAnswer) -> None:
        """Say whether what would have been served says what the provider said then."""
        one, other = text_of(would_have), text_of(said)
        agrees = None
        if one and other:
            try:
                agrees = await self._matcher.agree(one, other)
            except EmbeddingFailed:
                agrees = None
        self._telemetry.emit(ShadowCompared(agrees=agrees, similarity=match.similarity))


def _heard(asking: set[asyncio.Task[Any]], ended: asyncio.Task[Any]) -> None:
    asking.discard(ended)
    if not ended.cancelled():
        ended.exception()  # whoever waited may be gone


async def _answer_of(verifier: Any, asked: str, stored: str) -> Any:
    said = await verifier(asked, stored)
    return Verdict(ok=said) if isinstance(said, bool) else said


def _remember(place: OrderedDict[K, V], key: K, value: V) -> None:
    place[key] = value
    if len(place) > _MOST_REMEMBERED:
        place.popitem(last=False)


def _append(path: Path, line: bytes) -> None:
    with path.open("ab") as file:
        file.write(line + b"\n")
