"""`ResponseCache`: from a request and a way to ask, to an answer and how it came about.

The use case that the gateway and every framework face share. Owns signatures, flights and background
work; leaves what a flight does to `flight`, and what a server does to the repository.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Self, Unpack

from msgspec.structs import replace

from llmcache_plugins.answers import Kind, PlainCodec
from llmcache_plugins.budget import Budget
from llmcache_plugins.cache import resolutions
from llmcache_plugins.cache.accounts import Accounts
from llmcache_plugins.cache.calls import Calls
from llmcache_plugins.cache.errands import Errand, Errands
from llmcache_plugins.cache.explaining import Explainer, all_kinds
from llmcache_plugins.cache.held import is_held
from llmcache_plugins.cache.intake import Declined, Intake, Late
from llmcache_plugins.cache.job import CallJob, Job, StreamJob
from llmcache_plugins.cache.shelf import Shelf
from llmcache_plugins.cache.standing_in import in_its_place, make_repository, stand_in
from llmcache_plugins.cache.streams import Report, Streamer
from llmcache_plugins.cache.terms import chooser_of, tags_of
from llmcache_plugins.config import CacheConfig, CacheSettings
from llmcache_plugins.errors import CacheMiss, ConfigError, RepositoryError
from llmcache_plugins.keys import CacheKey
from llmcache_plugins.loops import PerLoop, Tasks
from llmcache_plugins.models import Mode, Outcome, Resolution
from llmcache_plugins.prices import Prices
from llmcache_plugins.telemetry import Face, Stats, Telemetry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping
    from types import TracebackType

    from llmcache_plugins.answers import AnswerCodec, StreamCodec
    from llmcache_plugins.cache.alike import Alike
    from llmcache_plugins.cache.explanation import Explanation
    from llmcache_plugins.cache.opened import Opened
    from llmcache_plugins.cache.options import CallOptions
    from llmcache_plugins.cache.similar import Similar
    from llmcache_plugins.models import Invalidation, Lease
    from llmcache_plugins.policy import CachePolicy, Chooser
    from llmcache_plugins.prices import Price, PriceTable
    from llmcache_plugins.repository import ResponseRepository
    from llmcache_plugins.savings import Savings
    from llmcache_plugins.semantic import SemanticCacheLayer
    from llmcache_plugins.signature import Unsigned
    from llmcache_plugins.telemetry import Observer

__all__ = ["ResponseCache"]

_PLAIN = PlainCodec()


class ResponseCache:
    """A cache for calls that cost money.

    Identical calls at one time cost one provider call; later ones are answered from the repository until
    the policy's TTL is over. Whatever becomes of the repository, the caller gets the provider's answer: it
    waits at most `lookup_budget` before the call and `commit_budget` after it. Usable from any event loop;
    `async with` connects first and closes at the end.
    """

    def __init__(
        self,
        repository: ResponseRepository,
        *,
        policy: Chooser | str | None = None,
        semantic: SemanticCacheLayer | None = None,
        prices: Mapping[str, Price] | PriceTable | None = None,
    ) -> None:
        self.repository = repository = in_its_place(repository)
        self.config = repository.config
        self.policy = chooser_of(policy, default_ttl=repository.default_ttl)
        self.semantic = semantic = semantic if stand_in() is None else None
        self._telemetry = repository.telemetry
        self.prices = Prices(prices)
        self._accounts = Accounts(repository, self.prices)
        self._similar, alike = self._semantics(semantic)
        self._intake = Intake(self.config, self.policy, telemetry=self._telemetry, alike=alike)
        self._explainer = Explainer(repository, self._intake)
        self._shelf = shelf = Shelf(repository, self._similar)
        self._calls = Calls(repository, shelf, self._accounts)
        self._streams = Streamer(repository, shelf, self._accounts)
        self._errands = Errands(repository, shelf, self._streams)
        self._tasks = PerLoop(Tasks)

    @classmethod
    def from_url(
        cls,
        url: str | None = None,
        *,
        policy: Chooser | str | None = None,
        semantic: SemanticCacheLayer | None = None,
        prices: Mapping[str, Price] | PriceTable | None = None,
        observers: Iterable[Observer] = (),
        **settings: Unpack[CacheSettings],
    ) -> Self:
        """Make a cache on a server: `redis://`, `rediss://`, `unix://`, `redis+cluster://`, `embedded://PATH`.

        Without a URL it is the embedded server. `policy` is a `CachePolicy`, the name of a scenario, or a
        `PolicyRouter`; `semantic` gives equivalent questions one answer; `prices` are those of models that
        LiteLLM's table lacks, by name; `observers` see every event; `settings` are the fields of
        `CacheConfig`. Opens nothing yet. Raises `ConfigError` for what cannot work.
        """
        config = CacheConfig(**settings)
        repository = make_repository(url, config=config, telemetry=Telemetry(observers))
        return cls(repository, policy=policy, semantic=semantic, prices=prices)

    # -- answering -------------------------------------------------------------------------------------

    async def get_or_call(
        self, query: Any, call: Callable[[], Awaitable[Any]], **options: Unpack[CallOptions]
    ) -> Any:
        """Return the stored answer of `query`, or what `call()` returns, stored for the next one.

        `query` is a mapping such as an OpenAI request body, or a string; `options` are those of
        `CallOptions`. Errors of `call` pass through unchanged and are not stored; a call that waited for
        another process may get a `SharedProviderError` instead. A caller that is cancelled does not disturb
        others who wait for the same answer.
        """
        resolution = await self.resolve(query, call, **options)
        return resolution.answer

    async def resolve(
        self,
        query: Any,
        call: Callable[[], Awaitable[Any]],
        *,
        codec: AnswerCodec = _PLAIN,
        scope: Mapping[str, object] | None = None,
        request: Callable[[], Any] | None = None,
        again: Callable[[], Awaitable[Any]] | None = None,
        face: Face = Face.CACHE,
        **options: Unpack[CallOptions],
    ) -> Resolution:
        """Like `get_or_call`, and say how the answer came about.

        `codec` stores and restores the answers; `scope` holds facts beside the query that change them;
        `request` says what the policy is shown, if that is not the query. `again` asks the provider for a
        refresh, whose answer nobody waits for, where that is not `call`.
        """
        started = monotonic()
        with self._telemetry.span():
            job = self._intake.take(
                query,
                CallJob,
                codec=codec,
                options=options,
                scope=scope,
                request=request,
                call=call,
                again=again,
            )
            if isinstance(job, Late):
                job = await job.taken()
            if isinstance(job, Declined):
                resolution = await self._calls.call(call, None, Outcome.BYPASS, detail=job.detail)
            else:
                resolution = await self._resolve(job)
            self._accounts.resolved(resolution, face=face, started=started)
        return resolution

    async def stream(
        self,
        query: Any,
        open_stream: Callable[[], AsyncGenerator[Any, None]],
        *,
        codec: StreamCodec = _PLAIN,
        scope: Mapping[str, object] | None = None,
        request: Callable[[], Any] | None = None,
        may_wait: bool = True,
        on_hit: Callable[[Resolution], None] | None = None,
        face: Face = Face.CACHE,
        **options: Unpack[CallOptions],
    ) -> AsyncGenerator[Any, None]:
        """Yield the chunks of an answer: the stored one's, or the provider's as they come.

        Identical streams at one time share one provider call: each reader gets every chunk from the first
        on while it is under way, at its own pace, in whatever process. A stream is stored when the provider
        has ended it; one that breaks off, on either side, is not, and raises `StreamInterrupted` for a
        reader in another process that was given chunks already.

        `may_wait` is False for who must not wait for a call of others; `on_hit` is told of a stored answer
        (without the answer itself) before its first chunk.
        """
        started, report = monotonic(), Report()
        job = self._intake.take(
            query,
            StreamJob,
            codec=codec,
            options=options,
            scope=scope,
            request=request,
            query=query,
            open=open_stream,
        )
        if isinstance(job, Late):
            job = await job.taken()
        key = None
        if isinstance(job, Declined):
            chunks, report.outcome = self._streams.ask(open_stream), Outcome.BYPASS
        else:
            key = job.key
            if on_hit is not None:
                report.on_hit = partial(_tell, on_hit, key)
            chunks = self._read(job, report, may_wait=may_wait)
        answered = None
        with self._telemetry.stream_span() as span:
            async with aclosing(chunks), aclosing(span.over(chunks)) as spanned:
                async for chunk in spanned:
                    answered = answered or monotonic()
                    yield chunk
            with span.attached():
                self._count_stream(key, report, face=face, started=started, answered=answered)

    async def acquire(
        self,
        query: Any,
        *,
        codec: AnswerCodec = _PLAIN,
        scope: Mapping[str, object] | None = None,
        request: Callable[[], Any] | None = None,
        whole: Callable[[], Any] | None = None,
        may_wait: bool = True,
        may_lead: bool = True,
        live: StreamCodec | None = None,
        face: Face = Face.CACHE,
        **options: Unpack[CallOptions],
    ) -> Resolution | Errand | None:
        """Return the answer, or the errand to bring it: for frameworks that call the provider themselves.

        Whoever gets an `Errand` calls, and then says `fulfil(answer)` or `abandon(error)`; until then, at
        most `max_lead` seconds, the others wait, unless they may not. None: call, and bring nothing; so it is
        for who may not lead and finds no answer.
        `query` may be its `CacheKey`, here and in `put`; then `request` says what the policy is shown, and
        `whole` all that the key was made of, for the semantic layer.

        With `live`, what would wait for a stream of others that is under way gets, as the answer, an
        asynchronous generator of its chunks, as that codec makes them: from the first on, as they come. It
        raises `StreamInterrupted` when the stream breaks off; leave it by its `aclose`, or drop it.
        """
        started, report = monotonic(), None if live is None else Report()
        with self._telemetry.span():
            job = self._intake.take(
                query, Job, codec=codec, options=options, scope=scope, request=request, whole=whole
            )
            if isinstance(job, Late):
                job = await job.taken()
            if isinstance(job, Declined):
                nothing = resolutions.of_call(None, None, Outcome.BYPASS)
                self._accounts.resolved(nothing, face=face, started=started)
                return None
            found: Resolution | Errand | None
            if job.is_not_stored or not (may_lead or job.mode is Mode.READ_ONLY):
                found = await self._errands.read(job)
            else:
                found = await self._errands.run(
                    job, tasks=self._tasks, may_wait=may_wait, live=live, report=report
                )
            if report and isinstance(found, Resolution) and isinstance(found.answer, AsyncGenerator):
                # What it saves is known at its end.
                count = partial(
                    self._count_stream, job.key, report, face=face, started=started, answered=monotonic()
                )
                return replace(found, answer=_and_then(found.answer, count))
            resolution = (
                found if isinstance(found, Resolution) else resolutions.of_call(job.key, None, Outcome.MISS)
            )
            self._accounts.resolved(resolution, face=face, started=started)
        return found

    def at_hand(self, key: CacheKey, *, codec: AnswerCodec, face: Face = Face.CACHE) -> Resolution | None:
        """Return the answer if it lies in the near cache, where nothing but the key decides; None: `acquire`.

        For calls without options. From any thread, with or without a loop.
        """
        if not self._intake.terms.only_keys_count:
            return None
        started = monotonic()
        opened = self._shelf.at_hand(key, codec)
        if opened is None:
            return None
        resolution = resolutions.of_opened(key, opened)
        with self._telemetry.span():
            self._accounts.resolved(resolution, face=face, started=started)
        return resolution

    def bypass(self, reason: str, *, face: Face = Face.CACHE, **options: Unpack[CallOptions]) -> None:
        """Count a call that must not be cached, for a reason that only its face knows.

        Raises `CacheMiss` in mode "read_only".
        """
        if self._intake.terms.mode_of(options) is Mode.READ_ONLY:
            raise CacheMiss(f"such a request is never stored: it {reason}")
        nothing = resolutions.of_call(None, None, Outcome.BYPASS)
        with self._telemetry.span():
            self._accounts.resolved(nothing, face=face, started=monotonic())

    async def put(
        self,
        query: Any,
        answer: Any,
        *,
        codec: AnswerCodec = _PLAIN,
        scope: Mapping[str, object] | None = None,
        request: Callable[[], Any] | None = None,
        whole: Callable[[], Any] | None = None,
        was_looked_up: bool = False,
        lease: Lease | None = None,
        asked_at: float | None = None,
        **options: Unpack[CallOptions],
    ) -> bool:
        """Store an answer that came from elsewhere, encoded or not; return whether it is stored, or will be.

        What the policy does not admit is counted, once if it `was_looked_up` before, and not stored; nor is
        what was asked for before an invalidation, if it is known when that was: by the `lease` of `fence`,
        or by the running loop's clock, `asked_at`.
        """
        if self._intake.terms.mode_of(options) is Mode.READ_ONLY:
            return False
        job = self._intake.take(
            query,
            Job,
            codec=codec,
            options=options,
            scope=scope,
            request=request,
            whole=whole,
            was_counted=was_looked_up,
        )
        if isinstance(job, Late):
            job = await job.taken()
        if isinstance(job, Declined):
            return False
        if job.is_not_stored:
            return False
        stored = await self._errands.store(job, answer, lease=lease, asked_at=asked_at)
        return stored.refusal is None

    async def fence(
        self, query: Any, *, codec: AnswerCodec = _PLAIN, **options: Unpack[CallOptions]
    ) -> Lease | None:
        """Return the right to `put` what the provider is asked for from now on; None if it is not to be had.

        For who looks up without an errand and brings the answer all the same.
        """
        job = self._intake.take(query, Job, codec=codec, options=options, was_counted=True)
        if isinstance(job, Late):
            job = await job.taken()
        return None if isinstance(job, Declined) else await self._errands.fence(job)

    def key_of(
        self,
        query: Any,
        *,
        codec: AnswerCodec = _PLAIN,
        scope: Mapping[str, object] | None = None,
        model: str | None = None,
        request: Callable[[], Any] | None = None,
        **options: Unpack[CallOptions],
    ) -> CacheKey:
        """Return the key of a query. Raises `SignatureError` when it has no canonical form.

        `model` is the model that is asked, where the query does not call it that; `request` what the policy
        is shown instead of the query. Normalizers run on the calling thread.
        """
        key = self.read_key(query, codec=codec, scope=scope, model=model, request=request, **options)
        return key if isinstance(key, CacheKey) else key.sign()

    def read_key(
        self,
        query: Any,
        *,
        codec: AnswerCodec = _PLAIN,
        scope: Mapping[str, object] | None = None,
        model: str | None = None,
        request: Callable[[], Any] | None = None,
        **options: Unpack[CallOptions],
    ) -> CacheKey | Unsigned:
        """Like `key_of`, but leave to a thread what an event loop should not wait for: see `Unsigned`."""
        return self._intake.read_key(
            query, kind=codec.kind, options=options, scope=scope, model=model, request=request
        )

    def check(self, **options: Unpack[CallOptions]) -> None:
        """Raise for options that no call could take: `TypeError` for their names, else `ConfigError`."""
        self._intake.terms.check(options)

    # -- forgetting ------------------------------------------------------------------------------------

    async def delete(self, key: CacheKey) -> bool:
        """Forget one answer, everywhere; flights under way for it are not stored. See the repository."""
        self._detach(lambda flying: flying == key)
        return await self.repository.delete(key)

    async def invalidate(
        self,
        *,
        tags: Iterable[str] | None = None,
        model: str | None = None,
        request: Any = None,
        scope: Mapping[str, object] | None = None,
        namespace: str | None = None,
        tenant: str | None = None,
        replicas: int = 0,
        timeout: float = 1.0,
        wait: bool = False,
        policy: CachePolicy | str | None = None,
        prompt_version: str | int | None = None,
        data_version: str | int | None = None,
    ) -> Invalidation:
        """Forget answers, everywhere: when this returns no process serves them, whoever asks.

        Each of `tags` (what answers were made from), `model` (of the requests) and `request` is forgotten.
        `namespace` and `tenant` say where, by default in the cache's own; alone they mean all of it.
        `request` means its answers of every kind, as a gateway and LiteLLM store them; `scope` is that of a
        provider, `policy`, `prompt_version` and `data_version` those of the calls, where they were not the
        cache's own. What flights under way bring is not stored, and not given to others.

        Constant work, whatever the number of answers: one script, 64 in a Cluster. With `replicas` it waits
        at most `timeout` seconds until so many replicas of each node have acknowledged; how many have is in
        what it returns. Processes with a near cache serve the old answer for a second more; with `wait` it
        returns when that is over. Raises `InvalidationIncomplete` when not all of the server has
        acknowledged, after 5 seconds: then repeat it. Raises `ConfigError` for what cannot be forgotten.
        """
        given, name = tags_of(tags), self._intake.terms.namespace_of(namespace, tenant)
        _check_patience(replicas, timeout)
        everything = tags is None and model is None and request is None
        if everything and name is None:
            raise ConfigError(
                "say what to forget: tags=, model=, request=; namespace= or tenant= alone forgets all of it"
            )
        options: CallOptions = {
            "namespace": name,
            "policy": policy,
            "prompt_version": prompt_version,
            "data_version": data_version,
        }
        keys = [] if request is None else await self._keys_of_all_kinds(request, scope, options)
        home = self.config.namespace if name is None else name
        # Whoever comes after this must not join what began before it.
        self._detach(lambda flying: flying.namespace == home)
        return await self.repository.invalidate(
            home,
            tags=given,
            models=() if model is None else (model,),
            keys=keys,
            everything=everything,
            replicas=replicas,
            patience=timeout,
            wait=wait,
        )

    async def clear(
        self, namespace: str | None = None, *, tenant: str | None = None, wait: bool = False
    ) -> int:
        """Forget every answer of a namespace (default the cache's own); return how many were swept.

        After `invalidate` has voided them they are removed, so that nothing of them is left on the server;
        with `wait`, nothing in near caches either.
        """
        name = self._intake.terms.namespace_of(namespace, tenant)
        home = self.config.namespace if name is None else name
        self._detach(lambda flying: flying.namespace == home)
        return await self.repository.clear(home, wait=wait)

    # -- explaining ------------------------------------------------------------------------------------

    async def explain(
        self,
        query: Any,
        *,
        codec: AnswerCodec = _PLAIN,
        scope: Mapping[str, object] | None = None,
        request: Callable[[], Any] | None = None,
        **options: Unpack[CallOptions],
    ) -> Explanation:
        """Say why a request hits or misses: what counts of it, what is stored, and where the nearest differs.

        Looks for its answers of every kind, `codec`'s first. On a miss the 1,000 entries used last are
        compared: those that were stored with the same `secret`, or without one by this process. Calls no
        provider, counts nothing, and raises only `TypeError` and `ConfigError`, for options that cannot work.
        """
        return await self._explainer.explain(
            query,
            kinds=all_kinds(codec.kind),
            scopes=[scope, None] if scope else [None],
            request=request,
            options=options,
        )

    async def report_feedback(self, result: Resolution, *, ok: bool) -> None:
        """Say whether a semantic hit was right; the answer of a wrong one is forgotten, everywhere.

        What is said is kept for the next calibration, where the layer has a `feedback` file. Raises
        `ConfigError` for anything but a semantic hit, and what `invalidate` raises.
        """
        if result.match is None or self._similar is None:
            raise ConfigError("feedback is for the semantic hits of a cache: results with a `match`")
        await self._similar.report(result.match, ok=ok)

    # -- life ------------------------------------------------------------------------------------------

    async def stats(self) -> Stats:
        """Return what was counted in this process, with the namespace's size if the server says it."""
        stats = self._telemetry.snapshot()
        try:
            size = await self.repository.size(budget=Budget(self.config.lookup_budget))
        except (RepositoryError, ConfigError):
            return stats
        stats.entries, stats.stored_bytes = size.entries, size.stored_bytes
        return stats

    async def savings(self, *, days: int | None = None) -> Savings:
        """Return what was saved in all namespaces of this prefix, by day, namespace and model.

        By all processes, with what this one has counted up to now; `days` counts back from today (UTC), None
        is all that is kept: see `ledger_days`. Raises what the repository raises.
        """
        return await self.repository.ledger.read(days=days)

    def in_flight(self) -> int:
        """Return how many calls and streams are under way on the running loop."""
        return self._calls.count() + self._streams.count() + self._errands.count()

    async def aclose(self) -> None:
        """Finish what is being stored on the running loop, close the connections.

        Calls that somebody still waits for go on, and get their answers.
        """
        await self._calls.aclose()
        await self._streams.aclose()
        await self._errands.aclose()
        if (tasks := self._tasks.pop()) is not None:
            await tasks.finish(timeout=self.config.commit_budget)
        if self._similar is not None:
            await self._similar.aclose()
        await self.repository.aclose()

    async def __aenter__(self) -> Self:
        await self.repository.__aenter__()
        if self._similar is not None:
            await self._similar.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    # -- inside ----------------------------------------------------------------------------------------

    def _semantics(self, layer: SemanticCacheLayer | None) -> tuple[Similar | None, type[Alike] | None]:
        if layer is None:
            return None, None
        # Here, for they import numpy.
        from llmcache_plugins.cache.alike import Alike
        from llmcache_plugins.cache.similar import Similar
        from llmcache_plugins.semantic import SemanticCacheLayer

        if not isinstance(layer, SemanticCacheLayer):
            raise ConfigError(f"semantic is a SemanticCacheLayer, not a {type(layer).__name__}")
        return Similar(layer, self.repository, self._accounts, find=self._find_similar), Alike

    async def _find_similar(
        self,
        query: Any,
        *,
        codec: AnswerCodec = _PLAIN,
        scope: Mapping[str, object] | None = None,
        **options: Unpack[CallOptions],
    ) -> Resolution | None:
        job = self._intake.take(query, Job, codec=codec, options=options, scope=scope, was_counted=True)
        if isinstance(job, Late):
            job = await job.taken()
        if isinstance(job, Declined) or self._similar is None:
            return None
        opened = await self._similar.look(job, self._shelf.open)
        return None if opened is None else resolutions.of_opened(job.key, opened)

    async def _resolve(self, job: CallJob) -> Resolution:
        if job.is_not_stored:
            return await self._calls.read_or_call(job)
        return await self._calls.resolve(job, tasks=self._tasks.current(), may_wait=not is_held())

    def _read(self, job: StreamJob, report: Report, *, may_wait: bool) -> AsyncGenerator[Any, None]:
        if job.is_not_stored:
            return self._streams.read_or_open(job, report)
        may_wait = may_wait and not is_held()
        return self._streams.read(job, report, tasks=self._tasks.current(), may_wait=may_wait)

    async def _keys_of_all_kinds(
        self, request: Any, scope: Mapping[str, object] | None, options: CallOptions
    ) -> list[CacheKey]:
        scopes = [scope, None] if scope else [None]
        keys = [
            self._intake.read_key(request, kind=kind, options=options, scope=one)
            for kind in Kind
            for one in scopes
        ]
        return [key if isinstance(key, CacheKey) else await asyncio.to_thread(key.sign) for key in keys]

    def _detach(self, matches: Callable[[CacheKey], bool]) -> None:
        self._calls.detach(matches)
        self._streams.detach(matches)
        self._errands.detach(matches)

    def _count_stream(
        self, key: CacheKey | None, report: Report, *, face: Face, started: float, answered: float | None
    ) -> None:
        resolution = _resolution_of(key, report)
        self._accounts.resolved(resolution, face=face, started=started, answered=answered)


def _resolution_of(key: CacheKey | None, report: Report) -> Resolution:
    """Return the resolution of a stream; its answer is not kept."""
    if key is not None and report.outcome.is_stored and report.entry is not None:
        return resolutions.of_entry(key, report.entry, None, outcome=report.outcome, match=report.match)
    if report.outcome is Outcome.COALESCED:
        return resolutions.of_coalesced(key, None, report.facts)
    return resolutions.of_call(key, None, report.outcome, facts=report.facts)


async def _and_then(chunks: AsyncGenerator[Any, None], then: Callable[[], None]) -> AsyncGenerator[Any, None]:
    """Yield the chunks, and do something at their end, whichever that is."""
    try:
        async with aclosing(chunks):
            async for chunk in chunks:
                yield chunk
    finally:
        then()


def _tell(on_hit: Callable[[Resolution], None], key: CacheKey, opened: Opened) -> None:
    on_hit(resolutions.of_opened(key, opened, whole=False))


def _check_patience(replicas: int, timeout: float) -> None:
    if isinstance(replicas, bool) or not isinstance(replicas, int) or replicas < 0:
        raise ConfigError(f"replicas is how many must acknowledge, from 0, not {replicas!r}")
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout <= 60:
        raise ConfigError(f"timeout is in seconds, above 0 and at most 60, not {timeout!r}")
