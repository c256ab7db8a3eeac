"""`Embedding`: one vector for one text, checked, shared and remembered; a fault costs a hit, no more."""

from __future__ import annotations

import asyncio
import contextvars
import math
import os
import subprocess
import sys
import threading
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcache_plugins.errors import ConfigError, EmbeddingFailed
from llmcache_plugins.semantic.embedders import MiniLMEmbedder, OpenAIEmbedder
from llmcache_plugins.semantic.embedding import Embedding
from llmcache_plugins.semantic.embedding.pace import Pace
from llmcache_plugins.testing.provider_server import Behaviour, hanging, server_error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from llmcache_plugins.testing.provider_server import Call, ProviderServer

BAD = "bad"


class Scripted:
    """An embedder that notes its batches, and waits before each until it may go on."""

    name = "scripted"
    dim = 3
    max_tokens: int | None = 50

    def __init__(self, rows: Callable[[Sequence[str]], Any] | None = None, *, is_open: bool = True) -> None:
        self._rows = rows or (lambda texts: [[float(ord(text[0])), len(text), 1.0] for text in texts])
        self.batches: list[list[str]] = []
        self.begun = asyncio.Semaphore(0)
        self.gate = asyncio.Event()
        self.cancelled = 0
        if is_open:
            self.gate.set()

    async def embed(self, texts: Sequence[str]) -> Any:
        self.batches.append(list(texts))
        self.begun.release()
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return self._rows(texts)


def raising(error: BaseException, *, only: str | None = None) -> Callable[[Sequence[str]], Any]:
    def rows(texts: Sequence[str]) -> Any:
        if only is None or only in texts:
            raise error
        return [[1.0, 0.0, 0.0] for _ in texts]

    return rows


async def outcome_of(embedding: Embedding, text: str) -> Any:
    try:
        return await embedding.vector(text)
    except EmbeddingFailed as error:
        return error


# --- What comes out ----------------------------------------------------------------------------------------


async def test_a_vector_is_of_unit_length_and_nobody_can_change_it():
    embedding = Embedding(Scripted(lambda texts: [[3.0, 0.0, 4.0] for _ in texts]))
    vector = await embedding.vector("a")
    np.testing.assert_allclose(vector, [0.6, 0, 0.8], atol=1e-7)
    assert (vector.dtype, vector.shape, vector.base) == (np.float32, (3,), None)
    with pytest.raises(ValueError, match="read-only"):
        vector[0] = 1
    assert (embedding.name, embedding.dim) == ("scripted", 3)


@given(st.lists(st.floats(width=32), min_size=3, max_size=3))
@settings(deadline=None)
def test_numbers_become_a_unit_vector_or_an_error(numbers: list[float]):
    async def main() -> Any:
        return await outcome_of(Embedding(Scripted(lambda _: [numbers])), "a")

    found = asyncio.run(main())
    if isinstance(found, EmbeddingFailed):
        assert not all(map(math.isfinite, numbers)) or math.hypot(*numbers) < 1e-11
    else:
        assert math.isclose(float(np.linalg.norm(found)), 1, abs_tol=1e-5)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([[1.0, 2.0]], "2 numbers where dim is 3"),
        ([[1.0, 2.0, 3.0]] * 2, r"the shape \(2, 3\), not \(1, 3\)"),
        ([1.0, 2.0, 3.0], "the shape"),
        ([[1.0, math.nan, 3.0]], "NaN or infinity"),
        ([[1.0, math.inf, 3.0]], "NaN or infinity"),
        ([[1e300, 0.0, 0.0]], "NaN or infinity"),
        ([[0.0, 0.0, 0.0]], "all zeros"),
        ([[0.0, 1e-30, 0.0]], "all zeros"),
        ([["a", "b", "c"]], "no array of numbers"),
        ([[1.0], [1.0, 2.0]], "no array of numbers"),
        ([[1j, 0, 0]], "no array of numbers"),
        (None, "no array of numbers"),
    ],
)
async def test_what_is_no_vector_is_an_error(rows: Any, words: str):
    embedding = Embedding(Scripted(lambda _: rows))
    with pytest.raises(EmbeddingFailed, match=words):
        await embedding.vector("a")
    assert embedding.cached("a") is None


