"""How long a call of LangChain waits for an identical one that has ended, in whatever way: the table of
docs/langchain.md, row by row.

Two caches stand for two processes, except where one is killed. Whoever does not hear of an end would wait
for a minute: so late would it ask again, end a lease or give a leader up.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import signal
import sys
import textwrap
import threading
from collections import defaultdict, deque
from typing import TYPE_CHECKING, Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.llms import LLM
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult, LLMResult
from langchain_core.runnables import RunnableGenerator, RunnableLambda
from langchain_core.runnables.config import get_async_callback_manager_for_config
from waiting import wait_until, wait_until_async

from llmcache_plugins import ResponseCache
from llmcache_plugins.adapters.langchain import LangChainCache
from llmcache_plugins.cache.errands import Errand

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine

    from servers import Server

PATIENT = {"lookup_budget": 5.0, "commit_budget": 5.0, "socket_timeout": 5.0}
SLOW = {**PATIENT, "poll_interval": 60.0, "lease_ttl": 60.0, "max_lead": 120.0}
SOON = 10.0
"""Seconds within which what happens at once has happened, on a busy machine."""


class Interrupted(BaseException):
    """What a signal raises in the midst of a synchronous call, as Ctrl-C or a worker's time limit do."""


class Provider:
    """Answers at once, or when a test says so; may be asked from any thread and any loop."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._held: dict[str, deque[concurrent.futures.Future[None]]] = defaultdict(deque)
        self._all_held: list[concurrent.futures.Future[None]] = []

    def hold(self, prompt: str) -> concurrent.futures.Future[None]:
        """Let the next call with this prompt wait until the future has a result, or raise its exception."""
        held: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._held[prompt].append(held)
        self._all_held.append(held)
        return held

    def let_go(self) -> None:
        """End every call."""
        for held in self._all_held:
            held.cancel()

    def ask(self, prompt: str) -> str:
        if (held := self._arrive(prompt)) is not None:
            held.result(60)
        return f"answer to {prompt}"

    async def aask(self, prompt: str) -> str:
        if (held := self._arrive(prompt)) is not None:
            await asyncio.wrap_future(held)
        return f"answer to {prompt}"

    async def was_asked(self, prompt: str, times: int) -> None:
        await wait_until_async(
            lambda: self.asked.count(prompt) >= times, description=f"{times} calls with {prompt!r}"
        )

    def _arrive(self, prompt: str) -> concurrent.futures.Future[None] | None:
        self.asked.append(prompt)
        return self._held[prompt].popleft() if self._held[prompt] else None


class Chat(BaseChatModel):
    """A chat model that asks a `Provider`."""

    provider: Any
    temperature: float = 0.0

    @property
    def _llm_type(self) -> str:
        return "chat"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"temperature": self.temperature}

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **_: Any) -> ChatResult:
        return _result(self.provider.ask(messages[-1].content))

    async def _agenerate(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **_: Any
    ) -> ChatResult:
        return _result(await self.provider.aask(messages[-1].content))


class Routing(Chat):
    """One that asks its cache in the caller's task, and hands its call on to another model."""

    async def agenerate(self, messages: Any, *_: Any, **__: Any) -> LLMResult:
        results = [await self._agenerate_with_cache(message) for message in messages]
        return LLMResult(generations=[result.generations for result in results])

    async def _agenerate(self, messages: Any, *_: Any, **__: Any) -> ChatResult:
        inner = Chat(provider=self.provider, cache=False)
        return ChatResult(generations=[ChatGeneration(message=await inner.ainvoke(messages))])


class Managing(Chat):
    """One that asks its cache in the caller's task, and tells its callbacks by itself."""

    async def agenerate(self, messages: Any, *_: Any, callbacks: Any = None, **__: Any) -> LLMResult:
        manager = get_async_callback_manager_for_config({"callbacks": callbacks})
        generations = []
        for message, run in zip(messages, await manager.on_chat_model_start({}, messages), strict=True):
            try:
                generations.append((await self._agenerate_with_cache(message, run_manager=run)).generations)
            except Exception as error:
                await run.on_llm_error(error)
                raise
        return LLMResult(generations=generations)


