"""One vector for one text, from any embedder: checked, shared, remembered, and never in anybody's way.

Owns the queue. The texts of one turn of the event loop, and those that come while a batch is under way,
travel together; who asks for a text that is under way waits for that one. Whoever waits may leave at any
time: what has been begun is finished and remembered, what has not is dropped. Knows nothing of questions,
scopes and indexes.

One object serves all event loops of a process: what is remembered is common, queues are each loop's own.
After a fork the child begins with empty queues.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

from llmcache_plugins.errors import ConfigError, EmbeddingFailed
from llmcache_plugins.loops import PerLoop
from llmcache_plugins.semantic.embedders.rows import as_rows, fault_of, normalized
from llmcache_plugins.semantic.embedders.seam import checked
from llmcache_plugins.semantic.embedding.memory import Memory
from llmcache_plugins.semantic.embedding.pace import Pace

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from llmcache_plugins.models import Usage
    from llmcache_plugins.semantic.embedders.rows import Rows
    from llmcache_plugins.semantic.embedders.seam import Billed, Embedder

__all__ = ["Embedding"]

T = TypeVar("T")

_BYTES_PER_TOKEN: Final = 2
"""What a token has at least, where an embedder does not count: half of what it has in English."""
_LONGEST_TOKEN: Final = 32
"""Characters for each token beyond which a text is too long without being counted."""
_LET_GO: Final = 1.0
"""Seconds that closing waits for an embedder to end."""
_CLOSED: Final = "the embedding was closed; open() it again"
_ABOUT_THE_TEXTS: Final = (None, 400, 413, 422)
"""HTTP statuses that may mean one text of a batch. None: the error has no status."""


@dataclass(slots=True)
class _Asked:
    """A text that is wanted, and by how many."""

    text: str
    # Resolves to an error rather than with one: what nobody is left to hear of must not be complained about.
    outcome: asyncio.Future[Rows | EmbeddingFailed]
    callers: int = 0


@dataclass(slots=True, eq=False)
class _Running:
    texts: int
    since: float


@dataclass(slots=True)
class _Desk:
    """What one event loop has under way."""

    asked: dict[str, _Asked] = field(default_factory=dict)
    """By text; those that wait and those that are being embedded."""
    queue: OrderedDict[str, _Asked] = field(default_factory=OrderedDict)
    running: list[_Running] = field(default_factory=list)
    pumps: set[asyncio.Task[None]] = field(default_factory=set)
    calls: set[asyncio.Task[Rows]] = field(default_factory=set)
    """Those of the embedder, those included that it was not worth waiting for."""
    loading: asyncio.Task[None] | None = None
    is_closed: bool = False


class Embedding:
    """Vectors of an embedder. Usable from any event loop.

    Remembers the vectors of the last `max_cached` texts. A batch has at most `max_batch` texts, and at most
    `max_queue` may wait on one loop: more raise at once. A batch that takes longer than `timeout` seconds has
    failed. The embedder stays the caller's: closing this does not close it. Raises `ConfigError` for
    something that is no embedder, and for numbers that cannot work.
    """

    def __init__(
        self,
        embedder: Embedder,
        *,
        max_cached: int = 4096,
        max_batch: int = 64,
        max_queue: int = 256,
        timeout: float = 30.0,
    ) -> None:
        self._embedder: Any = checked(embedder)
        self.on_bill: Callable[[str, Usage], None] = lambda model, usage: None
        """Told what an embedder has cost, by its model."""
        for name, value in {"max_batch": max_batch, "max_queue": max_queue, "timeout": timeout}.items():
            if not value > 0:
                raise ConfigError(f"{name} must be a positive number, not {value!r}")
        if max_cached < 0:
            raise ConfigError(f"max_cached must be 0 or more, not {max_cached!r}")
        self._max_batch = min(max_batch, getattr(embedder, "max_batch", None) or max_batch)
        self._concurrency: int = getattr(embedder, "concurrency", None) or 1
        self._max_queue = max_queue
        self._timeout = timeout
        self._memory = Memory(max_cached)
        self._pace = Pace()
        self._is_ready = not hasattr(embedder, "load")
        self._cannot_load: ConfigError | None = None
        self._load_error: Exception | None = None
        self._desks: PerLoop[_Desk] = PerLoop(_Desk)

    @property
    def name(self) -> str:
        """The embedder's."""
        return str(self._embedder.name)

    @property
    def dim(self) -> int:
        """How many numbers a vector has."""
        return int(self._embedder.dim)

    async def open(self) -> None:
        """Load the model, if the embedder has one to load: the first question need not wait for it.

        Raises `ConfigError` when it cannot be loaded as things are, `EmbeddingFailed` for anything else.
        Cancelled, it leaves the loading to go on.
        """
        desk = self._desks.current()
        desk.is_closed = False
        self._cannot_load = None
        await self._loaded(desk)
        if self._cannot_load is not None:
            raise self._cannot_load
        if not self._is_ready:
            raise EmbeddingFailed(f"{self.name} could not be loaded") from self._load_error

    async def aclose(self) -> None:
        """End what the running loop has under way; those who wait get `EmbeddingFailed`.

        Takes a second at most, whatever the embedder does.
        """
        desk = self._desks.current()
        desk.is_closed = True
        _settle_all(desk, _CLOSED)
        tasks = [*desk.pumps, *desk.calls, *([] if desk.loading is None else [desk.loading])]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_LET_GO)

    def fits(self, text: str) -> bool:
        """Say whether the embedder sees all of a text; not of one that is blank."""
        if not text or text.isspace():
            return False
        limit: int | None = self._embedder.max_tokens
        if limit is not None:
            if len(text) > _LONGEST_TOKEN * limit:
                return False
            count: Callable[[str], int] | None = getattr(self._embedder, "count_tokens", None)
            size = _estimate(text) if count is None else count(text)
            if size > limit:
                return False
        can_read: Callable[[str], bool] | None = getattr(self._embedder, "can_read", None)
        return can_read is None or can_read(text)

    def cached(self, text: str) -> Rows | None:
        """Return the vector of a text, shape (dim,), if it is remembered."""
        return self._memory.get(text)

    @property
    def is_loading(self) -> bool:
        """Whether the model is being loaded on the running loop."""
        loading = self._desks.current().loading
        return loading is not None and not loading.done()

    def expected_wait(self) -> float:
        """Return the seconds after which a text that is put in the queue now is likely to be begun with.

        0 when its batch would go at once; infinite while the model is being loaded, and when the queue is
        full. A batch that takes longer than those before is expected to take as long again.
        """
        desk = self._desks.current()
        if self.is_loading:
            return math.inf
        if len(desk.queue) >= self._max_queue:
            return math.inf
        if len(desk.running) < self._concurrency:
            return 0.0
        now = asyncio.get_running_loop().time()
        rest = min(self._rest_of(batch, now) for batch in desk.running)
        batches = len(desk.queue) // self._max_batch
        return rest + batches * self._pace.seconds(self._max_batch) / self._concurrency

    async def vector(self, text: str) -> Rows:
        """Return the vector of a text: shape (dim,), unit length, read-only.

        Raises `EmbeddingFailed` for a text that does not fit, when too many wait, when the embedder fails,
        takes too long or gives something that is no vector, and when this is closed. A caller that is
        cancelled leaves alone.
        """
        if (known := self._memory.get(text)) is not None:
            return known
        desk = self._desks.current()
        asked = desk.asked.get(text) or self._ask(desk, text)
        asked.callers += 1
        try:
            outcome = await asyncio.shield(asked.outcome)
        finally:
            asked.callers -= 1
            if not asked.callers and desk.queue.get(text) is asked:
                del desk.queue[text], desk.asked[text]
        if isinstance(outcome, EmbeddingFailed):
            # Each caller raises one of its own: a shared one would collect their tracebacks.
            raise EmbeddingFailed(*outcome.args) from outcome.__cause__
        return outcome

    def _ask(self, desk: _Desk, text: str) -> _Asked:
        if desk.is_closed:
            raise EmbeddingFailed(_CLOSED)
        if not self.fits(text):
            raise EmbeddingFailed(f"the text is blank, or more than {self.name} can read; ask fits() first")
        if len(desk.queue) >= self._max_queue:
            raise EmbeddingFailed(f"{self._max_queue} texts wait for {self.name} already (max_queue)")
        asked = _Asked(text, asyncio.get_running_loop().create_future())
        desk.asked[text] = desk.queue[text] = asked
        if len(desk.pumps) < self._concurrency:
            pump = _spawn(self._pump(desk), desk.pumps)
            pump.add_done_callback(lambda _: self._pump_ended(desk))
        return asked

    # The pumps: each takes a batch, and another, until none waits.

    async def _pump(self, desk: _Desk) -> None:
        try:
            await self._loaded(desk)
            while desk.queue:
                await self._settle_batch(desk, self._next_batch(desk))
        finally:
            # At once, not when its end is told: who asks in between must find no pump that takes nothing.
            desk.pumps.discard(asyncio.current_task())

    def _next_batch(self, desk: _Desk) -> list[_Asked]:
        size = min(len(desk.queue), self._max_batch)
        return [desk.queue.popitem(last=False)[1] for _ in range(size)]

    def _pump_ended(self, desk: _Desk) -> None:
        if not desk.pumps:
            # It was cancelled with its loop, perhaps before its first step; else nothing is left.
            _settle_all(desk, "the embedding was cancelled")

    async def _settle_batch(self, desk: _Desk, batch: list[_Asked]) -> None:
        """Embed a batch; if it fails, find the one text for which it fails.

        It is tried again in halves. When both fail it is not the text, and all have failed: an embedder that
        is down is called twice more.
        """
        error = await self._try(desk, batch)
        while error is not None and len(batch) > 1 and _may_be_one_text(error):
            middle = len(batch) // 2
            errors = [(half, await self._try(desk, half)) for half in (batch[:middle], batch[middle:])]
            failed = [(half, wrong) for half, wrong in errors if wrong is not None]
            if len(failed) != 1:
                break
            ((batch, error),) = failed
        if error is not None:
            for asked in batch:
                _settle(desk, asked, error)

    async def _try(self, desk: _Desk, batch: Sequence[_Asked]) -> EmbeddingFailed | None:
        """Embed texts and settle each; or settle none, and return why."""
        clock = asyncio.get_running_loop().time
        running = _Running(len(batch), clock())
        desk.running.append(running)
        try:
            rows = await self._rows_of(desk, [asked.text for asked in batch])
        except EmbeddingFailed as error:
            return error
        finally:
            desk.running.remove(running)
        self._pace.note(len(batch), clock() - running.since)
        for asked, row in zip(batch, rows, strict=True):
            if (fault := fault_of(row)) is not None:
                _settle(desk, asked, EmbeddingFailed(f"{self.name} gave a vector that {fault}"))
                continue
            own = row.copy()  # not a view that keeps the batch alive
            own.setflags(write=False)
            self._memory.put(asked.text, own)
            _settle(desk, asked, own)
        return None

    async def _rows_of(self, desk: _Desk, texts: list[str]) -> Rows:
        if self._cannot_load is not None:
            raise EmbeddingFailed(str(self._cannot_load)) from self._cannot_load
        # A task of its own: an embedder that does not let itself be cancelled holds up nobody.
        call = _spawn(self._called(texts), desk.calls)
        try:
            await asyncio.wait((call,), timeout=self._timeout)
            if not call.done():
                raise _TookTooLong(f"{self.name} took longer than {self._timeout} s (timeout)")
        finally:
            call.cancel()
        if call.cancelled():
            raise EmbeddingFailed(f"{self.name} cancelled its own call")
        return call.result()

    async def _called(self, texts: list[str]) -> Rows:
        try:
            raw = await self._asked(texts)
            return normalized(as_rows(raw, count=len(texts), dim=self.dim, name=self.name))
        except EmbeddingFailed:
            raise
        except Exception as error:
            raise EmbeddingFailed(f"{self.name} raised {type(error).__name__}") from error

    async def _asked(self, texts: list[str]) -> Any:
        ask: Callable[..., Coroutine[Any, Any, Billed]] | None
        ask = getattr(self._embedder, "embed_billed", None)
        if ask is None:
            return await self._embedder.embed(texts)
        billed = await ask(texts)
        if billed.usage is not None:
            self.on_bill(billed.model, billed.usage)
        return billed.rows

    # The model.

    async def _loaded(self, desk: _Desk) -> None:
        """Wait until the model is loaded, or cannot be; whoever leaves, the loading goes on."""
        if self._is_ready or self._cannot_load is not None:
            return
        if desk.loading is None or desk.loading.done():
            desk.loading = _spawn(self._load())
        await asyncio.wait((desk.loading,))

    async def _load(self) -> None:
        try:
            await self._embedder.load()
        except ConfigError as error:
            self._cannot_load = error
        except Exception as error:  # noqa: BLE001 - the embedder's own; `embed` meets it again
            self._load_error = error
        else:
            self._is_ready = True

    def _rest_of(self, batch: _Running, now: float) -> float:
        gone = now - batch.since
        expected = self._pace.seconds(batch.texts)
        return expected - gone if gone < expected else gone


