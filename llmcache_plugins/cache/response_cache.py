"""`ResponseCache`: from a request and a way to ask, to an answer and how it came about.

The use case that the gateway and every framework face share. Owns signatures, flights and background
work; leaves what a flight does to `flight`, and what a server does to the repository.
"""

from __future__ import annotations

import logging
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Self, Unpack

from llmcache_plugins.answers import PlainCodec
from llmcache_plugins.budget import Budget
from llmcache_plugins.cache import resolutions
from llmcache_plugins.cache.flight import Crew, call_provider
from llmcache_plugins.cache.held import is_held
from llmcache_plugins.cache.job import Job, Landing
from llmcache_plugins.cache.shelf import Shelf, clock
from llmcache_plugins.cache.streaming import Replay, Streamer, StreamJob
from llmcache_plugins.config import CacheConfig, CacheSettings
from llmcache_plugins.errors import ConfigError, RepositoryError, SignatureError
from llmcache_plugins.loops import PerLoop, Tasks
from llmcache_plugins.models import Outcome, Resolution
from llmcache_plugins.policy import CachePolicy, effective_ttl
from llmcache_plugins.repository import ResponseRepository
from llmcache_plugins.signature import CacheSignatureEngine
from llmcache_plugins.singleflight import Flights
from llmcache_plugins.telemetry import Face, ProviderCalled, Resolved, Stats, Telemetry

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable, Mapping
    from types import TracebackType

    from llmcache_plugins.answers import AnswerCodec, StreamCodec
    from llmcache_plugins.keys import CacheKey
    from llmcache_plugins.telemetry import Observer

__all__ = ["ResponseCache"]

_log = logging.getLogger("llmcache_plugins")

_PLAIN = PlainCodec()
_MOST_ROUNDS = 2
"""How often a caller joins a flight whose answer may be older than itself before it flies alone."""