class Streaming(Chat):
    """One that says its answer in pieces; the provider may hold the last one back."""

    async def _astream(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **_: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        prompt = messages[-1].content
        yield ChatGenerationChunk(message=AIMessageChunk("answer to "))
        await self.provider.aask(prompt)
        yield ChatGenerationChunk(message=AIMessageChunk(prompt))


class Completion(LLM):
    """A completion model that asks a `Provider`."""

    provider: Any
    temperature: float = 0.0

    @property
    def _llm_type(self) -> str:
        return "completion"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"temperature": self.temperature}

    def _call(self, prompt: str, stop: Any = None, run_manager: Any = None, **_: Any) -> str:
        answer: str = self.provider.ask(prompt)
        return answer

    async def _acall(self, prompt: str, stop: Any = None, run_manager: Any = None, **_: Any) -> str:
        answer: str = await self.provider.aask(prompt)
        return answer


def _result(text: str) -> ChatResult:
    return ChatResult(generations=[ChatGeneration(message=AIMessage(text))])


Begin = "Callable[[Any, str], Awaitable[Any]]"


def in_thread(call: Callable[[Any, str], Any]) -> Begin:
    return lambda model, prompt: asyncio.to_thread(call, model, prompt)


# "known" is in the cache before: in a batch of one LangChain does not do what it does in a batch.
ASYNC: dict[str, tuple[type[Any], Begin]] = {
    "chat ainvoke": (Chat, lambda model, prompt: model.ainvoke(prompt)),
    "chat agenerate": (
        Chat,
        lambda model, prompt: model.agenerate([[HumanMessage(prompt)], [HumanMessage("known")]]),
    ),
    "chat abatch": (Chat, lambda model, prompt: model.abatch([prompt, "known"])),
    "completion ainvoke": (Completion, lambda model, prompt: model.ainvoke(prompt)),
    "completion agenerate": (Completion, lambda model, prompt: model.agenerate([prompt, "known"])),
    "completion abatch": (Completion, lambda model, prompt: model.abatch([prompt, "known"])),
}
SYNC: dict[str, tuple[type[Any], Begin]] = {
    "chat invoke": (Chat, in_thread(lambda model, prompt: model.invoke(prompt))),
    "chat generate": (
        Chat,
        in_thread(lambda model, prompt: model.generate([[HumanMessage("known")], [HumanMessage(prompt)]])),
    ),
    "chat batch": (Chat, in_thread(lambda model, prompt: model.batch([prompt, "known"]))),
    "completion invoke": (Completion, in_thread(lambda model, prompt: model.invoke(prompt))),
    "completion generate": (
        Completion,
        in_thread(lambda model, prompt: model.generate([prompt, "known"])),
    ),
    "completion batch": (Completion, in_thread(lambda model, prompt: model.batch([prompt, "known"]))),
}
IN_THEIR_OWN_WAY: dict[str, tuple[type[Any], Begin]] = {
    "routing ainvoke": (Routing, ASYNC["chat ainvoke"][1]),
    "managing ainvoke": (Managing, ASYNC["chat ainvoke"][1]),
}
ALL = ASYNC | SYNC