async def test_one_bad_row_is_the_fault_of_one_text():
    embedder = Scripted(lambda texts: [[math.nan if text == BAD else 1.0, 0.0, 0.0] for text in texts])
    embedding = Embedding(embedder)
    found = await asyncio.gather(*(outcome_of(embedding, text) for text in ("a", BAD, "b")))
    assert [isinstance(one, EmbeddingFailed) for one in found] == [False, True, False]
    assert len(embedder.batches) == 1


async def test_what_the_embedder_raises_is_the_cause_and_the_text_is_not_said():
    embedding = Embedding(Scripted(raising(ValueError("your text: swordfish"))))
    with pytest.raises(EmbeddingFailed, match=r"^scripted raised ValueError$") as caught:
        await embedding.vector("swordfish")
    assert isinstance(caught.value.__cause__, ValueError)


@pytest.mark.parametrize("place", [0, 3, 7])
async def test_one_text_that_is_refused_does_not_take_the_others_along(place: int):
    texts = [f"text {number}" for number in range(8)]
    texts[place] = BAD
    embedder = Scripted(raising(ValueError("no"), only=BAD))
    embedding = Embedding(embedder)
    found = await asyncio.gather(*(outcome_of(embedding, text) for text in texts))
    assert [text for text, one in zip(texts, found, strict=True) if isinstance(one, EmbeddingFailed)] == [BAD]
    assert len(embedder.batches) == 7  # the whole, and two for each halving


async def test_an_embedder_that_is_down_is_called_twice_more_and_no_more():
    embedder = Scripted(raising(ConnectionError()))
    embedding = Embedding(embedder)
    found = await asyncio.gather(*(outcome_of(embedding, f"text {number}") for number in range(32)))
    assert all(isinstance(one, EmbeddingFailed) for one in found)
    assert [len(batch) for batch in embedder.batches] == [32, 16, 16]


async def test_an_embedder_that_cancels_its_own_call_has_failed():
    embedding = Embedding(Scripted(raising(asyncio.CancelledError())))
    with pytest.raises(EmbeddingFailed, match="cancelled its own call"):
        await embedding.vector("a")


# --- What is asked ------------------------------------------------------------------------------------------


@pytest.fixture
async def client(stand_in: ProviderServer) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=stand_in.base_url, api_key="any", max_retries=0) as client:
        yield client


async def test_one_text_is_embedded_once(stand_in: ProviderServer, client: openai.AsyncOpenAI):
    embedding = Embedding(OpenAIEmbedder(client, "m", dim=64))
    vectors = await asyncio.gather(*(embedding.vector(f"question {n % 5}") for n in range(50)))
    assert len({vector.tobytes() for vector in vectors}) == 5
    assert [len(call.request["input"]) for call in stand_in.received] == [5]
    assert embedding.cached("question 1") is vectors[1]
    assert await embedding.vector("question 1") is vectors[1]
    assert stand_in.calls == 1


async def test_who_comes_while_a_text_is_under_way_waits_for_it(
    stand_in: ProviderServer, client: openai.AsyncOpenAI
):
    stand_in.script(hanging())
    embedding = Embedding(OpenAIEmbedder(client, "m", dim=64))
    first = asyncio.create_task(embedding.vector("a"))
    await stand_in.called()
    second = asyncio.create_task(embedding.vector("a"))
    other = asyncio.create_task(embedding.vector("b"))
    await other  # an endpoint takes several batches at once
    stand_in.release()
    assert await first is await second
    assert stand_in.calls == 2


