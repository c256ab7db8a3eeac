"""The server as one event loop of one process sees it: connection, batches, breaker, owned tasks.

A link belongs to one (process, event loop) and is closed with its loop. Everything it sends runs in tasks
of its own: a caller that is cancelled or past its deadline never cuts a command in two, and connecting
outlives the caller that asked first (a 20 ms link would never connect within a 50 ms budget otherwise).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from redis.exceptions import NoScriptError

from llmcache_plugins.errors import ConfigError, EmbeddedServerError, LLMCacheError, RepositoryUnavailable
from llmcache_plugins.loops import Tasks
from llmcache_plugins.repository.batching import MOST_IN_FLIGHT, FetchBatcher, RawEntry, ScriptBatcher
from llmcache_plugins.repository.breaker import Breaker
from llmcache_plugins.repository.express import NotThisWay
from llmcache_plugins.repository.faults import FAULTS, Fault, classify, translate
from llmcache_plugins.repository.scripts import SCRIPTS
from llmcache_plugins.repository.wakes import Wakes
from llmcache_plugins.telemetry import BreakerChanged, Telemetry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence

    from llmcache_plugins.budget import Budget
    from llmcache_plugins.repository.scripts import Argument, KeyNames
    from llmcache_plugins.repository.topology import Group, Topology
    from llmcache_plugins.repository.touches import Touches

    ScriptCall: TypeAlias = tuple[KeyNames, Mapping[str, Argument], Sequence[Argument]]

__all__ = ["Link"]

T = TypeVar("T")
_log = logging.getLogger("llmcache_plugins")

_SOURCES = [script.source for script in SCRIPTS.values()]

_ATTEMPTS = 3
"""To connect, while it is our own loop that takes the time."""
PROBE_EVERY = 1.0
"""Seconds between two signs of life asked of a server that is away."""


class Link:
    """One connection pool and what goes with it."""

    def __init__(
        self, topology: Topology, *, telemetry: Telemetry, command_timeout: float, wake_patience: float
    ) -> None:
        self.topology = topology
        self._telemetry = telemetry
        self._timeout = command_timeout
        self._breaker = Breaker()
        self._tasks = Tasks()
        self.spawn = self._tasks.spawn
        self.touches: Touches | None = None
        self.before_close: list[Callable[[], Awaitable[object]]] = []
        """What is still to be told the server; it must not raise, nor wait for long."""
        self._opening: asyncio.Task[None] | None = None
        self._at_loop_end: AsyncIterator[None] | None = None
        self._misconfigured: ConfigError | None = None
        self._complaints: set[str] = set()
        self._is_closed = False
        self._hastening: asyncio.Task[None] | None = None
        # So that the pool has connections left for the batches.
        self._apart = asyncio.Semaphore(MOST_IN_FLIGHT)
        self._reads = FetchBatcher(read=self._read_groups, read_now=self._read_now, spawn=self._tasks.spawn)
        self._scripts = ScriptBatcher(run=self._run_commands, run_now=self._run_now, spawn=self._tasks.spawn)
        self.wakes = Wakes(
            subscriber=topology.subscriber,
            spawn=self._tasks.spawn,
            # Not for the breaker: what it says of the server, commands find out by themselves.
            on_fault=lambda error: self._complain(translate(error)),
            patience=wake_patience,
        )

    @property
    def is_known_bad(self) -> bool:
        """Whether the server is known to be away or to be the wrong one."""
        return self._breaker.is_open or self._misconfigured is not None

    @property
    def is_open(self) -> bool:
        """Whether it is connected, or was: a lost connection is found out by the next command."""
        return self._opening is not None and self._opening.done() and not _has_failed(self._opening)

    def opened(self) -> asyncio.Task[None]:
        """Return the task that connects, checks the kind of server and loads the scripts."""
        if self._opening is None or _has_failed(self._opening):
            self._opening = self.spawn(self._open())
        return self._opening

    async def opened_wholly(self) -> None:
        """Wait for that, and for the connection for quick reads."""
        await asyncio.shield(self.opened())
        if self._hastening is not None:
            await asyncio.shield(self._hastening)

    def fetch(self, *, root: str, entry: str) -> asyncio.Future[RawEntry | Exception]:
        """Read one entry with all other reads of this turn of the loop.

        Raises at once when the server is known to be away.
        """
        self._require_available()
        return self._reads.fetch(self.topology.lane(root), root=root, entry=entry)

    async def run(
        self,
        name: str,
        keys: KeyNames,
        arguments: Mapping[str, Argument],
        rest: Sequence[Argument] = (),
        *,
        insist: bool = False,
    ) -> Any:
        """Run a script, with all others of this turn. `insist` asks even a server known to be away.

        A caller that is cancelled takes nothing back: what was asked is still done.
        """
        return _value(await self.start(name, keys, arguments, rest, insist=insist))

    def start(
        self,
        name: str,
        keys: KeyNames,
        arguments: Mapping[str, Argument],
        rest: Sequence[Argument] = (),
        *,
        insist: bool = False,
    ) -> asyncio.Future[Any]:
        """Do the same without waiting; the reply may be an exception. Raises when the server is known bad."""
        if not insist:
            self._require_available()
        command = SCRIPTS[name].command(keys, arguments, rest)
        return self._scripts.run(self.topology.lane(keys.root), command)

    async def run_apart(self, name: str, calls: Sequence[ScriptCall]) -> list[Any]:
        """Run a script with each of these calls, past who waits for quick answers.

        For long replies: one round trip to each node, on connections that no lookup shares.
        """
        commands = [SCRIPTS[name].command(*call) for call in calls]
        self._require_available()
        async with self._apart:
            return list(map(_value, await self._run_commands(commands)))

    async def send(self, root: str, command: Sequence[Argument]) -> Any:
        """Send a command that may be repeated, with all scripts of this turn."""
        self._require_available()
        return _value(await self._scripts.run(self.topology.lane(root), command))

    async def ask(self, commands: Sequence[Sequence[Argument]]) -> Sequence[Any]:
        """Send commands that the server may refuse: that is no fault, and is returned as it was said."""
        self._require_available()
        async with self._apart:
            return await self._guarded(lambda: self.topology.run(commands))

    async def owned(self, work: Coroutine[Any, Any, T], budget: Budget | None) -> T:
        """Do some work in a task of its own, and wait for it within a budget. A caller may be cancelled."""
        task = self.spawn(work)
        return await (budget.wait_for(task) if budget else asyncio.shield(task))

    async def run_replicated(
        self,
        name: str,
        call: ScriptCall,
        *,
        replicas: int,
        patience: float,
    ) -> tuple[Any, int]:
        """Run a script, and wait until so many replicas have what it wrote.

        Returns its reply, and how many replicas have acknowledged within `patience` seconds. Asks even a
        server known to be away.
        """
        command = SCRIPTS[name].command(*call)
        run = partial(self.topology.run_replicated, command, replicas=replicas, patience=patience)
        reply, acknowledged = await self._guarded(run, patience=patience)
        if isinstance(reply, NoScriptError):
            await self._guarded(lambda: self.topology.load(_SOURCES))
            reply, acknowledged = await self._guarded(run, patience=patience)
        if isinstance(reply, Exception):
            raise self._translated(reply) from reply
        return reply, acknowledged

    async def scan(self, pattern: str) -> AsyncIterator[list[str]]:
        """Yield pages of the keys that match."""
        try:
            async for page in self.topology.scan(pattern):
                yield page
        except FAULTS as error:
            raise translate(error) from error

    async def aclose(self) -> None:
        """Close what this link opened and end its tasks. May be called twice."""
        if self._at_loop_end is not None:
            closer, self._at_loop_end = self._at_loop_end, None
            await closer.aclose()  # type: ignore[attr-defined]
        else:
            await self._close()

    async def _run_commands(self, commands: Sequence[Sequence[Any]]) -> Sequence[Any]:
        replies = list(await self._guarded(lambda: self.topology.run(commands)))
        if any(isinstance(reply, NoScriptError) for reply in replies):
            # The server was restarted, or another node has become the owner of the slot.
            again = [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
            await self._guarded(lambda: self.topology.load(_SOURCES))
            rerun = await self._guarded(lambda: self.topology.run([commands[i] for i in again]))
            for i, reply in zip(again, rerun, strict=True):
                replies[i] = reply
        return [self._translated(reply) if isinstance(reply, Exception) else reply for reply in replies]

    def _read_now(self, keys: list[str], then: Callable[[Any], None]) -> bool:
        express = self.topology.express()
        if express is None:
            return False

        express.ask(("MGET", *keys), partial(self._heard, then))
        return True

    def _run_now(
        self, commands: Sequence[tuple[Argument, ...]], thens: Sequence[Callable[[Any], None]]
    ) -> bool:
        express = self.topology.express()
        if express is None:
            return False
        express.ask_all(commands, [partial(self._heard, then) for then in thens])
        return True

    def _heard(self, then: Callable[[Any], None], reply: Any) -> None:
        if not isinstance(reply, Exception):
            self._breaker.succeeded()
        elif not isinstance(reply, NotThisWay):
            sent, reply = reply, self._translated(reply)
            # Whoever asked wants to know that it was sent: it may have been carried out.
            reply.__cause__ = sent
        then(reply)

    def _hasten(self) -> None:
        """Open the connection for quick reads, if there is none."""
        if self._is_closed or not self.topology.lacks_express:
            return
        if self._hastening is None or self._hastening.done():
            self._hastening = self.spawn(self.topology.open_express())

    async def _read_groups(self, groups: Sequence[Sequence[str]]) -> Sequence[Group | Exception]:
        replies = await self._guarded(lambda: self.topology.read(groups))
        self._hasten()
        return [self._translated(reply) if isinstance(reply, Exception) else reply for reply in replies]

    async def _guarded(self, operation: Callable[[], Coroutine[Any, Any, T]], *, patience: float = 0.0) -> T:
        """Do one operation with a last deadline, the breaker's eye on it and our errors.

        `patience` is for how many seconds it waits on purpose.
        """
        await asyncio.shield(self.opened())
        try:
            # A client that was handed in may retry for a minute.
            async with asyncio.timeout(self._timeout + patience):
                reply = await operation()
        except LLMCacheError:
            raise
        except Exception as error:
            raise self._translated(error) from error
        self._breaker.succeeded()
        return reply

    def _translated(self, error: Exception) -> Exception:
        self._note(classify(error))
        translated = translate(error)
        if isinstance(translated, ConfigError):
            self._misconfigured = translated
        self._complain(translated)
        return translated

    def _note(self, fault: Fault) -> None:
        if fault in (Fault.AWAY, Fault.TIMEOUT) and self._breaker.failed(timeout=fault is Fault.TIMEOUT):
            self._open_breaker()

    def _open_breaker(self) -> None:
        self._telemetry.emit(BreakerChanged(open=True))
        _log.warning("the cache's server does not answer; calls go to the provider until it does")
        self.spawn(self._probe())

    async def _probe(self) -> None:
        try:
            while self._breaker.is_open:
                await asyncio.sleep(PROBE_EVERY)
                with contextlib.suppress(Exception):  # whatever it is, the server has not answered
                    await self._sign_of_life()
                    self._breaker.close()
        finally:
            # A link that is closed meanwhile has nobody who asks: what tells of it must not say so for ever.
            self._telemetry.emit(BreakerChanged(open=False))
        _log.warning("the cache's server answers again")

    async def _sign_of_life(self) -> None:
        if self._opening is None or _has_failed(self._opening):
            await asyncio.shield(self.opened())
        async with asyncio.timeout(self._timeout):
            await self.topology.ping()

    async def _open(self) -> None:
        if self._at_loop_end is None:
            self._at_loop_end = _close_with_loop(self)
            await anext(self._at_loop_end)
        try:
            await self._connect()
            # Beside the first call, which waits for the rest.
            self._hasten()
        except ConfigError as error:
            self._misconfigured = error
            self._complain(error)
            raise
        except EmbeddedServerError as error:
            # Each attempt takes seconds: one is enough to know.
            self._complain(error)
            if self._breaker.trip():
                self._open_breaker()
            raise
        except Exception as error:
            raise self._translated(error) from error

    async def _connect(self) -> None:
        """Connect, and again if it was our own loop that took the time."""
        for attempt in range(_ATTEMPTS):
            began, computing = time.monotonic(), time.thread_time()
            try:
                await self.topology.open()
                await self.topology.load(_SOURCES)
            except Exception as error:
                elapsed, computed = time.monotonic() - began, time.thread_time() - computing
                # No timer of the client's is as long: it fired late, because somebody blocked the loop.
                is_ours = elapsed > self._timeout or computed > elapsed / 4
                if attempt == _ATTEMPTS - 1 or classify(error) is not Fault.TIMEOUT or not is_ours:
                    raise
            else:
                return

    def _require_available(self) -> None:
        if self._misconfigured is not None:
            raise self._misconfigured
        if self._breaker.is_open:
            raise RepositoryUnavailable("the server did not answer lately; it is asked again every second")

    def _complain(self, error: Exception) -> None:
        """Say each thing once: a blip must not cost a minute of tracebacks."""
        text = str(error)
        if text not in self._complaints and len(self._complaints) < 100:
            self._complaints.add(text)
            _log.error("%s", text) if isinstance(error, ConfigError) else _log.warning("%s", text)

    async def _close(self) -> None:
        # A task that connects may outlive its cancellation (asyncio.wait_for on Python 3.11).
        self._is_closed = True
        for tell in self.before_close:
            await tell()
        self._reads.close()
        self._scripts.close()
        await self._tasks.cancel()
        with contextlib.suppress(Exception):  # nothing more can be done with it
            await self.topology.aclose()


async def _close_with_loop(link: Link) -> AsyncIterator[None]:
    """Close a link when its loop shuts down: a loop closes the async generators that were begun on it."""
    try:
        yield
    finally:
        await link._close()  # noqa: SLF001


def _has_failed(task: asyncio.Task[None]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)


def _value(reply: Any) -> Any:
    """Return a reply; raise one that is an exception."""
    if isinstance(reply, Exception):
        raise reply
    return reply