class ResponseCache:
    """A cache for calls that cost money.

    Identical calls at one time cost one provider call; later ones are answered from the repository until
    the policy's TTL is over. Whatever becomes of the repository, the caller gets the provider's answer,
    at most `lookup_budget` later than without a cache. Usable from any event loop; `async with` connects
    first and closes at the end.
    """

    def __init__(self, repository: ResponseRepository, *, policy: CachePolicy | None = None) -> None:
        self.repository = repository
        self.config = repository.config
        self.policy = policy or CachePolicy(ttl=repository.default_ttl)
        self._telemetry = repository.telemetry
        self._engine = CacheSignatureEngine(
            secret=self.config.secret, namespace=self.config.namespace, prefix=self.config.prefix
        )
        self._shelf = Shelf(repository)
        self._crew = Crew(repository, self._shelf)
        self._streamer = Streamer(repository, self._shelf)
        self._flights: Flights[CacheKey, Landing] = Flights(on_abandon=self.config.on_abandon)
        self._tasks = PerLoop(Tasks)
        self._unsigned: set[str] = set()

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
        self,
        query: Any,
        call: Callable[[], Awaitable[Any]],
        *,
        policy: CachePolicy | None = None,
        ttl: float | None = None,
        namespace: str | None = None,
    ) -> Any:
        """Return the stored answer of `query`, or what `call()` returns, stored for the next one.

        `query` is a mapping such as an OpenAI request body, or a string. `ttl` in seconds: 0 reads but
        does not store, None as the policy says. Errors of `call` pass through unchanged and are not
        stored. A caller that is cancelled does not disturb others who wait for the same answer.
        """
        resolution = await self.resolve(query, call, policy=policy, ttl=ttl, namespace=namespace)
        return resolution.answer

    async def resolve(
        self,
        query: Any,
        call: Callable[[], Awaitable[Any]],
        *,
        codec: AnswerCodec = _PLAIN,
        scope: Mapping[str, object] | None = None,
        policy: CachePolicy | None = None,
        ttl: float | None = None,
        namespace: str | None = None,
        face: Face = Face.CACHE,
    ) -> Resolution:
        """Like `get_or_call`, and say how the answer came about.

        `codec` stores and restores the answers; `scope` holds facts beside the query that change them.
        """
        started = clock()
        seconds = effective_ttl(policy or self.policy, ttl)
        key = self._sign(query, codec=codec, scope=scope, namespace=namespace)
        if key is None:
            resolution = await self._call_only(call, None, Outcome.BYPASS, detail="signature")
        else:
            job = Job(key=key, call=call, codec=codec, ttl=seconds)
            resolution = await (self._resolve(job) if seconds > 0 else self._read_or_call(job))
        self._count(resolution, face=face, seconds=clock() - started)
        return resolution

    async def stream(
        self,
        query: Any,
        open_stream: Callable[[], AsyncGenerator[Any, None]],
        *,
        codec: StreamCodec = _PLAIN,
        scope: Mapping[str, object] | None = None,
        policy: CachePolicy | None = None,
        ttl: float | None = None,
        namespace: str | None = None,
        face: Face = Face.CACHE,
    ) -> AsyncGenerator[Any, None]:
        """Yield the chunks of an answer: the stored one's, or the provider's as they come.

        A stream is stored when the provider has ended it; one that breaks off, on either side, is not.
        """
        started = clock()
        seconds = effective_ttl(policy or self.policy, ttl)
        key = self._sign(query, codec=codec, scope=scope, namespace=namespace)
        if key is None:
            chunks, resolution = open_stream(), resolutions.of_call(None, None, Outcome.BYPASS)
        else:
            job = StreamJob(key=key, query=query, open=open_stream, codec=codec, ttl=seconds)
            chunks, resolution = await self._find_stream(job)
        async with aclosing(chunks):
            async for chunk in chunks:
                yield chunk
        self._count(resolution, face=face, seconds=clock() - started)

    def key_of(
        self,
        query: Any,
        *,
        codec: AnswerCodec = _PLAIN,
        scope: Mapping[str, object] | None = None,
        namespace: str | None = None,
    ) -> CacheKey:
        """Return the key of a query. Raises `SignatureError` when it has no canonical form."""
        return self._engine.compute_signature(query, kind=codec.kind, scope=scope, namespace=namespace)

    # -- forgetting ------------------------------------------------------------------------------------

    async def delete(self, key: CacheKey) -> bool:
        """Forget one answer, everywhere; flights under way for it are not stored. See the repository."""
        self._flights.detach(lambda flying: flying == key)
        return await self.repository.delete(key)

    async def clear(self, namespace: str | None = None) -> int:
        """Forget every answer of a namespace (default the cache's own); return how many went."""
        name = self.config.namespace if namespace is None else namespace
        self._flights.detach(lambda flying: flying.namespace == name)
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

    async def aclose(self) -> None:
        """Finish what is being stored on the running loop, close the connections.

        Calls that somebody still waits for go on, and get their answers.
        """
        await self._flights.aclose()
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

    def _sign(
        self, query: Any, *, codec: AnswerCodec, scope: Mapping[str, object] | None, namespace: str | None
    ) -> CacheKey | None:
        try:
            return self.key_of(query, codec=codec, scope=scope, namespace=namespace)
        except SignatureError as error:
            if error.path not in self._unsigned and len(self._unsigned) < 100:
                self._unsigned.add(error.path)
                _log.warning("not cached: %s", error)
            return None

    async def _resolve(self, job: Job) -> Resolution:
        since, may_wait = clock(), not is_held()
        for _ in range(_MOST_ROUNDS if may_wait else 0):
            landing, led = await self._flights.join(job.key, lambda: self._fly(job))
            if led or landing.serves(since=since):
                return resolutions.of_landing(job.key, landing, codec=job.codec, led=led)
        landing = await self._fly(job, may_wait=may_wait)
        return resolutions.of_landing(job.key, landing, codec=job.codec, led=True)

    def _fly(self, job: Job, *, may_wait: bool = True) -> Coroutine[Any, Any, Landing]:
        return self._crew.fly(job, self._tasks.current(), may_wait=may_wait)

    async def _read_or_call(self, job: Job) -> Resolution:
        try:
            await self.repository.ready()
            found = await self.repository.fetch(job.key, budget=Budget(self.config.lookup_budget))
        except (RepositoryError, ConfigError):
            return await self._call_only(job.call, job.key, Outcome.UNAVAILABLE, detail="unavailable")
        opened = self._shelf.open(job.codec, found) if found is not None else None
        if opened is not None:
            return resolutions.of_entry(job.key, opened.entry, opened.answer)
        return await self._call_only(job.call, job.key, Outcome.MISS, detail="")

    async def _call_only(
        self, call: Callable[[], Awaitable[Any]], key: CacheKey | None, outcome: Outcome, *, detail: str
    ) -> Resolution:
        answered = await call_provider(call, self._telemetry)
        self._telemetry.emit(ProviderCalled(seconds=answered.seconds, failed=False))
        return resolutions.of_call(key, answered.answer, outcome, detail=detail)

    async def _find_stream(self, job: StreamJob) -> tuple[AsyncGenerator[Any, None], Resolution]:
        tasks = self._tasks.current()
        turn = await self._streamer.find(job, tasks)
        if isinstance(turn, Replay):
            return _replayed(turn), resolutions.of_entry(job.key, turn.entry, None)
        outcome = Outcome.MISS if turn.reachable else Outcome.UNAVAILABLE
        return self._streamer.live(job, turn, tasks), resolutions.of_call(job.key, None, outcome)

    def _count(self, resolution: Resolution, *, face: Face, seconds: float) -> None:
        self._telemetry.emit(
            Resolved(
                outcome=resolution.outcome,
                face=face,
                seconds=seconds,
                saved=resolution.tokens_saved,
                saved_seconds=resolution.seconds_saved,
            )
        )


async def _replayed(replay: Replay) -> AsyncGenerator[Any, None]:
    for chunk in replay.chunks:
        yield chunk