async def test_an_error_of_the_endpoint_that_is_not_about_the_texts_is_asked_once(
    stand_in: ProviderServer, client: openai.AsyncOpenAI
):
    def answer(call: Call) -> Behaviour | None:
        return server_error() if len(call.request["input"]) > 1 or "fail" in call.request["input"] else None

    stand_in.behave(answer)
    embedding = Embedding(OpenAIEmbedder(client, "m", dim=64))
    found = await asyncio.gather(outcome_of(embedding, "a"), outcome_of(embedding, "b"))
    assert [str(one) for one in found] == ["openai:m raised InternalServerError"] * 2
    assert stand_in.calls == 1
    assert (await embedding.vector("a")).shape == (64,)  # and the next one who asks is not answered from it


async def test_what_waits_travels_together():
    embedder = Scripted(is_open=False)
    embedding = Embedding(embedder, max_batch=4)
    asking = [asyncio.create_task(embedding.vector("first"))]
    await embedder.begun.acquire()
    asking += [asyncio.create_task(embedding.vector(f"text {number}")) for number in range(9)]
    await asyncio.sleep(0)
    embedder.gate.set()
    await asyncio.gather(*asking)
    assert [len(batch) for batch in embedder.batches] == [1, 4, 4, 1]


@pytest.mark.parametrize("turns", range(12))
async def test_a_text_that_comes_just_as_the_queue_is_done_is_embedded(turns: int):
    embedder = Scripted()
    embedding = Embedding(embedder)

    async def later() -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        await embedding.vector("later")

    async with asyncio.timeout(5):
        await asyncio.gather(embedding.vector("first"), later())
        await asyncio.gather(later(), embedding.vector("last"))
    assert sorted(chain.from_iterable(embedder.batches)) == ["first", "last", "later"]


async def test_the_oldest_is_forgotten():
    embedder = Scripted()
    embedding = Embedding(embedder, max_cached=2)
    for text in ("a", "b", "a", "c"):
        await embedding.vector(text)
    assert [embedding.cached(text) is not None for text in "abc"] == [True, False, True]
    forgetful = Embedding(embedder, max_cached=0)
    await forgetful.vector("a")
    assert forgetful.cached("a") is None


async def test_more_than_may_wait_are_refused_at_once():
    embedder = Scripted(is_open=False)
    embedding = Embedding(embedder, max_queue=3)
    asking = [asyncio.create_task(embedding.vector("under way"))]
    await embedder.begun.acquire()
    asking += [asyncio.create_task(embedding.vector(text)) for text in "abc"]
    await asyncio.sleep(0)
    with pytest.raises(EmbeddingFailed, match="3 texts wait"):
        await embedding.vector("d")
    assert embedding.expected_wait() == math.inf
    asking.append(asyncio.create_task(embedding.vector("a")))  # one more for a text that waits is none more
    embedder.gate.set()
    await asyncio.gather(*asking)
    assert embedding.expected_wait() == 0


async def test_a_batch_is_nobodys_context():
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="nobody")
    seen: list[str] = []

    def rows(texts: Sequence[str]) -> Any:
        seen.append(variable.get())
        return [[1.0, 0.0, 0.0] for _ in texts]

    variable.set("acme")
    await Embedding(Scripted(rows)).vector("a")
    assert seen == ["nobody"]


# --- What fits ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", " ", "\n\t \u3000", "x" * 102, "é" * 51, "日" * 34, "\ud800" * 34])
async def test_what_does_not_fit_is_never_embedded(text: str):
    embedder = Scripted()
    embedding = Embedding(embedder)
    assert not embedding.fits(text)
    with pytest.raises(EmbeddingFailed, match="blank, or more than scripted can read"):
        await embedding.vector(text)
    assert embedder.batches == []


@pytest.mark.parametrize("text", ["a", "x" * 101, "é" * 50])
async def test_what_fits(text: str):
    assert Embedding(Scripted()).fits(text)


