"""`ResponseCache`: from a request and a way to ask, to an answer and how it came about.

The use case that the gateway and every framework face share. Owns signatures, flights and background
work; leaves what a flight does to `flight`, and what a server does to the repository.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from time import monotonic
from typing import TYPE_CHECKING, Any, Self, Unpack

from llmcache_plugins.answers import PlainCodec
from llmcache_plugins.budget import Budget
from llmcache_plugins.cache import resolutions
from llmcache_plugins.cache.calls import Calls
from llmcache_plugins.cache.errands import Errand, Errands
from llmcache_plugins.cache.held import is_held
from llmcache_plugins.cache.job import CallJob, Job, StreamJob
from llmcache_plugins.cache.options import CallOptions
from llmcache_plugins.cache.shelf import Shelf
from llmcache_plugins.cache.streams import Report, Streamer
from llmcache_plugins.config import CacheConfig, CacheSettings
from llmcache_plugins.errors import CacheMiss, ConfigError, RepositoryError, SignatureError
from llmcache_plugins.keys import CacheKey, encode_name
from llmcache_plugins.loops import PerLoop, Tasks
from llmcache_plugins.models import Mode, Outcome, Resolution
from llmcache_plugins.normalize import Normalizers
from llmcache_plugins.policy import CachePolicy, effective_ttl
from llmcache_plugins.repository import ResponseRepository
from llmcache_plugins.signature import CacheSignatureEngine, Unsigned
from llmcache_plugins.telemetry import Face, Resolved, Stats, Telemetry

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
    from types import TracebackType

    from llmcache_plugins.answers import AnswerCodec, StreamCodec
    from llmcache_plugins.telemetry import Observer

__all__ = ["ResponseCache"]

_log = logging.getLogger("llmcache_plugins")

_PLAIN = PlainCodec()


class ResponseCache:
    """A cache for calls that cost money.

    Identical calls at one time cost one provider call; later ones are answered from the repository until
    the policy's TTL is over. Whatever becomes of the repository, the caller gets the provider's answer: it
    waits at most `lookup_budget` before the call and `commit_budget` after it. Usable from any event loop;
    `async with` connects first and closes at the end.
    """

    def __init__(self, repository: ResponseRepository, *, policy: CachePolicy | None = None) -> None:
        self.repository = repository
        self.config = repository.config
        self.policy = policy or CachePolicy(ttl=repository.default_ttl)
        self._telemetry = repository.telemetry
        self._engine = CacheSignatureEngine(
            secret=self.config.secret,
            namespace=self.config.namespace,
            prefix=self.config.prefix,
            normalizers=Normalizers(
                self.config.normalizers,
                limit=self.config.normalizer_limit,
                timeout=self.config.normalizer_timeout,
            ),
        )
        shelf = Shelf(repository)
        self._calls = Calls(repository, shelf)
        self._streams = Streamer(repository, shelf)
        self._errands = Errands(repository, shelf)
        self._tasks = PerLoop(Tasks)
        self._unsigned: set[str] = set()
        self._usual_mode = Mode(self.config.mode)

    @classmethod
    def from_url(
        cls,
        url: str | None = None,
        *,
        policy: CachePolicy | None = None,
        observers: Iterable[Observer] = (),
        **settings: Unpack[CacheSettings],
    ) -> Self:
        """Make a cache on a server: `redis://`, `rediss://`, `unix://`, `redis+cluster://`, `embedded://PATH`.

        Without a URL it is the embedded server. `settings` are the fields of `CacheConfig`. Opens
        nothing yet. Raises `ConfigError` for what cannot work.
        """
        config = CacheConfig(**settings)
        repository = ResponseRepository(url, config=config, telemetry=Telemetry(observers))
        return cls(repository, policy=policy)

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
        face: Face = Face.CACHE,
        **options: Unpack[CallOptions],
    ) -> Resolution:
        """Like `get_or_call`, and say how the answer came about.

        `codec` stores and restores the answers; `scope` holds facts beside the query that change them.
        """
        started, mode = monotonic(), self._mode(options)
        key = self._sign(query, codec=codec, scope=scope, namespace=options.get("namespace"), mode=mode)
        if isinstance(key, Unsigned):
            key = await self._signed(key, mode)
        if key is None:
            detail = "off" if mode is Mode.OFF else "signature"
            resolution = await self._calls.call(call, None, Outcome.BYPASS, detail=detail)
        else:
            job = CallJob(key=key, call=call, codec=codec, ttl=self._ttl(options), mode=mode)
            resolution = await self._resolve(job)
        self._count(resolution, face=face, started=started)
        return resolution

    async def stream(
        self,
        query: Any,
        open_stream: Callable[[], AsyncGenerator[Any, None]],
        *,
        codec: StreamCodec = _PLAIN,
        scope: Mapping[str, object] | None = None,
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
        started, mode = monotonic(), self._mode(options)
        key = self._sign(query, codec=codec, scope=scope, namespace=options.get("namespace"), mode=mode)
        if isinstance(key, Unsigned):
            key = await self._signed(key, mode)
        report = Report()
        if on_hit is not None and key is not None:
            report.on_hit = lambda entry: on_hit(resolutions.of_entry(key, entry, None))
        if key is None:
            chunks, report.outcome = open_stream(), Outcome.BYPASS
        else:
            job = StreamJob(
                key=key, query=query, open=open_stream, codec=codec, ttl=self._ttl(options), mode=mode
            )
            chunks = self._read(job, report, may_wait=may_wait)
        async with aclosing(chunks):
            async for chunk in chunks:
                yield chunk
        self._count(_resolution_of(key, report), face=face, started=started)

    async def acquire(
        self,
        query: Any,
        *,
        codec: AnswerCodec = _PLAIN,
        scope: Mapping[str, object] | None = None,
        may_wait: bool = True,
        max_age: float | None = None,
        face: Face = Face.CACHE,
        **options: Unpack[CallOptions],
    ) -> Resolution | Errand | None:
        """Return the answer, or the errand to bring it: for frameworks that call the provider themselves.

        Whoever gets an `Errand` calls, and then says `fulfil(answer)` or `abandon(error)`; until then, at
        most `max_lead` seconds, the others wait, unless they may not. None: call, and bring nothing.
        `query` may be its `CacheKey`, here and in `put`. An answer older than `max_age` seconds is none.
        """
        started, mode = monotonic(), self._mode(options)
        key = self._sign(query, codec=codec, scope=scope, namespace=options.get("namespace"), mode=mode)
        if isinstance(key, Unsigned):
            key = await self._signed(key, mode)
        if key is None:
            self._count(resolutions.of_call(None, None, Outcome.BYPASS), face=face, started=started)
            return None
        job = Job(key=key, codec=codec, ttl=self._ttl(options), mode=mode, max_age=max_age)
        found: Resolution | Errand | None
        if job.is_not_stored:
            found = await self._errands.read(job)
        else:
            found = await self._errands.run(job, tasks=self._tasks, may_wait=may_wait)
        resolution = found if isinstance(found, Resolution) else resolutions.of_call(key, None, Outcome.MISS)
        self._count(resolution, face=face, started=started)
        return found

    def bypass(self, reason: str, *, face: Face = Face.CACHE, **options: Unpack[CallOptions]) -> None:
        """Count a call that must not be cached, for a reason that only its face knows.

        Raises `CacheMiss` in mode "read_only".
        """
        if self._mode(options) is Mode.READ_ONLY:
            raise CacheMiss(f"such a request is never stored: it {reason}")
        self._count(resolutions.of_call(None, None, Outcome.BYPASS), face=face, started=monotonic())

    async def put(
        self,
        query: Any,
        answer: Any,
        *,
        codec: AnswerCodec = _PLAIN,
        scope: Mapping[str, object] | None = None,
        **options: Unpack[CallOptions],
    ) -> bool:
        """Store an answer that came from elsewhere, encoded or not; return whether it is stored, or will be.

        What the policy does not admit is counted and not stored.
        """
        mode = self._mode(options)
        key = self._sign(query, codec=codec, scope=scope, namespace=options.get("namespace"), mode=mode)
        if isinstance(key, Unsigned):
            key = await self._signed(key, mode)
        if key is None or mode is Mode.READ_ONLY:
            return False
        job = Job(key=key, codec=codec, ttl=self._ttl(options), mode=mode)
        return not job.is_not_stored and (await self._errands.store(job, answer)).refusal is None

    def key_of(
        self,
        query: Any,
        *,
        codec: AnswerCodec = _PLAIN,
        scope: Mapping[str, object] | None = None,
        namespace: str | None = None,
    ) -> CacheKey:
        """Return the key of a query. Raises `SignatureError` when it has no canonical form.

        Whatever the normalizers do, they do it on the calling thread: see `read_key`.
        """
        return self._engine.compute_signature(query, kind=codec.kind, scope=scope, namespace=namespace)

    def read_key(
        self,
        query: Any,
        *,
        codec: AnswerCodec = _PLAIN,
        scope: Mapping[str, object] | None = None,
        namespace: str | None = None,
    ) -> CacheKey | Unsigned:
        """Like `key_of`, for event loops: what takes long is left to `sign`, which a thread may call."""
        return self._engine.read(query, kind=codec.kind, scope=scope, namespace=namespace)

    def check(self, **options: Unpack[CallOptions]) -> None:
        """Raise for options that no call could take: `TypeError` for their names, else `ConfigError`."""
        self._mode(options)
        self._ttl(options)
        if (namespace := options.get("namespace")) is not None:
            encode_name(namespace)

    # -- forgetting ------------------------------------------------------------------------------------

    async def delete(self, key: CacheKey) -> bool:
        """Forget one answer, everywhere; flights under way for it are not stored. See the repository."""
        self._detach(lambda flying: flying == key)
        return await self.repository.delete(key)

    async def clear(self, namespace: str | None = None) -> int:
        """Forget every answer of a namespace (default the cache's own); return how many went."""
        name = self.config.namespace if namespace is None else namespace
        self._detach(lambda flying: flying.namespace == name)
        return await self.repository.clear(name)

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
        await self.repository.aclose()

    async def __aenter__(self) -> Self:
        await self.repository.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    # -- inside ----------------------------------------------------------------------------------------

    def _mode(self, options: CallOptions) -> Mode:
        if not options:
            return self._usual_mode
        if unknown := options.keys() - CallOptions.__optional_keys__:
            # A namespace that was misspelled must not be one that was not given.
            known = ", ".join(sorted(CallOptions.__optional_keys__))
            raise TypeError(f"unknown option {min(unknown)!r}; a call takes {known}")
        mode = options.get("mode")
        try:
            return Mode(self.config.mode if mode is None else mode)
        except ValueError:
            raise ConfigError(f"mode is one of {', '.join(Mode)}, not {mode!r}") from None

    def _ttl(self, options: CallOptions) -> float:
        policy = options.get("policy") or self.policy
        if not isinstance(policy, CachePolicy):
            raise ConfigError(f"policy is a CachePolicy, not a {type(policy).__name__}")
        return effective_ttl(policy, options.get("ttl"))

    def _sign(
        self,
        query: Any,
        *,
        codec: AnswerCodec,
        scope: Mapping[str, object] | None,
        namespace: str | None,
        mode: Mode,
    ) -> CacheKey | Unsigned | None:
        """Return the key of a query; None for one that is not to be cached."""
        if mode is Mode.OFF:
            return None
        if isinstance(query, CacheKey):
            return query
        try:
            return self.read_key(query, codec=codec, scope=scope, namespace=namespace)
        except SignatureError as error:
            self._give_up(error, mode)
            return None

    async def _signed(self, unsigned: Unsigned, mode: Mode) -> CacheKey | None:
        """Return the key of a query whose normalizing would hold up the loop."""
        try:
            return await asyncio.to_thread(unsigned.sign)
        except SignatureError as error:
            self._give_up(error, mode)
            return None

    def _give_up(self, error: SignatureError, mode: Mode) -> None:
        """Say once that such a request is not cached. Raises `CacheMiss` in mode "read_only"."""
        if mode is Mode.READ_ONLY:
            raise CacheMiss("a request without a canonical form is never stored") from error
        if error.path not in self._unsigned and len(self._unsigned) < 100:
            self._unsigned.add(error.path)
            _log.warning("not cached: %s", error)

    async def _resolve(self, job: CallJob) -> Resolution:
        if job.is_not_stored:
            return await self._calls.read_or_call(job)
        return await self._calls.resolve(job, tasks=self._tasks.current(), may_wait=not is_held())

    def _read(self, job: StreamJob, report: Report, *, may_wait: bool) -> AsyncGenerator[Any, None]:
        if job.is_not_stored:
            return self._streams.read_or_open(job, report)
        may_wait = may_wait and not is_held()
        return self._streams.read(job, report, tasks=self._tasks.current(), may_wait=may_wait)

    def _detach(self, matches: Callable[[CacheKey], bool]) -> None:
        self._calls.detach(matches)
        self._streams.detach(matches)
        self._errands.detach(matches)

    def _count(self, resolution: Resolution, *, face: Face, started: float) -> None:
        self._telemetry.emit(
            Resolved(
                outcome=resolution.outcome,
                face=face,
                seconds=monotonic() - started,
                saved=resolution.tokens_saved,
                saved_seconds=resolution.seconds_saved,
            )
        )


def _resolution_of(key: CacheKey | None, report: Report) -> Resolution:
    """Return the resolution of a stream; its answer is not kept."""
    if key is not None and report.outcome is Outcome.HIT and report.entry is not None:
        return resolutions.of_entry(key, report.entry, None)
    return resolutions.of_call(key, None, report.outcome)