def each_of(shapes: dict[str, tuple[type[Any], Begin]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("kind", "begin"), shapes.values(), ids=shapes.keys())


class World:
    """One provider and two processes, and who leads and follows there."""

    def __init__(self, make: Callable[..., LangChainCache], **settings: Any) -> None:
        self.provider = Provider()
        self.here, self.there = (make(**{**SLOW, **settings}) for _ in range(2))

    def model(self, kind: type[Any], cache: LangChainCache | None = None, **settings: Any) -> Any:
        return kind(provider=self.provider, cache=self.here if cache is None else cache, **settings)

    async def know(self, kind: type[Any]) -> None:
        await self.model(kind).ainvoke("known")

    async def lead(self, begin: Coroutine[Any, Any, Any], prompt: str = "A") -> asyncio.Task[Any]:
        before = self.provider.asked.count(prompt)
        leader = asyncio.create_task(begin)
        await self.provider.was_asked(prompt, before + 1)
        return leader

    def begin(self, kind: type[Any], begin: Begin, prompt: str = "A") -> list[asyncio.Task[Any]]:
        """Begin the same call here, in another thread or loop here, and in another process."""
        other = in_thread(lambda model, prompt: model.invoke(prompt))
        if begin in [known for _, known in SYNC.values()]:
            other = ASYNC["chat ainvoke"][1]
        here, there = self.model(kind), self.model(kind, self.there)
        ways = ((begin, here), (begin, there), (other, here))
        return [asyncio.create_task(_awaited(way(model, prompt))) for way, model in ways]

    async def follow(
        self, kind: type[Any], begin: Begin, prompt: str = "A", *, led: int = 1
    ) -> list[asyncio.Task[Any]]:
        """Do the same and see that all wait; `led` calls are under way here already."""
        followers = self.begin(kind, begin, prompt)
        await wait_until_async(
            lambda: (callers(self.here), callers(self.there)) == (led + 2, 1),
            description="they wait for it here",
        )
        for cache in (self.here, self.there):
            await followed(cache)
        return followers

    async def answers(self, tasks: list[asyncio.Task[Any]], prompt: str = "A") -> None:
        """Wait until they have the answer: soon, and not after a minute."""
        async with asyncio.timeout(SOON):
            for result in await asyncio.gather(*tasks):
                assert f"answer to {prompt}" in str(result)


async def _and_raise(awaitable: Awaitable[Any]) -> None:
    await awaitable
    raise ValueError("something else")


async def _awaited(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


def callers(cache: LangChainCache) -> int:
    """Return how many wait for an answer in the process that a cache stands for, its bringer included."""
    maps = list(cache.cache._errands._flights._per_loop._here.values())
    return sum(flight.callers for flights in maps for flight in list(flights.values()))


async def followed(cache: LangChainCache) -> None:
    """Wait until a process follows a call of another."""

    async def follows() -> bool:
        return (await cache.cache.stats()).leases["followed"] > 0

    await wait_until_async(follows, description="it follows the other process")


@contextlib.asynccontextmanager
async def living_on(call: Callable[[], Awaitable[Any]]) -> AsyncIterator[asyncio.Task[BaseException]]:
    """Run a call in a task that catches what it raises and goes on with other work until the end."""
    ended: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
    go_on = asyncio.Event()

    async def work() -> None:
        try:
            await call()
        except Exception as error:  # noqa: BLE001 - whatever it is
            ended.set_result(error)
        await go_on.wait()

    task = asyncio.create_task(work())
    try:
        yield ended
    finally:
        assert not task.done()
        go_on.set()
        await task


@pytest.fixture
async def make(valkey: Server, namespace: str) -> AsyncIterator[Callable[..., LangChainCache]]:
    made: list[LangChainCache] = []

    def one(**settings: Any) -> LangChainCache:
        made.append(LangChainCache.from_url(valkey.url, **{"namespace": namespace, **settings}))
        return made[-1]

    yield one
    for cache in made:
        await cache.aclose()


@pytest.fixture
async def world_with(make: Callable[..., LangChainCache]) -> AsyncIterator[Callable[..., World]]:
    worlds: list[World] = []

    def one(**settings: Any) -> World:
        worlds.append(World(make, **settings))
        return worlds[-1]

    yield one
    for world in worlds:
        world.provider.let_go()


@pytest.fixture
def world(world_with: Callable[..., World]) -> World:
    return world_with()


class TestEnds:
    @each_of(ALL)
    async def test_an_answer_is_for_all_who_wait(self, world: World, kind: type[Any], begin: Begin):
        await world.know(kind)
        held = world.provider.hold("A")
        leader = await world.lead(_awaited(begin(world.model(kind), "A")))
        followers = await world.follow(kind, begin)
        held.set_result(None)
        await world.answers([leader, *followers])
        assert world.provider.asked.count("A") == 1

    @each_of(ASYNC | IN_THEIR_OWN_WAY)
    async def test_after_an_error_one_is_sent_at_once(self, world: World, kind: type[Any], begin: Begin):
        """Even if the application goes on in the task that asked."""
        await world.know(kind)
        held = world.provider.hold("A")
        async with living_on(lambda: begin(world.model(kind), "A")) as ended:
            await world.provider.was_asked("A", 1)
            followers = await world.follow(kind, begin)
            held.set_exception(ValueError("no"))
            assert "no" in str(await ended)
            await world.answers(followers)
        assert world.provider.asked.count("A") == 2

    @pytest.mark.parametrize("error", [ValueError, Interrupted], ids=["error", "interrupted"])
    @each_of(SYNC)
    async def test_after_an_error_in_a_thread_too(
        self, world: World, kind: type[Any], begin: Begin, error: type[BaseException]
    ):
        await world.know(kind)
        held = world.provider.hold("A")
        leader = await world.lead(_awaited(begin(world.model(kind), "A")))
        followers = await world.follow(kind, begin)
        held.set_exception(error("no"))
        with pytest.raises(error, match="no"):
            await leader
        await world.answers(followers)
        assert world.provider.asked.count("A") == 2

    @each_of(ASYNC)
    async def test_after_a_cancellation_one_is_sent_at_once(
        self, world: World, kind: type[Any], begin: Begin
    ):
        await world.know(kind)
        world.provider.hold("A")
        leader = await world.lead(_awaited(begin(world.model(kind), "A")))
        followers = await world.follow(kind, begin)
        leader.cancel()
        await world.answers(followers)
        assert leader.cancelled()
        assert world.provider.asked.count("A") == 2

    @each_of(ASYNC)
    async def test_after_a_time_limit_in_a_task_that_lives_on_too(
        self, world: World, kind: type[Any], begin: Begin
    ):
        await world.know(kind)
        world.provider.hold("A")
        limit = asyncio.timeout(None)

        async def limited() -> None:
            async with limit:
                await begin(world.model(kind), "A")

        async with living_on(limited) as ended:
            await world.provider.was_asked("A", 1)
            followers = await world.follow(kind, begin)
            limit.reschedule(asyncio.get_running_loop().time())
            assert isinstance(await ended, TimeoutError)
            await world.answers(followers)
        assert world.provider.asked.count("A") == 2

    async def test_a_program_whose_loop_ends_has_ended_its_calls(self, world: World):
        """`asyncio.run` that returns in the midst of a call, as at Ctrl-C."""
        world.provider.hold("A")
        go_on = threading.Event()

        async def program() -> None:
            calling = asyncio.create_task(world.model(Chat).ainvoke("A"))
            await world.provider.was_asked("A", 1)
            await asyncio.to_thread(go_on.wait)
            assert not calling.done()

        running = asyncio.create_task(asyncio.to_thread(asyncio.run, program()))
        await world.provider.was_asked("A", 1)
        follower = asyncio.create_task(world.model(Chat, world.there).ainvoke("A"))
        await followed(world.there)
        go_on.set()
        await running
        await world.answers([follower])
        assert world.provider.asked == ["A", "A"]


def test_a_thread_that_is_interrupted_while_it_waits_leads_nobody_astray(valkey: Server, namespace: str):
    """Ctrl-C, or a worker's time limit: it must not be sent when its turn comes."""
    provider = Provider()
    held = provider.hold("A")

    def interrupt(*_: Any) -> None:
        raise Interrupted

    def poke() -> None:
        wait_until(lambda: callers(here) == 2, description="the main thread waits")
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    def ask(cache: LangChainCache) -> None:
        with contextlib.suppress(ValueError):
            Chat(provider=provider, cache=cache).invoke("A")

    with (
        LangChainCache.from_url(valkey.url, namespace=namespace, **SLOW) as here,
        LangChainCache.from_url(valkey.url, namespace=namespace, **SLOW) as there,
    ):
        leader, poker = threading.Thread(target=ask, args=(here,)), threading.Thread(target=poke)
        leader.start()
        wait_until(lambda: provider.asked, description="the leader calls")
        before = signal.signal(signal.SIGUSR1, interrupt)
        try:
            poker.start()
            with pytest.raises(Interrupted):
                ask(here)
            poker.join()
        finally:
            signal.signal(signal.SIGUSR1, before)
        held.set_exception(ValueError("no"))
        leader.join()
        last = threading.Thread(target=ask, args=(there,), daemon=True)
        last.start()
        last.join(SOON)
        assert provider.asked == ["A", "A"]


async def test_a_thread_that_gives_up_is_no_longer_under_way(world: World):
    """Before the loop has heard of it: its next call may wait for others."""
    found = await world.here.cache.acquire("A")
    assert isinstance(found, Errand)
    thread = threading.Thread(target=found.abandon)
    thread.start()
    thread.join()
    assert found.is_over


ONE_OF_EACH = {
    name: ALL[name] for name in ("chat ainvoke", "chat invoke", "completion ainvoke", "completion invoke")
}


class TestRetriesAndFallbacks:
    @each_of(ONE_OF_EACH)
    async def test_a_retry_waits_like_the_others_for_whom_its_failure_has_sent(
        self, world: World, kind: type[Any], begin: Begin
    ):
        first = world.provider.hold("A")
        tried = world.model(kind).with_retry(stop_after_attempt=2, wait_exponential_jitter=False)
        leader = await world.lead(_awaited(begin(tried, "A")))
        followers = await world.follow(kind, begin)
        second = world.provider.hold("A")
        first.set_exception(ValueError("no"))
        await world.provider.was_asked("A", 2)
        second.set_result(None)
        await world.answers([leader, *followers])
        assert world.provider.asked.count("A") == 2

    @each_of(ONE_OF_EACH)
    async def test_while_a_fallback_is_asked_one_is_sent_to_the_first_model(
        self, world: World, kind: type[Any], begin: Begin
    ):
        held, other = world.provider.hold("A"), Provider()
        answering = other.hold("A")
        fallback = kind(provider=other, cache=world.here, temperature=1.0)
        leader = await world.lead(_awaited(begin(world.model(kind).with_fallbacks([fallback]), "A")))
        followers = await world.follow(kind, begin)
        held.set_exception(ValueError("no"))
        await other.was_asked("A", 1)
        await world.answers(followers)
        assert not leader.done()
        answering.set_result(None)
        await world.answers([leader])
        assert (world.provider.asked, other.asked) == (["A", "A"], ["A"])


TWO_AT_ONCE: dict[str, tuple[type[Any], Callable[[Any, list[str]], Awaitable[Any]]]] = {
    "chat agenerate": (
        Chat,
        lambda model, prompts: model.agenerate([[HumanMessage(prompt)] for prompt in prompts]),
    ),
    "chat abatch": (Chat, lambda model, prompts: model.abatch(prompts)),
    "chat generate": (
        Chat,
        lambda model, prompts: asyncio.to_thread(
            model.generate, [[HumanMessage(prompt)] for prompt in prompts]
        ),
    ),
    "chat batch": (Chat, lambda model, prompts: asyncio.to_thread(model.batch, prompts)),
    "completion agenerate": (Completion, lambda model, prompts: model.agenerate(prompts)),
    "completion abatch": (Completion, lambda model, prompts: model.abatch(prompts)),
    "completion generate": (Completion, lambda model, prompts: asyncio.to_thread(model.generate, prompts)),
    "completion batch": (Completion, lambda model, prompts: asyncio.to_thread(model.batch, prompts)),
}


class TestBatches:
    @pytest.mark.parametrize(("kind", "begin"), TWO_AT_ONCE.values(), ids=TWO_AT_ONCE.keys())
    async def test_crossed_batches_do_not_wait_for_one_another(
        self, world: World, kind: type[Any], begin: Callable[..., Awaitable[Any]]
    ):
        """[A, B] beside [B, A], in one process and in two."""
        batches = [
            _awaited(begin(world.model(kind, cache), prompts))
            for cache in (world.here, world.there)
            for prompts in (["A", "B"], ["B", "A"])
        ]
        async with asyncio.timeout(SOON):
            for result in await asyncio.gather(*batches):
                assert "answer to A" in str(result)
                assert "answer to B" in str(result)
        if kind is Chat:
            assert sorted(world.provider.asked) == ["A", "B"]

    @pytest.mark.parametrize(("kind", "begin"), TWO_AT_ONCE.values(), ids=TWO_AT_ONCE.keys())
    async def test_a_batch_that_asks_twice_does_not_wait_for_itself(
        self, world: World, kind: type[Any], begin: Callable[..., Awaitable[Any]]
    ):
        """A chat model is asked once; a completion model is given all that was missing, twice or not."""
        async with asyncio.timeout(SOON):
            result = await begin(world.model(kind), ["A", "A"])
        assert str(result).count("answer to A") >= 2
        assert world.provider.asked == (["A"] if kind is Chat else ["A", "A"])

    @pytest.mark.parametrize("is_async", [True, False], ids=["abatch", "batch"])
    async def test_when_a_call_of_a_batch_fails_its_double_is_sent(self, world: World, is_async: bool):
        held = world.provider.hold("A")
        model = world.model(Chat)
        begin = model.abatch if is_async else lambda *a, **k: asyncio.to_thread(model.batch, *a, **k)
        batch = await world.lead(begin(["A", "A", "B"], return_exceptions=True))
        await wait_until_async(lambda: callers(world.here) == 2, description="the second waits")
        held.set_exception(ValueError("no"))
        async with asyncio.timeout(SOON):
            results = await batch
        assert sorted(type(result).__name__ for result in results) == ["AIMessage", "AIMessage", "ValueError"]
        assert sorted(world.provider.asked) == ["A", "A", "B"]

    async def test_what_else_a_failed_chat_batch_asks_is_waited_for(self, world: World):
        failing, held = world.provider.hold("A"), world.provider.hold("B")
        batch = await world.lead(world.model(Chat).agenerate([[HumanMessage("A")], [HumanMessage("B")]]))
        await world.provider.was_asked("B", 1)
        followers = await world.follow(Chat, ASYNC["chat ainvoke"][1], "B", led=2)
        failing.set_exception(ValueError("no"))
        held.set_result(None)
        await world.answers(followers, "B")
        with pytest.raises(ValueError, match="no"):
            await batch
        assert world.provider.asked == ["A", "B"]

    @pytest.mark.parametrize("is_async", [True, False], ids=["agenerate", "generate"])
    @pytest.mark.parametrize("prompt", ["A", "B"])
    async def test_a_failed_batch_of_a_completion_model_ends_all_its_waits(
        self, world: World, is_async: bool, prompt: str
    ):
        """It is one call; what was asked last is no worse off than what was asked first."""
        held, model = world.provider.hold("A"), world.model(Completion)
        begin = ALL["completion ainvoke" if is_async else "completion invoke"][1]
        call = (
            (lambda: model.agenerate(["A", "B"]))
            if is_async
            else (lambda: asyncio.to_thread(model.generate, ["A", "B"]))
        )
        async with living_on(call) as ended:
            await world.provider.was_asked("A", 1)
            followers = await world.follow(Completion, begin, prompt, led=2)
            held.set_exception(ValueError("no"))
            await ended
            await world.answers(followers, prompt)

    async def test_a_batch_that_ends_while_it_looks_up_has_ended_its_waits(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ):
        """A completion model looks up one prompt after the other, and then asks for all that it misses."""
        acquire, limit = world.here.cache.acquire, asyncio.timeout(None)
        looked_up, answer = [], asyncio.Event()

        async def slow_at_the_second(*arguments: Any, **options: Any) -> Any:
            looked_up.append(arguments)
            if len(looked_up) == 2:
                await answer.wait()
            return await acquire(*arguments, **options)

        async def limited() -> None:
            async with limit:
                await model.agenerate(["A", "B"])

        monkeypatch.setattr(world.here.cache, "acquire", slow_at_the_second)
        model = world.model(Completion)
        async with living_on(limited) as ended:
            await wait_until_async(lambda: len(looked_up) == 2, description="the second is looked up")
            limit.reschedule(asyncio.get_running_loop().time())
            await ended
            follower = asyncio.create_task(world.model(Completion, world.there).ainvoke("A"))
            await world.answers([follower])

    async def test_whoever_answers_first_answers_all_and_is_free(self, world: World):
        """Two batches ask for A at one time. The one whose answer came first has nothing more to bring."""
        held, model = world.provider.hold("A"), world.model(Completion)
        slow = await world.lead(model.ainvoke("A"))
        async with living_on(lambda: _and_raise(model.agenerate(["B", "A"]))) as ended:
            await ended
            followers = [asyncio.create_task(world.model(Completion, world.there).ainvoke("A"))]
            await world.answers(followers)
            held.set_exception(ValueError("no"))
            with pytest.raises(ValueError, match="no"):
                await slow
            assert world.here.cache.in_flight() == 0
        assert world.provider.asked == ["A", "B", "A"]

    async def test_a_thousand_with_doubles_cost_the_seven_hundred_that_differ(
        self, world: World, valkey: Server
    ):
        prompts = [f"question {number % 700}" for number in range(1000)]
        model = world.model(Chat)
        valkey.command("CONFIG", "RESETSTAT")
        answers = await model.abatch(prompts)
        assert [answer.content for answer in answers] == [f"answer to {prompt}" for prompt in prompts]
        assert len(world.provider.asked) == 700
        assert round_trips(valkey) < 500
        valkey.command("CONFIG", "RESETSTAT")
        again = await model.abatch(prompts)
        assert [answer.content for answer in again] == [answer.content for answer in answers]
        assert len(world.provider.asked) == 700
        assert lookups(valkey) < 50
        assert round_trips(valkey) < 100


def round_trips(server: Server) -> int:
    """Return how often a client had something for the server, whatever the number of commands in it."""
    number: int = server.command("INFO", "stats")["total_reads_processed"]
    return number


def lookups(server: Server) -> int:
    number: int = server.command("INFO", "commandstats")["cmdstat_mget"]["calls"]
    return number


class TestStreams:
    @pytest.mark.parametrize("is_closed", [True, False], ids=["closed", "dropped"])
    async def test_whoever_leaves_a_stream_of_events_ends_the_call_in_it(self, world: World, is_closed: bool):
        world.provider.hold("A")
        model = world.model(Streaming)

        async def step(prompt: str) -> Any:
            return await model.ainvoke(prompt)

        events = RunnableLambda(step).astream_events("A", version="v2")
        async with asyncio.timeout(SOON):
            async for event in events:
                if "answer to" in str(event):
                    break
            await world.provider.was_asked("A", 1)
        followers = await world.follow(Streaming, ASYNC["chat ainvoke"][1])
        if is_closed:
            await events.aclose()
        del events
        await world.answers(followers)
        assert world.provider.asked == ["A", "A"]

    async def test_whoever_stops_reading_a_chain_ends_the_call_in_it(self, world: World):
        world.provider.hold("A")
        model = world.model(Streaming)

        async def steps(prompts: AsyncIterator[str]) -> AsyncIterator[Any]:
            async for prompt in prompts:
                yield "thinking"
                yield await model.ainvoke(prompt)

        chunks = RunnableGenerator(steps).astream("A")
        assert await anext(chunks) == "thinking"
        reading = await world.lead(anext(chunks))
        followers = await world.follow(Streaming, ASYNC["chat ainvoke"][1])
        reading.cancel()
        await world.answers(followers)
        await chunks.aclose()
        assert world.provider.asked == ["A", "A"]


# Asks a provider that says nothing, and is killed meanwhile.
LEADER = textwrap.dedent(
    """
    import asyncio, sys, time
    from langchain_core.language_models import BaseChatModel
    from llmcache_plugins.adapters.langchain import LangChainCache

    class Chat(BaseChatModel):
        @property
        def _llm_type(self):
            return "chat"

        @property
        def _identifying_params(self):
            return {"temperature": 0.0}

        def _generate(self, *_, **__):
            print("asked", flush=True)
            time.sleep(600)

        async def _agenerate(self, *_, **__):
            print("asked", flush=True)
            await asyncio.sleep(600)

    url, namespace, how = sys.argv[1:]
    model = Chat(cache=LangChainCache.from_url(url, namespace=namespace, lease_ttl=1.0, lookup_budget=5.0))
    asyncio.run(model.ainvoke(how)) if how == "ainvoke" else model.invoke(how)
    """
)


class TestNoWordOfTheEnd:
    async def test_a_process_that_is_killed_is_waited_for_until_its_lease_ends(
        self, world_with: Callable[..., World], valkey: Server, namespace: str
    ):
        world = world_with(lease_ttl=1.0)
        arguments = [sys.executable, "-c", LEADER, valkey.url, namespace]
        programs = [
            await asyncio.create_subprocess_exec(*arguments, how, stdout=asyncio.subprocess.PIPE)
            for how in ("ainvoke", "invoke")
        ]
        try:
            for program in programs:
                assert program.stdout is not None
                assert await asyncio.wait_for(program.stdout.readline(), 60) == b"asked\n"
            followers = [
                asyncio.create_task(world.model(Chat, cache).ainvoke(how))
                for how, cache in (("ainvoke", world.here), ("invoke", world.there))
            ]
            for cache in (world.here, world.there):
                await followed(cache)
        finally:
            for program in programs:
                program.kill()
                await program.wait()
        await world.answers(followers, "")
        assert sorted(world.provider.asked) == ["ainvoke", "invoke"]

    @pytest.mark.parametrize("is_async", [True, False], ids=["alookup", "lookup"])
    async def test_a_lookup_whose_caller_asks_nobody_is_waited_for_until_max_lead(
        self, world_with: Callable[..., World], is_async: bool
    ):
        world = world_with(lease_ttl=0.5, max_lead=0.5)
        clock = asyncio.get_running_loop().time
        since = clock()

        async def look_up(cache: LangChainCache) -> None:
            if is_async:
                assert await cache.alookup("A", "model") is None
            else:
                assert await asyncio.to_thread(cache.lookup, "A", "model") is None

        async def only_look_up() -> None:
            await look_up(world.here)
            raise ValueError("something else")

        async with living_on(only_look_up) as ended:
            await ended
            async with asyncio.timeout(SOON):
                await asyncio.gather(look_up(world.here), look_up(world.there))
        assert clock() - since > 0.45

    @each_of(ONE_OF_EACH)
    async def test_so_is_a_provider_that_never_answers(
        self, world_with: Callable[..., World], kind: type[Any], begin: Begin
    ):
        world = world_with(lease_ttl=0.5, max_lead=0.5)
        clock = asyncio.get_running_loop().time
        since = clock()
        never = world.provider.hold("A")
        leader = await world.lead(_awaited(begin(world.model(kind), "A")))
        await world.answers(world.begin(kind, begin))
        assert clock() - since > 0.45
        assert not leader.done()
        never.set_result(None)
        await world.answers([leader])

    @pytest.mark.parametrize("way", ["completion ainvoke", "completion invoke"])
    async def test_so_is_a_call_that_a_callback_has_refused_before_it_was_made(
        self, world_with: Callable[..., World], way: str
    ):
        """Of a completion model: a chat model calls back before it looks up."""
        world = world_with(lease_ttl=0.5, max_lead=0.5)
        kind, begin = ALL[way]
        clock = asyncio.get_running_loop().time
        since = clock()
        refused = world.model(kind, callbacks=[_Refusing()])
        async with living_on(lambda: begin(refused, "A")) as ended:
            assert "refused" in str(await ended)
            await world.answers(world.begin(kind, begin))
        assert clock() - since > 0.45

    async def test_max_lead_is_two_minutes_unless_it_is_given(self, make: Callable[..., LangChainCache]):
        assert make().cache.config.max_lead == 120
        assert make(max_lead=30.0).cache.config.max_lead == 30
        assert LangChainCache(ResponseCache.from_url("redis://127.0.0.1:1")).cache.config.max_lead == 600


class _Refusing(BaseCallbackHandler):
    raise_error = True
    run_inline = True

    def on_llm_start(self, *_: Any, **__: Any) -> None:
        raise ValueError("refused")