def test_an_embedder_that_counts_is_believed():
    embedding = Embedding(MiniLMEmbedder())
    assert embedding.fits("word " * 254)
    assert not embedding.fits("word " * 255)
    assert not embedding.fits("one 🍎 a day")
    assert not embedding.fits("word " * 10_000_000)


def test_no_limit_is_no_limit():
    embedder = Scripted()
    embedder.max_tokens = None
    assert Embedding(embedder).fits("x" * 1_000_000)


# --- Who leaves, and what hangs -----------------------------------------------------------------------------


async def test_who_leaves_disturbs_nobody():
    embedder = Scripted(is_open=False)
    embedding = Embedding(embedder)
    leaving, staying = (asyncio.create_task(embedding.vector("a")) for _ in range(2))
    await embedder.begun.acquire()
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    embedder.gate.set()
    assert (await staying).shape == (3,)


async def test_what_nobody_waits_for_is_finished_if_it_has_begun_and_dropped_if_not():
    embedder = Scripted(is_open=False)
    embedding = Embedding(embedder)
    begun = asyncio.create_task(embedding.vector("begun"))
    await embedder.begun.acquire()
    waiting, twice = (asyncio.create_task(embedding.vector(text)) for text in ("waiting", "twice"))
    stays = asyncio.create_task(embedding.vector("twice"))
    await asyncio.sleep(0)
    for task in (begun, waiting, twice):
        task.cancel()
    await asyncio.gather(begun, waiting, twice, return_exceptions=True)
    embedder.gate.set()
    await stays
    assert embedder.batches == [["begun"], ["twice"]]
    assert embedding.cached("begun") is not None


async def test_a_batch_that_takes_too_long_has_failed_and_the_next_one_goes():
    embedder = Scripted(is_open=False)
    embedding = Embedding(embedder, timeout=0.05)
    found = await asyncio.gather(outcome_of(embedding, "a"), outcome_of(embedding, "b"))
    assert [str(one) for one in found] == ["scripted took longer than 0.05 s (timeout)"] * 2
    assert embedder.batches == [["a", "b"]]
    embedder.gate.set()
    assert (await embedding.vector("a")).shape == (3,)


class Stubborn(Scripted):
    """Hangs, and does not let itself be cancelled."""

    async def embed(self, texts: Sequence[str]) -> Any:
        self.batches.append(list(texts))
        while not self.gate.is_set():
            try:
                await self.gate.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
        return self._rows(texts)


async def test_an_embedder_that_cannot_be_cancelled_holds_up_nobody(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("llmcache_plugins.semantic.embedding.queue._LET_GO", 0.05)
    embedder = Stubborn(is_open=False)
    embedding = Embedding(embedder, timeout=0.05)
    assert isinstance(await outcome_of(embedding, "a"), EmbeddingFailed)
    assert isinstance(await outcome_of(embedding, "b"), EmbeddingFailed)
    async with asyncio.timeout(5):
        await embedding.aclose()
    embedder.gate.set()
    await asyncio.sleep(0)


async def test_closing_ends_what_is_under_way_and_what_waits():
    embedder = Scripted(is_open=False)
    embedding = Embedding(embedder, max_batch=1)
    asking = [asyncio.create_task(outcome_of(embedding, text)) for text in "ab"]
    await embedder.begun.acquire()
    await embedding.aclose()
    for found in await asyncio.gather(*asking, outcome_of(embedding, "c")):
        assert "closed" in str(found)
    assert embedder.cancelled == 1
    await embedding.aclose()
    embedder.gate.set()
    await embedding.open()
    assert (await embedding.vector("c")).shape == (3,)


def test_a_loop_that_ends_without_closing_leaves_no_complaint():
    embedding = Embedding(MiniLMEmbedder())

    async def main() -> None:
        tasks = [asyncio.create_task(embedding.vector(f"question {n}")) for n in range(100)]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)

    asyncio.run(main())
    assert asyncio.run(embedding.vector("later")).shape == (384,)