class _TookTooLong(EmbeddingFailed):
    """Not to be tried again at once: the time of those who wait is over."""


def _may_be_one_text(error: EmbeddingFailed) -> bool:
    return (
        not isinstance(error, _TookTooLong)
        and getattr(error.__cause__, "status_code", None) in _ABOUT_THE_TEXTS
    )


def _estimate(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass")) // _BYTES_PER_TOKEN


def _settle(desk: _Desk, asked: _Asked, outcome: Rows | EmbeddingFailed) -> None:
    """Tell those who wait for a text; once."""
    if asked.outcome.done():
        return
    asked.outcome.set_result(outcome)
    for waiting in (desk.asked, desk.queue):
        if waiting.get(asked.text) is asked:
            del waiting[asked.text]


def _settle_all(desk: _Desk, why: str) -> None:
    for asked in list(desk.asked.values()):
        _settle(desk, asked, EmbeddingFailed(why))


def _spawn(work: Coroutine[Any, Any, T], kept_in: set[asyncio.Task[T]] | None = None) -> asyncio.Task[T]:
    # In a context of its own: a batch belongs to many, and nobody's trace or tenant is everybody's.
    task = asyncio.get_running_loop().create_task(work, context=contextvars.Context())
    if kept_in is not None and not task.done():  # where tasks are begun eagerly it may be
        kept_in.add(task)
        task.add_done_callback(kept_in.discard)
    task.add_done_callback(_heard)
    return task


def _heard(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()  # whoever waited may be gone