def test_every_loop_has_a_queue_of_its_own_and_all_remember_together():
    embedding = Embedding(MiniLMEmbedder())
    found: list[Any] = []

    async def ask() -> None:
        found.extend(await asyncio.gather(*(embedding.vector(f"question {n}") for n in range(10))))
        await embedding.aclose()

    threads = [threading.Thread(target=asyncio.run, args=(ask(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 40
    assert len({vector.tobytes() for vector in found}) == 10
    assert embedding.cached("question 3") is not None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_begins_with_an_empty_queue():
    code = """
import asyncio, os, warnings
from llmcache_plugins.semantic.embedders import MiniLMEmbedder
from llmcache_plugins.semantic.embedding import Embedding
warnings.filterwarnings("ignore", message=".*multi-threaded.*", category=DeprecationWarning)
embedding = Embedding(MiniLMEmbedder())
async def main():
    tasks = [asyncio.create_task(embedding.vector(f"question {n}")) for n in range(64)]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    if (child := await asyncio.to_thread(fork)) == 0:
        return
    await asyncio.gather(*tasks)
    code = os.waitstatus_to_exitcode(await asyncio.to_thread(lambda: os.waitpid(child, 0)[1]))
    print(code, embedding.expected_wait())
def fork():
    if (child := os.fork()) == 0:
        vector = asyncio.run(embedding.vector("question 63"))
        os._exit(0 if vector.shape == (384,) else 1)
    return child
asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.stdout, done.stderr) == ("0 0.0\n", "")


# --- Loading ------------------------------------------------------------------------------------------------


class Loading(Scripted):
    """One that has a model to load."""

    def __init__(self, *, errors: Sequence[Exception] = (), is_open: bool = True) -> None:
        super().__init__()
        self.loads = 0
        self.may_load = asyncio.Event()
        self._errors = list(errors)
        if is_open:
            self.may_load.set()

    async def load(self) -> None:
        self.loads += 1
        self.begun.release()
        await self.may_load.wait()
        if self._errors:
            raise self._errors.pop(0)


async def test_opening_loads_the_model_once():
    embedder = Loading()
    embedding = Embedding(embedder)
    await asyncio.gather(embedding.open(), embedding.open(), embedding.vector("a"))
    await embedding.open()
    assert embedder.loads == 1


async def test_a_first_question_loads_in_the_background():
    embedder = Loading(is_open=False)
    embedding = Embedding(embedder)
    assert embedding.expected_wait() == 0
    asking = asyncio.create_task(embedding.vector("a"))
    await embedder.begun.acquire()
    assert embedding.expected_wait() == math.inf
    asking.cancel()  # its budget is over
    await asyncio.gather(asking, return_exceptions=True)
    embedder.may_load.set()
    assert (await embedding.vector("b")).shape == (3,)
    assert (embedder.loads, embedder.batches) == (1, [["b"]])


async def test_closing_while_it_loads_cancels_nobody():
    embedder = Loading(is_open=False)
    embedding = Embedding(embedder)
    opening, asking = (
        asyncio.create_task(embedding.open()),
        asyncio.create_task(outcome_of(embedding, "a")),
    )
    await embedder.begun.acquire()
    await embedding.aclose()
    assert "closed" in str(await asking)
    with pytest.raises(EmbeddingFailed, match="could not be loaded"):
        await opening


async def test_what_is_configured_wrongly_is_said_when_opened_and_costs_a_hit_later():
    embedder = Loading(errors=[ConfigError("another hash")])
    embedding = Embedding(embedder)
    with pytest.raises(ConfigError, match="another hash"):
        await embedding.open()
    for _ in range(2):
        with pytest.raises(EmbeddingFailed, match="another hash"):
            await embedding.vector("a")
    assert (embedder.loads, embedder.batches) == (1, [])
    await embedding.open()  # put right
    assert (await embedding.vector("a")).shape == (3,)


async def test_a_loading_that_fails_for_once_is_tried_again():
    embedder = Loading(errors=[OSError("busy"), OSError("busy")])
    embedding = Embedding(embedder)
    with pytest.raises(EmbeddingFailed, match="could not be loaded") as caught:
        await embedding.open()
    assert isinstance(caught.value.__cause__, OSError)
    await embedding.vector("a")
    await embedding.vector("b")
    assert embedder.loads == 3


# --- How long it will take ----------------------------------------------------------------------------------


async def test_the_expected_wait_grows_with_the_queue_and_with_a_batch_that_hangs():
    embedder = Scripted(is_open=False)
    embedding = Embedding(embedder, max_batch=2)
    loop = asyncio.get_running_loop()
    first = asyncio.create_task(embedding.vector("a"))
    await embedder.begun.acquire()
    began = loop.time()
    await asyncio.sleep(0.05)
    embedder.gate.set()
    await first
    embedder.gate.clear()
    assert embedding.expected_wait() == 0
    asking = [asyncio.create_task(embedding.vector("b"))]
    await embedder.begun.acquire()
    one = embedding.expected_wait()
    assert 0 < one <= loop.time() - began
    asking += [asyncio.create_task(embedding.vector(f"text {number}")) for number in range(6)]
    await asyncio.sleep(0)
    assert embedding.expected_wait() > one + 3 * 0.05
    await asyncio.sleep(0.2)
    assert embedding.expected_wait() > 0.2 + 3 * 0.05  # it hangs: as long again
    embedder.gate.set()
    await asyncio.gather(*asking)
    assert embedding.expected_wait() == 0


def test_the_pace_of_an_endpoint_is_a_start_and_a_slope():
    pace = Pace()
    assert pace.seconds(10) == 0
    for texts in (1, 5, 20, 3, 12, 40, 7):
        pace.note(texts, 0.1 + 0.01 * texts)
    assert pace.seconds(30) == pytest.approx(0.4)


def test_a_pace_known_for_one_size_is_taken_by_the_text():
    pace = Pace()
    for _ in range(3):
        pace.note(2, 0.1)
    assert pace.seconds(4) == pytest.approx(0.2)


@given(st.lists(st.tuples(st.integers(1, 64), st.floats(0, 100)), max_size=20), st.integers(1, 64))
def test_an_expectation_is_never_negative_nor_without_bound(noted: list[tuple[int, float]], texts: int):
    pace = Pace()
    for one in noted:
        pace.note(*one)
    longest = max((seconds for _, seconds in noted), default=0)
    assert 0 <= pace.seconds(texts) <= 64 * longest + 1e-6


# --- At construction ----------------------------------------------------------------------------------------


class Nameless(Scripted):
    name = ""


class Flat(Scripted):
    dim = 0


class Greedy(Scripted):
    max_batch = -1


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Embedding(object()), "has name, dim, max_tokens and async embed"),
        (lambda: Embedding(Scripted), "has name, dim"),
        (lambda: Embedding(Nameless()), "non-empty string"),
        (lambda: Embedding(Flat()), "the dim of an embedder"),
        (lambda: Embedding(Greedy()), "the max_batch of an embedder"),
        (lambda: Embedding(Scripted(), max_batch=0), "max_batch"),
        (lambda: Embedding(Scripted(), max_queue=-1), "max_queue"),
        (lambda: Embedding(Scripted(), timeout=math.nan), "timeout"),
        (lambda: Embedding(Scripted(), max_cached=-1), "max_cached"),
    ],
)
def test_what_cannot_work_is_said_at_once(make: Callable[[], Any], words: str):
    with pytest.raises(ConfigError, match=words):
        make()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="tasks cannot be begun eagerly before")
def test_a_loop_that_begins_tasks_eagerly():
    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        embedder = Scripted()
        embedding = Embedding(embedder)
        async with asyncio.timeout(5):
            for text in "abc":
                await embedding.vector(text)
            await asyncio.gather(*(embedding.vector(text) for text in "defg"))
        await embedding.aclose()

    asyncio.run(main())
