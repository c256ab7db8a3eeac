"""The gateway as its users see it: what is an answer, what is kept, what is said about it."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import enum
import functools
import itertools
import threading
from typing import TYPE_CHECKING, Any

import pytest
import redis
import redis.asyncio as aioredis
from redis.asyncio.cluster import RedisCluster
from waiting import wait_until_async

from llmcache_plugins import (
    CacheConfig,
    CachePolicy,
    ConfigError,
    InferenceGateway,
    Outcome,
    ResponseCache,
    ResponseRepository,
    SignatureError,
    Usage,
)
from llmcache_plugins.answers import PlainCodec
from llmcache_plugins.models import AnswerFacts, EncodedAnswer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from servers import Cluster, Server

PATIENT = {"lookup_budget": 5.0, "commit_budget": 5.0, "socket_timeout": 5.0}
"""These tests are about answers, not about time: a busy machine must not make an outage of a hit."""


def ask(text: str = "Why is the sky blue?", **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": text}], **more}


class Provider:
    """Counts its calls and answers the same each time, as soon as `gate` is open."""

    def __init__(self, answer: Any = "Rayleigh", *, error: BaseException | None = None) -> None:
        self.answer = answer
        self.error = error
        self.calls = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def complete(self, _query: Any) -> Any:
        self.calls += 1
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return self.answer() if callable(self.answer) else self.answer


class Narrator:
    """Streams its chunks; `broken` is raised in the place of the chunk of that number."""

    def __init__(self, *chunks: Any, broken: tuple[int, Exception] | None = None) -> None:
        self.chunks = chunks
        self.broken = broken
        self.calls = self.streams = self.closed = 0

    async def complete(self, _query: Any) -> str:
        self.calls += 1
        return "".join(self.chunks)

    async def stream(self, _query: Any) -> AsyncIterator[Any]:
        self.streams += 1
        try:
            for number, chunk in enumerate(self.chunks):
                if self.broken is not None and self.broken[0] == number:
                    raise self.broken[1]
                yield chunk
        finally:
            self.closed += 1


@pytest.fixture
async def cache(valkey: Server, namespace: str) -> AsyncIterator[ResponseCache]:
    async with ResponseCache.from_url(valkey.url, namespace=namespace, **PATIENT) as cache:
        yield cache


@contextlib.asynccontextmanager
async def opened(url: str, provider: Any, **settings: Any) -> AsyncIterator[InferenceGateway]:
    cache = ResponseCache.from_url(url, **{**PATIENT, **settings})
    async with InferenceGateway(provider, cache) as gateway:
        yield gateway


def keys_of(server: Server, namespace: str, what: str) -> list[bytes]:
    return list(server.command("KEYS", f"llm:{{{namespace}.*}}:{what}:*"))


async def outcome(gateway: InferenceGateway, query: Any, **how: Any) -> Outcome:
    return (await gateway.resolve_detailed(query, **how)).outcome


async def read(chunks: AsyncIterator[Any]) -> list[Any]:
    return [chunk async for chunk in chunks]


class TestAnswers:
    async def test_the_second_call_is_a_hit(self, server: Server | Cluster, namespace: str):
        provider = Provider({"text": "Rayleigh"})
        async with opened(server.url, provider, namespace=namespace) as gateway:
            first = await gateway.resolve_detailed(ask())
            second = await gateway.resolve_detailed(ask())
        assert (first.outcome, second.outcome) == (Outcome.MISS, Outcome.HIT)
        assert first.answer == second.answer == {"text": "Rayleigh"}
        assert provider.calls == 1

    @pytest.mark.parametrize(
        "answer",
        [
            *(None, "", 0, 0.0, False, True, [], {}, b"", "text", "\N{SNOWMAN}" * 2000, 2**63 - 1, -1.5),
            *([1, [None, {"a": b"\x00"}]], {"a": {"b": [True, 1, 1.0, "1"]}}, {1: "one"}),
        ],
        ids=repr,
    )
    async def test_every_plain_answer_even_an_empty_one_is_an_answer(self, cache: ResponseCache, answer: Any):
        provider = Provider(answer)
        gateway = InferenceGateway(provider, cache)
        fresh, stored = await gateway.resolve(ask()), await gateway.resolve_detailed(ask())
        assert provider.calls == 1
        assert stored.outcome is Outcome.HIT
        assert fresh is answer
        assert repr(stored.answer) == repr(answer)  # repr: 1, 1.0 and True are equal, and not the same

    async def test_what_a_caller_does_to_an_answer_reaches_no_other(self, cache: ResponseCache):
        gateway = InferenceGateway(Provider(lambda: {"choices_seen": []}), cache)
        for _ in range(3):
            answer = await gateway.resolve(ask())
            assert answer == {"choices_seen": []}
            answer["choices_seen"].append("mine")

    async def test_other_words_or_parameters_are_another_question(self, cache: ResponseCache):
        provider = Provider()
        gateway = InferenceGateway(provider, cache)
        questions = [ask("a"), ask("b"), ask("a", temperature=1), ask("a", model="n"), "a", {"q": "a"}]
        for question in questions:
            assert await outcome(gateway, question) is Outcome.MISS
        for question in questions:
            assert await outcome(gateway, question) is Outcome.HIT

    async def test_a_provider_s_error_passes_unchanged_and_is_not_kept(self, cache: ResponseCache):
        error = ValueError("quota")
        provider = Provider(error=error)
        gateway = InferenceGateway(provider, cache)
        for _ in range(2):
            with pytest.raises(ValueError, match="quota") as caught:
                await gateway.resolve(ask())
            assert caught.value is error
        assert provider.calls == 2
        provider.error = None
        assert await outcome(gateway, ask()) is Outcome.MISS

    async def test_a_forgotten_answer_is_asked_for_again(self, cache: ResponseCache):
        gateway = InferenceGateway(Provider(), cache)
        assert not await gateway.invalidate(ask())
        await gateway.resolve(ask())
        assert await gateway.invalidate(ask())
        assert await outcome(gateway, ask()) is Outcome.MISS


class TestProviders:
    async def test_a_synchronous_callable_does_not_hold_up_the_loop(self, cache: ResponseCache):
        let_go = threading.Event()
        threads: list[int] = []

        def slow(_query: Any) -> str:
            threads.append(threading.get_ident())
            assert let_go.wait(10), "the loop never ran while the provider was working"
            return "done"

        calling = asyncio.create_task(InferenceGateway(slow, cache).resolve(ask()))
        await wait_until_async(lambda: threads, description="the provider is called")
        let_go.set()
        assert await calling == "done"
        assert threads != [threading.get_ident()]

    async def test_anything_that_can_be_called_is_a_provider(self, cache: ResponseCache):
        async def answer(_prefix: str, _query: Any) -> str:
            return "async"

        def answer_now(_prefix: str, _query: Any) -> str:
            return "sync"

        class Callable:
            async def __call__(self, _query: Any) -> str:
                return "object"

            def method(self, _query: Any) -> str:
                return "method"

        providers: dict[str, Any] = {
            "async": functools.partial(answer, "p"),
            "sync": functools.partial(answer_now, "p"),
            "object": Callable(),
            "method": Callable().method,
        }
        for name, provider in providers.items():
            gateway = InferenceGateway(provider, cache)
            assert [await gateway.resolve(ask(name)) for _ in range(2)] == [name, name]

    async def test_a_lambda_that_returns_an_awaitable_is_awaited(self, cache: ResponseCache):
        provider = Provider("awaited")
        gateway = InferenceGateway(lambda query: provider.complete(query), cache)
        assert await gateway.resolve(ask()) == "awaited"

    async def test_a_provider_of_one_call_answers_that_call(self, cache: ResponseCache):
        usual, other = Provider("usual"), Provider("other")
        gateway = InferenceGateway(usual, cache)
        assert await gateway.resolve(ask("a"), provider=other) == "other"
        assert await gateway.resolve(ask("b")) == "usual"
        assert await gateway.resolve(ask("a")) == "other"  # the same question, whoever was asked
        assert (usual.calls, other.calls) == (1, 1)

    async def test_what_a_provider_says_changes_its_answers_is_part_of_the_question(
        self, cache: ResponseCache
    ):
        here, there = Provider("here"), Provider("there")
        here.scope = lambda _: {"api_base": "https://here.example"}  # type: ignore[attr-defined]
        there.scope = lambda _: {"api_base": "https://there.example"}  # type: ignore[attr-defined]
        gateway = InferenceGateway(here, cache)
        for _ in range(2):
            assert await gateway.resolve(ask()) == "here"
            assert await gateway.resolve(ask(), provider=there) == "there"
        assert (here.calls, there.calls) == (1, 1)

    async def test_kinds_of_answers_do_not_meet(self, cache: ResponseCache):
        class Other(PlainCodec):
            kind = "other"

        special = Provider("special")
        special.codec = Other()  # type: ignore[attr-defined]
        gateway = InferenceGateway(Provider("plain"), cache)
        for _ in range(2):
            assert await gateway.resolve(ask()) == "plain"
            assert await gateway.resolve(ask(), provider=special) == "special"

    @pytest.mark.parametrize("provider", [None, 7, "gpt"], ids=repr)
    async def test_what_cannot_be_called_is_refused_at_once(self, cache: ResponseCache, provider: Any):
        with pytest.raises(ConfigError):
            InferenceGateway(provider, cache)

    async def test_what_is_no_cache_is_refused_at_once(self):
        with pytest.raises(ConfigError):
            InferenceGateway(Provider(), object())  # type: ignore[arg-type]


class TestTtl:
    async def test_ttl_0_reads_but_does_not_store(self, cache: ResponseCache, valkey: Server, namespace: str):
        provider = Provider()
        gateway = InferenceGateway(provider, cache)
        for _ in range(2):
            assert await outcome(gateway, ask(), ttl=0) is Outcome.MISS
        assert not keys_of(valkey, namespace, "*")
        await gateway.resolve(ask())
        assert await outcome(gateway, ask(), ttl=0) is Outcome.HIT
        assert provider.calls == 3

    async def test_ttl_0_neither_joins_nor_leads(self, cache: ResponseCache):
        provider = Provider()
        provider.gate.clear()
        gateway = InferenceGateway(provider, cache)
        calls = [asyncio.create_task(outcome(gateway, ask(), ttl=ttl)) for ttl in (None, 0, 0)]
        await wait_until_async(lambda: provider.calls == 3, description="each calls by itself")
        provider.gate.set()
        assert await asyncio.gather(*calls) == [Outcome.MISS] * 3

    async def test_a_policy_of_ttl_0_stores_nothing(self, cache: ResponseCache):
        gateway = InferenceGateway(Provider(), cache)
        for _ in range(2):
            assert await outcome(gateway, ask(), policy=CachePolicy(ttl=0)) is Outcome.MISS

    @pytest.mark.parametrize(
        ("how", "seconds"),
        [
            ({}, 500),
            ({"ttl": None}, 500),
            ({"ttl": 90}, 90),
            ({"policy": CachePolicy(ttl=70)}, 70),
            ({"policy": CachePolicy(ttl=70), "ttl": 40}, 40),
            ({"ttl": 1.5}, 1.5),
        ],
        ids=str,
    )
    async def test_an_answer_lives_as_long_as_was_said(
        self, valkey: Server, namespace: str, how: dict[str, Any], seconds: float
    ):
        async with opened(
            valkey.url, Provider(), namespace=namespace, policy=CachePolicy(ttl=500)
        ) as gateway:
            resolution = await gateway.resolve_detailed(ask(), **how)
            assert resolution.key is not None
            left = valkey.command("PTTL", gateway.cache.repository.redis_key(resolution.key)) / 1000
        assert seconds - 10 < left <= seconds

    async def test_an_expired_answer_is_asked_for_again(self, cache: ResponseCache):
        provider = Provider()
        gateway = InferenceGateway(provider, cache)
        await gateway.resolve(ask(), ttl=0.02)

        async def is_gone() -> bool:
            return await outcome(gateway, ask(), ttl=0.02) is Outcome.MISS

        await wait_until_async(is_gone, description="the answer expires")
        assert provider.calls >= 2

    @pytest.mark.parametrize("ttl", [-1, float("nan"), float("inf"), True, "3600"], ids=repr)
    async def test_a_ttl_that_is_none_is_refused(self, cache: ResponseCache, ttl: Any):
        with pytest.raises(ConfigError):
            await InferenceGateway(Provider(), cache).resolve(ask(), ttl=ttl)


class TestNamespaces:
    async def test_tenants_do_not_see_each_other_s_answers(self, cache: ResponseCache, namespace: str):
        names = [None, f"{namespace}-b", f"{namespace}.0", f"{namespace}}}:x"]
        for name in names:
            gateway = InferenceGateway(Provider(f"of {name}"), cache)
            assert await gateway.resolve(ask(), namespace=name) == f"of {name}"
        nobody = InferenceGateway(Provider("nobody's"), cache)
        for name in names:
            assert await nobody.resolve(ask(), namespace=name) == f"of {name}"

    async def test_clearing_one_tenant_leaves_the_others(self, cache: ResponseCache, namespace: str):
        gateway = InferenceGateway(Provider(), cache)
        for name in (None, f"{namespace}.0"):
            await gateway.resolve(ask("a"), namespace=name)
            await gateway.resolve(ask("b"), namespace=name)
        assert await cache.clear() == 2
        assert await outcome(gateway, ask("a"), namespace=f"{namespace}.0") is Outcome.HIT
        assert await outcome(gateway, ask("a")) is Outcome.MISS

    async def test_two_caches_of_one_namespace_share_their_answers(
        self, cache: ResponseCache, valkey: Server, namespace: str
    ):
        await InferenceGateway(Provider("shared"), cache).resolve(ask())
        async with opened(valkey.url, Provider("own"), namespace=namespace) as other:
            assert await other.resolve(ask()) == "shared"

    async def test_a_secret_keeps_answers_apart(self, cache: ResponseCache, valkey: Server, namespace: str):
        await InferenceGateway(Provider("open"), cache).resolve(ask())
        async with opened(valkey.url, Provider("own"), namespace=namespace, secret="s3") as other:
            assert await other.resolve(ask()) == "own"


class TestWithoutCanonicalForm:
    async def test_the_provider_is_asked_each_time_and_it_is_counted(
        self, cache: ResponseCache, valkey: Server, namespace: str
    ):
        provider = Provider()
        provider.gate.clear()
        gateway = InferenceGateway(provider, cache)
        query = ask(tool=object())
        calls = [asyncio.create_task(gateway.resolve_detailed(query)) for _ in range(2)]
        await wait_until_async(lambda: provider.calls == 2, description="both call")
        provider.gate.set()
        for resolution in await asyncio.gather(*calls):
            assert resolution.outcome is Outcome.BYPASS
            assert resolution.key is None
            assert resolution.cache_status == "llmcache; fwd=bypass; detail=signature"
        stats = await cache.stats()
        assert stats.outcomes == {Outcome.BYPASS: 2}
        assert stats.provider_calls == 2
        assert not keys_of(valkey, namespace, "*")

    async def test_its_provider_s_error_passes(self, cache: ResponseCache):
        error = RuntimeError()
        with pytest.raises(RuntimeError) as caught:
            await InferenceGateway(Provider(error=error), cache).resolve(ask(tool=object()))
        assert caught.value is error

    async def test_its_key_is_asked_for_in_vain(self, cache: ResponseCache):
        with pytest.raises(SignatureError):
            InferenceGateway(Provider(), cache).key_of(ask(tool=object()))


def completion(*reasons: Any, **more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": "Rayleigh"}
    choices = [{"index": i, "message": message, "finish_reason": r} for i, r in enumerate(reasons)]
    return {"object": "chat.completion", "model": "m-1", "choices": choices, **more}


class Colour(enum.StrEnum):
    RED = "red"


class TestAdmission:
    @pytest.mark.parametrize("reason", ["stop", "STOP", "tool_calls", "function_call", "end_turn", None])
    async def test_a_finished_answer_is_kept(self, cache: ResponseCache, reason: str | None):
        gateway = InferenceGateway(Provider(completion(reason)), cache)
        assert [await outcome(gateway, ask()) for _ in range(2)] == [Outcome.MISS, Outcome.HIT]
        assert not (await cache.stats()).refusals

    async def test_an_answer_that_does_not_say_how_it_ended_is_kept(self, cache: ResponseCache):
        answer = completion("stop")
        del answer["choices"][0]["finish_reason"]
        gateway = InferenceGateway(Provider(answer), cache)
        assert [await outcome(gateway, ask()) for _ in range(2)] == [Outcome.MISS, Outcome.HIT]

    @pytest.mark.parametrize(
        ("answer", "why"),
        [
            (completion("length"), "truncated"),
            (completion("MAX_TOKENS"), "truncated"),
            (completion("content_filter"), "filtered"),
            (completion("stop", "length"), "truncated"),
            (completion("paused"), "unknown_finish"),
            (completion(), "no_choices"),
            (completion(choices=None), "no_choices"),
            ({"object": "response", "status": "queued", "output": [{}]}, "unknown_finish"),
            ({"object": "list", "data": []}, "no_choices"),
        ],
    )
    async def test_an_unfinished_answer_is_returned_not_kept_and_counted(
        self, cache: ResponseCache, valkey: Server, namespace: str, answer: Any, why: str
    ):
        gateway = InferenceGateway(Provider(answer), cache)
        for times in (1, 2):
            resolution = await gateway.resolve_detailed(ask())
            assert resolution.answer is answer
            assert resolution.cache_status == f"llmcache; fwd=uri-miss; detail={why}"
            assert (await cache.stats()).refusals == {why: times}
        assert not keys_of(valkey, namespace, "resp")
        assert not keys_of(valkey, namespace, "lease")

    async def test_an_answer_that_is_too_big_is_returned_and_not_kept(self, valkey: Server, namespace: str):
        provider = Provider("x" * 2000)
        async with opened(valkey.url, provider, namespace=namespace, max_entry_bytes=1000) as gateway:
            for _ in range(2):
                assert await gateway.resolve(ask()) == "x" * 2000
            assert (await gateway.cache.stats()).refusals == {"too_big": 2}
            assert not keys_of(valkey, namespace, "lease")

    @pytest.mark.parametrize(
        "answer",
        [
            *(object(), (1, 2), {1, 2}, [(1,)], {"a": object()}, 2**70, Colour.RED, "\ud800"),
            *(collections.OrderedDict(a=1), {(1, 2): 3}, {None: 1}, bytearray(b"x")),
        ],
        ids=lambda answer: type(answer).__name__,
    )
    async def test_what_would_not_come_back_as_it_was_is_returned_and_not_kept(
        self, cache: ResponseCache, valkey: Server, namespace: str, answer: Any
    ):
        gateway = InferenceGateway(Provider(answer), cache)
        for _ in range(2):
            assert await gateway.resolve(ask()) is answer
        assert (await cache.stats()).refusals == {"no_codec": 2}
        assert not keys_of(valkey, namespace, "lease")

    async def test_an_answer_that_contains_itself_is_returned_and_not_kept(self, cache: ResponseCache):
        answer: list[Any] = []
        answer.append(answer)
        assert await InferenceGateway(Provider(answer), cache).resolve(ask()) is answer
        assert (await cache.stats()).refusals == {"no_codec": 1}

    async def test_callers_who_wait_for_what_cannot_be_kept_get_it_all_the_same(self, cache: ResponseCache):
        provider = Provider(object())
        provider.gate.clear()
        gateway = InferenceGateway(provider, cache)
        calls = [asyncio.create_task(gateway.resolve(ask())) for _ in range(3)]
        await wait_until_async(lambda: provider.calls, description="the provider is called")
        provider.gate.set()
        assert await asyncio.gather(*calls) == [provider.answer] * 3
        assert provider.calls == 1

    async def test_a_codec_that_fails_costs_the_entry_not_the_answer(self, cache: ResponseCache):
        class Broken(PlainCodec):
            def encode(self, answer: Any) -> Any:
                raise ZeroDivisionError

        provider = Provider("kept")
        provider.codec = Broken()  # type: ignore[attr-defined]
        assert await InferenceGateway(provider, cache).resolve(ask()) == "kept"

    async def test_a_codec_that_cannot_read_back_makes_a_counted_miss(self, cache: ResponseCache):
        class Forgetful(PlainCodec):
            def decode(self, encoded: Any) -> Any:
                raise ZeroDivisionError

        provider = Provider("again")
        provider.codec = Forgetful()  # type: ignore[attr-defined]
        gateway = InferenceGateway(provider, cache)
        for _ in range(3):
            assert await gateway.resolve(ask()) == "again"
        assert provider.calls == 3
        assert (await cache.stats()).unreadable >= 2


class TestDamage:
    """Whatever lies under our keys is a miss at worst, and is replaced."""

    async def _stored(self, gateway: InferenceGateway, valkey: Server) -> tuple[str, bytes]:
        key = (await gateway.resolve_detailed(ask())).key
        assert key is not None
        name = gateway.cache.repository.redis_key(key)
        return name, valkey.command("GET", name)

    @pytest.mark.parametrize(
        "damage",
        [
            lambda _: b"",
            lambda _: b"\x80\x04\x95cos\nsystem\n(S'false'\ntR.",
            lambda _: b'{"lc": 1, "type": "constructor"}',
            lambda value: value[:64],
            lambda value: value[:63],
            lambda value: value[:-1],
            lambda value: value + b"more",
            lambda value: b"0" * 15 + b"3" + value[16:],
            lambda value: value[:64] + b"\x07" + value[65:],
            lambda value: value[:64] + b"\x01" + value[65:],
            lambda value: value[:65] + b"\x91" * 5000,
        ],
    )
    async def test_a_damaged_entry_is_a_counted_miss(
        self, cache: ResponseCache, valkey: Server, damage: Callable[[bytes], bytes]
    ):
        provider = Provider({"text": "Rayleigh " * 10})
        gateway = InferenceGateway(provider, cache)
        name, value = await self._stored(gateway, valkey)
        valkey.command("SET", name, damage(value), "PX", 60_000)
        assert await gateway.resolve(ask()) == provider.answer
        assert provider.calls == 2
        assert (await cache.stats()).unreadable >= 1
        assert await outcome(gateway, ask()) is Outcome.HIT

    @pytest.mark.parametrize("digits", [b"0" * 64, b"9" * 64 + b"\x00\xc1", b"1" * 64], ids=["0", "9", "1"])
    async def test_digits_that_are_no_header_of_ours_are_a_miss(
        self, cache: ResponseCache, valkey: Server, digits: bytes
    ):
        # Not counted as damage: they look like an entry of a namespace that was lost, and are void.
        gateway = InferenceGateway(Provider(), cache)
        name, _ = await self._stored(gateway, valkey)
        valkey.command("SET", name, digits, "PX", 60_000)
        assert [await outcome(gateway, ask()) for _ in range(2)] == [Outcome.MISS, Outcome.HIT]

    async def test_an_entry_cut_off_anywhere_is_never_an_error_or_another_answer(
        self, cache: ResponseCache, valkey: Server
    ):
        provider = Provider({"a": [1, "zwei", None], "b": "Rayleigh"})
        gateway = InferenceGateway(provider, cache)
        name, value = await self._stored(gateway, valkey)
        for length in range(0, len(value), 3):
            valkey.command("SET", name, value[:length], "PX", 60_000)
            assert await gateway.resolve(ask()) == provider.answer
        assert provider.calls == 1 + len(range(0, len(value), 3))

    async def test_a_flipped_bit_is_never_an_error(self, cache: ResponseCache, valkey: Server):
        gateway = InferenceGateway(Provider({"a": [1, "zwei", None]}), cache)
        name, value = await self._stored(gateway, valkey)
        for place, bit in itertools.product(range(0, len(value), 5), (0, 3, 7)):
            damaged = bytearray(value)
            damaged[place] ^= 1 << bit
            valkey.command("SET", name, bytes(damaged), "PX", 60_000)
            await gateway.resolve(ask())
        assert await outcome(gateway, ask()) is Outcome.HIT

    async def test_another_question_s_answer_is_never_served(self, cache: ResponseCache, valkey: Server):
        gateway = InferenceGateway(Provider("a's"), cache)
        _name, value = await self._stored(gateway, valkey)
        other = gateway.key_of(ask("b"))
        valkey.command("SET", cache.repository.redis_key(other), value, "PX", 60_000)
        assert await gateway.resolve(ask("b"), provider=Provider("b's")) == "b's"
        assert (await cache.stats()).unreadable >= 1

    @pytest.mark.parametrize(
        "write",
        [
            ("RPUSH", "{}", "x"),
            ("HSET", "{}", "f", "x"),
            ("SADD", "{}", "x"),
            ("ZADD", "{}", "1", "x"),
            ("XADD", "{}", "*", "f", "x"),
        ],
        ids=lambda write: write[0],
    )
    async def test_a_value_of_another_type_is_a_miss(
        self, cache: ResponseCache, valkey: Server, write: tuple[str, ...]
    ):
        gateway = InferenceGateway(Provider(), cache)
        name, _ = await self._stored(gateway, valkey)
        valkey.command("DEL", name)
        valkey.command(*(name if part == "{}" else part for part in write))
        valkey.command("PEXPIRE", name, 60_000)
        assert await outcome(gateway, ask()) is Outcome.MISS
        assert await outcome(gateway, ask()) is Outcome.HIT

    @pytest.mark.parametrize("what", ["marks", "epoch", "log", "size"])
    async def test_a_control_key_of_another_type_costs_no_answer(
        self, cache: ResponseCache, valkey: Server, what: str
    ):
        gateway = InferenceGateway(Provider(), cache)
        name, _ = await self._stored(gateway, valkey)
        control = f"{name[: name.index('}:') + 2]}{what}"
        valkey.command("DEL", control)
        valkey.command("RPUSH", control, "x")
        valkey.command("PEXPIRE", control, 60_000)
        for text in ("a", "a", "b"):
            assert await gateway.resolve(ask(text)) == "Rayleigh"


class TestWhatIsSaid:
    async def test_a_hit_says_its_age_and_what_it_saved(self, cache: ResponseCache):
        usage = {"prompt_tokens": 12, "completion_tokens": 30, "total_tokens": 42}
        provider = Provider(completion("stop", usage=usage))
        provider.gate.clear()
        gateway = InferenceGateway(provider, cache)
        calling = asyncio.create_task(gateway.resolve_detailed(ask(), ttl=100))
        await wait_until_async(lambda: provider.calls, description="the provider is called")
        await asyncio.sleep(0.03)  # how long the provider takes is what a hit saves
        provider.gate.set()
        miss, hit = await calling, await gateway.resolve_detailed(ask())

        assert miss.cache_status == "llmcache; fwd=uri-miss; stored"
        assert (miss.age, miss.tokens_saved, miss.seconds_saved) == (0.0, None, 0.0)
        assert hit.outcome is Outcome.HIT
        assert hit.key == miss.key == gateway.key_of(ask())
        assert "llm:resp:" in str(hit.key)
        assert hit.tokens_saved == Usage(input_tokens=12, output_tokens=30)
        assert hit.seconds_saved >= 0.02
        assert 0 <= hit.age < 30
        name, how, ttl = hit.cache_status.split("; ")
        assert (name, how) == ("llmcache", "hit")
        assert 60 < int(ttl.removeprefix("ttl=")) <= 100

        stats = await cache.stats()
        assert stats.outcomes == {Outcome.MISS: 1, Outcome.HIT: 1}
        assert (stats.saved_input_tokens, stats.saved_output_tokens) == (12, 30)
        assert stats.saved_seconds >= 0.02
        assert stats.provider_seconds >= 0.02

    async def test_a_follower_says_that_its_call_was_collapsed(self, cache: ResponseCache):
        usage = {"prompt_tokens": 5, "completion_tokens": 7}
        provider = Provider(completion("stop", usage=usage))
        provider.gate.clear()
        gateway = InferenceGateway(provider, cache)
        calls = [asyncio.create_task(gateway.resolve_detailed(ask())) for _ in range(3)]
        await wait_until_async(lambda: provider.calls, description="the provider is called")
        provider.gate.set()
        leader, *followers = await asyncio.gather(*calls)
        assert leader.outcome is Outcome.MISS
        for follower in followers:
            assert follower.outcome is Outcome.COALESCED
            assert follower.cache_status == "llmcache; fwd=uri-miss; collapsed"
            assert follower.tokens_saved == Usage(input_tokens=5, output_tokens=7)
        stats = await cache.stats()
        assert stats.hit_rate == pytest.approx(2 / 3)

    async def test_unknown_usage_is_unknown_and_not_zero(self, cache: ResponseCache):
        gateway = InferenceGateway(Provider("text"), cache)
        await gateway.resolve(ask())
        assert (await gateway.resolve_detailed(ask())).tokens_saved is None

    async def test_a_call_that_stores_nothing_says_so(self, cache: ResponseCache):
        gateway = InferenceGateway(Provider(), cache)
        assert (await gateway.resolve_detailed(ask(), ttl=0)).cache_status == "llmcache; fwd=uri-miss"

    async def test_the_numbers_add_up(self, cache: ResponseCache):
        provider = Provider()
        gateway = InferenceGateway(provider, cache)
        for text in ("a", "b", "a", "a"):
            await gateway.resolve(ask(text))
        provider.error = RuntimeError()
        with pytest.raises(RuntimeError):
            await gateway.resolve(ask("c"))
        stats = await cache.stats()
        assert stats.outcomes == {Outcome.MISS: 2, Outcome.HIT: 2}
        assert (stats.requests, stats.hit_rate) == (4, 0.5)
        assert (stats.provider_calls, stats.provider_failures) == (3, 1)
        assert stats.entries == 2
        assert stats.stored_bytes is not None
        assert stats.stored_bytes > 2 * 64
        assert (stats.unreadable, stats.evicted, stats.breaker_openings) == (0, 0, 0)
        assert "4 requests (2 hit, 2 miss), hit rate 50.0%" in str(stats)

    async def test_stats_are_a_copy(self, cache: ResponseCache):
        before = await cache.stats()
        await InferenceGateway(Provider(), cache).resolve(ask())
        assert before.requests == 0

    async def test_an_observer_that_raises_reaches_nobody(self, valkey: Server, namespace: str):
        seen: list[Any] = []

        class Raises:
            def on_event(self, _event: Any) -> None:
                raise ZeroDivisionError

        class Sees:
            def on_event(self, event: Any) -> None:
                seen.append(event)

        async with opened(
            valkey.url, Provider(), namespace=namespace, observers=[Raises(), Sees()]
        ) as gateway:
            assert await outcome(gateway, ask()) is Outcome.MISS
            assert await outcome(gateway, ask()) is Outcome.HIT
        assert [event.outcome for event in seen if hasattr(event, "outcome")] == [Outcome.MISS, Outcome.HIT]


class TestStreams:
    async def test_chunks_pass_as_they_come_and_are_kept(self, cache: ResponseCache):
        provider = Narrator("Ray", "", "leigh")
        gateway = InferenceGateway(provider, cache)
        assert await read(gateway.stream(ask())) == ["Ray", "", "leigh"]
        assert "".join(await read(gateway.stream(ask()))) == "Rayleigh"
        assert await gateway.resolve(ask()) == "Rayleigh"
        assert (provider.streams, provider.calls) == (1, 0)
        assert (await cache.stats()).outcomes == {Outcome.MISS: 1, Outcome.HIT: 2}

    async def test_chunks_are_not_held_back_until_the_end(self, cache: ResponseCache):
        may_end = asyncio.Event()

        class Slow(Narrator):
            async def stream(self, _query: Any) -> AsyncIterator[str]:
                yield "first"
                await may_end.wait()
                yield "last"

        chunks = InferenceGateway(Slow(), cache).stream(ask())
        assert await anext(chunks) == "first"
        may_end.set()
        assert await read(chunks) == ["last"]

    async def test_a_stored_answer_streams(self, cache: ResponseCache):
        provider = Narrator("Ray", "leigh")
        gateway = InferenceGateway(provider, cache)
        await gateway.resolve(ask())
        assert await read(gateway.stream(ask())) == ["Rayleigh"]
        assert provider.streams == 0

    async def test_a_stream_without_chunks_is_an_empty_answer(self, cache: ResponseCache):
        provider = Narrator()
        gateway = InferenceGateway(provider, cache)
        assert await read(gateway.stream(ask())) == []
        assert await gateway.resolve(ask()) == ""
        assert provider.calls == 0

    async def test_a_reader_that_leaves_closes_the_provider_s_stream_and_keeps_nothing(
        self, cache: ResponseCache, valkey: Server, namespace: str
    ):
        class Hesitant(Narrator):
            async def stream(self, query: Any) -> AsyncIterator[Any]:
                async with contextlib.aclosing(super().stream(query)) as chunks:
                    async for chunk in chunks:
                        yield chunk
                        if self.streams == 1:
                            await asyncio.Event().wait()

        provider = Hesitant("a", "b", "c")
        gateway = InferenceGateway(provider, cache)
        async with contextlib.aclosing(gateway.stream(ask())) as chunks:
            async for _ in chunks:
                break
        assert provider.closed == 1
        assert not keys_of(valkey, namespace, "resp")
        assert not keys_of(valkey, namespace, "lease")
        assert not keys_of(valkey, namespace, "chunks")
        assert await read(gateway.stream(ask())) == ["a", "b", "c"]

    async def test_a_reader_that_leaves_after_the_provider_s_end_loses_nothing_that_was_paid_for(
        self, cache: ResponseCache
    ):
        provider = Narrator("a", "b", "c")
        gateway = InferenceGateway(provider, cache)
        async with contextlib.aclosing(gateway.stream(ask())) as chunks:
            async for _ in chunks:
                await wait_until_async(lambda: provider.closed, description="the provider has ended")
                break
        assert await read(gateway.stream(ask())) == ["abc"]
        assert provider.streams == 1

    async def test_a_reader_that_is_cancelled_closes_the_provider_s_stream_and_keeps_nothing(
        self, cache: ResponseCache, valkey: Server, namespace: str
    ):
        begun, closed = asyncio.Event(), asyncio.Event()

        class Endless(Narrator):
            async def stream(self, _query: Any) -> AsyncIterator[str]:
                try:
                    yield "a"
                    begun.set()
                    await asyncio.Event().wait()
                finally:
                    closed.set()

        reading = asyncio.create_task(read(InferenceGateway(Endless(), cache).stream(ask())))
        await begun.wait()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert closed.is_set()
        assert not keys_of(valkey, namespace, "resp")
        assert not keys_of(valkey, namespace, "lease")

    async def test_a_stream_that_breaks_off_raises_the_provider_s_error_and_keeps_nothing(
        self, cache: ResponseCache, valkey: Server, namespace: str
    ):
        error = ConnectionError("reset")
        gateway = InferenceGateway(Narrator("a", "b", "c", broken=(2, error)), cache)
        chunks = gateway.stream(ask())
        assert [await anext(chunks), await anext(chunks)] == ["a", "b"]
        with pytest.raises(ConnectionError) as caught:
            await anext(chunks)
        assert caught.value is error
        assert not keys_of(valkey, namespace, "resp")
        stats = await cache.stats()
        assert (stats.provider_calls, stats.provider_failures) == (1, 1)

    async def test_chunks_that_are_no_text_pass_and_are_not_kept(self, cache: ResponseCache):
        chunks = [{"delta": "a"}, object()]
        gateway = InferenceGateway(Narrator(*chunks), cache)
        assert await read(gateway.stream(ask())) == chunks
        assert (await cache.stats()).refusals == {"no_codec": 1}

    async def test_ttl_0_streams_what_is_stored_and_stores_nothing(self, cache: ResponseCache):
        provider = Narrator("a", "b")
        gateway = InferenceGateway(provider, cache)
        assert await read(gateway.stream(ask(), ttl=0)) == ["a", "b"]
        assert await outcome(gateway, ask(), ttl=0) is Outcome.MISS
        await gateway.resolve(ask())
        assert await read(gateway.stream(ask(), ttl=0)) == ["ab"]

    async def test_a_question_without_canonical_form_streams(self, cache: ResponseCache):
        gateway = InferenceGateway(Narrator("a", "b"), cache)
        for _ in range(2):
            assert await read(gateway.stream(ask(tool=object()))) == ["a", "b"]
        assert (await cache.stats()).outcomes == {Outcome.BYPASS: 2}

    async def test_any_async_iterator_is_a_stream(self, cache: ResponseCache):
        class Chunks:
            def __init__(self) -> None:
                self.left = ["a", "b"]

            def __aiter__(self) -> Chunks:
                return self

            async def __anext__(self) -> str:
                if not self.left:
                    raise StopAsyncIteration
                return self.left.pop(0)

        class Iterates(Narrator):
            def stream(self, _query: Any) -> Chunks:  # type: ignore[override]
                return Chunks()

        gateway = InferenceGateway(Iterates(), cache)
        assert await read(gateway.stream(ask())) == ["a", "b"]
        assert await gateway.resolve(ask()) == "ab"

    async def test_a_provider_that_cannot_stream_is_a_config_error(self, cache: ResponseCache):
        with pytest.raises(ConfigError):
            await read(InferenceGateway(Provider(), cache).stream(ask()))

    async def test_an_invalidation_during_a_stream_keeps_it_from_being_stored(self, cache: ResponseCache):
        gateway = InferenceGateway(Narrator("old", "answer"), cache)
        chunks = gateway.stream(ask())
        assert await anext(chunks) == "old"
        await gateway.invalidate(ask())
        assert await read(chunks) == ["answer"]
        assert await outcome(gateway, ask()) is Outcome.MISS


class TestWays:
    """The ways to say which server, and whose connection it is."""

    async def test_a_bare_repository_is_a_cache(self, valkey: Server, namespace: str):
        config = CacheConfig(namespace=namespace, **PATIENT)
        provider = Provider()
        async with InferenceGateway(
            provider, ResponseRepository(valkey.url, config=config, default_ttl=77)
        ) as gateway:
            assert [await outcome(gateway, ask()) for _ in range(2)] == [Outcome.MISS, Outcome.HIT]
            name = gateway.cache.repository.redis_key(gateway.key_of(ask()))
            assert 60_000 < valkey.command("PTTL", name) <= 77_000

    @pytest.mark.parametrize("decode", [False, True])
    @pytest.mark.parametrize("protocol", [2, 3])
    async def test_a_client_of_one_s_own_works_and_stays_open(
        self, valkey: Server, namespace: str, decode: bool, protocol: int
    ):
        async with aioredis.Redis.from_url(valkey.url, decode_responses=decode, protocol=protocol) as client:
            repository = ResponseRepository(client=client, config=CacheConfig(namespace=namespace, **PATIENT))
            async with InferenceGateway(Provider({"b": b"\xff"}), repository) as gateway:
                assert [await outcome(gateway, ask()) for _ in range(2)] == [Outcome.MISS, Outcome.HIT]
                assert await gateway.invalidate(ask())
                await gateway.resolve(ask())
                assert await repository.clear() == 1
            pong = await client.execute_command("ECHO", "still there")
            assert pong == ("still there" if decode else b"still there")

    @pytest.mark.parametrize("decode", [False, True])
    async def test_a_cluster_client_of_one_s_own_works_and_stays_open(
        self, cluster: Cluster, namespace: str, decode: bool
    ):
        port = cluster.nodes[0].port
        async with RedisCluster(host="127.0.0.1", port=port, decode_responses=decode) as client:
            config = CacheConfig(namespace=namespace, **PATIENT)
            async with InferenceGateway(Provider(), ResponseRepository(client=client, config=config)) as own:
                for text in "abcde":
                    assert [await outcome(own, ask(text)) for _ in range(2)] == [Outcome.MISS, Outcome.HIT]
                assert await own.cache.clear() == 5
            assert await client.set(namespace, "x", ex=60)

    async def test_a_synchronous_client_is_refused_at_once(self, valkey: Server):
        with redis.Redis.from_url(valkey.url) as client, pytest.raises(ConfigError, match="synchronous"):
            ResponseRepository(client=client)

    async def test_a_url_and_a_client_are_one_too_many(self, valkey: Server):
        async with aioredis.Redis.from_url(valkey.url) as client:
            with pytest.raises(ConfigError):
                ResponseRepository(valkey.url, client=client)

    async def test_a_closed_cache_opens_again(self, valkey: Server, namespace: str):
        gateway = InferenceGateway(
            Provider(), ResponseCache.from_url(valkey.url, namespace=namespace, **PATIENT)
        )
        for expected in (Outcome.MISS, Outcome.HIT):
            async with gateway:
                assert await outcome(gateway, ask()) is expected
            await gateway.aclose()


class TestBounds:
    @pytest.mark.parametrize("kind", ["valkey", "redis8"])
    async def test_evict_stale_evicts_down_to_its_bound_and_keeps_what_was_read_lately(
        self, kind: str, request: pytest.FixtureRequest, namespace: str
    ):
        server = request.getfixturevalue(kind)
        provider = Provider()
        async with opened(server.url, provider, namespace=namespace) as gateway:
            for number in range(30):
                await gateway.resolve(ask(str(number)))
            lately = range(0, 10, 2)
            for number in lately:
                await gateway.resolve(ask(str(number)))
            assert await gateway.cache.repository.evict_stale(max_keys=12) == 18
            assert len(keys_of(server, namespace, "resp")) == 12
            for number in (*lately, *range(23, 30)):
                assert await outcome(gateway, ask(str(number)), ttl=0) is Outcome.HIT
            stats = await gateway.cache.stats()
            assert (stats.entries, stats.evicted) == (12, 18)
            assert await gateway.cache.repository.evict_stale(max_keys=12) == 0
            assert await gateway.cache.repository.evict_stale(max_keys=0) == 12
            assert not keys_of(server, namespace, "resp")

    async def test_evict_stale_keeps_its_bound_in_a_cluster(self, cluster: Cluster, namespace: str):
        async with opened(cluster.url, Provider(), namespace=namespace) as gateway:
            for number in range(40):
                await gateway.resolve(ask(str(number)))
            assert await gateway.cache.repository.evict_stale(max_keys=15) == 25
            assert sum(len(keys_of(node, namespace, "resp")) for node in cluster.nodes) == 15

    async def test_evict_stale_touches_no_other_namespace(
        self, cache: ResponseCache, valkey: Server, namespace: str
    ):
        gateway = InferenceGateway(Provider(), cache)
        await gateway.resolve(ask(), namespace=f"{namespace}.0")
        await gateway.resolve(ask())
        assert await cache.repository.evict_stale(max_keys=0) == 1
        assert len(keys_of(valkey, f"{namespace}.0", "resp")) == 1

    async def test_a_bound_on_entries_holds_and_the_newest_stay(self, valkey: Server, namespace: str):
        async with opened(valkey.url, Provider(), namespace=namespace, max_entries=10) as gateway:
            for number in range(25):
                await gateway.resolve(ask(str(number)))
                assert len(keys_of(valkey, namespace, "resp")) <= 10
            for number in range(15, 25):
                assert await outcome(gateway, ask(str(number)), ttl=0) is Outcome.HIT
            assert (await gateway.cache.stats()).evicted == 15

    async def test_a_bound_on_bytes_holds(self, valkey: Server, namespace: str):
        provider = Provider(lambda: "x" * 500)
        async with opened(valkey.url, provider, namespace=namespace, max_bytes=5000) as gateway:
            for number in range(25):
                await gateway.resolve(ask(str(number)))
                names = keys_of(valkey, namespace, "resp")
                assert sum(valkey.command("STRLEN", name) for name in names) <= 5000
            assert await outcome(gateway, ask("24")) is Outcome.HIT

    async def test_an_entry_that_alone_breaks_the_bound_is_refused_not_stored_and_evicted(
        self, valkey: Server, namespace: str
    ):
        provider = Provider("x" * 5000)
        async with opened(
            valkey.url, provider, namespace=namespace, max_bytes=4096, compress_from=10**6
        ) as gateway:
            await gateway.resolve(ask())
            assert (await gateway.cache.stats()).refusals == {"too_big": 1}


class OddCodec(PlainCodec):
    """A codec of somebody else's, with facts that nobody expects."""

    def __init__(self, facts: Any, *, decodes: bool = True) -> None:
        self._facts = facts
        self._decodes = decodes

    def encode(self, answer: Any) -> EncodedAnswer:
        return EncodedAnswer(kind=self.kind, payload=super().encode(answer).payload, facts=self._facts)

    def decode(self, encoded: EncodedAnswer) -> Any:
        if not self._decodes:
            raise ValueError(f"what is this: {super().decode(encoded)}")
        return super().decode(encoded)


class TestCodecsOfOthers:
    """Whatever a codec does, the answer that was paid for is returned, and no lease stays."""

    @pytest.mark.parametrize(
        "facts",
        [
            AnswerFacts(model="lone surrogate \ud800"),
            AnswerFacts(usage=Usage(input_tokens=2**80)),
            AnswerFacts(finish_reasons=(None,)),  # type: ignore[arg-type]
            AnswerFacts(model=object()),  # type: ignore[arg-type]
            None,
        ],
        ids=["surrogate", "too large", "None", "object", "no facts"],
    )
    async def test_odd_facts_are_no_error_of_the_caller_s(self, valkey: Server, namespace: str, facts: Any):
        provider = Provider("paid for")
        provider.codec = OddCodec(facts)
        async with InferenceGateway(
            provider, ResponseCache.from_url(valkey.url, namespace=namespace, **PATIENT)
        ) as gateway:
            assert await gateway.resolve("x") == "paid for"
            assert sum((await gateway.cache.stats()).refusals.values()) == 1
        assert not valkey.command("KEYS", "*:lease:*")

    async def test_answers_that_cannot_be_decoded_are_shared_and_never_logged(
        self, valkey: Server, namespace: str, caplog: pytest.LogCaptureFixture
    ):
        provider = Provider("a private answer")
        provider.codec = OddCodec(AnswerFacts(), decodes=False)
        async with InferenceGateway(
            provider, ResponseCache.from_url(valkey.url, namespace=namespace, **PATIENT)
        ) as gateway:
            answers = await asyncio.gather(*(gateway.resolve("x") for _ in range(3)))
            assert answers == ["a private answer"] * 3
            assert await gateway.resolve("x") == "a private answer"
        assert "ValueError" in caplog.text
        assert "private" not in caplog.text


class TestUnrulyProviders:
    async def test_a_synchronous_provider_that_runs_dry_is_an_error_and_no_hang(
        self, valkey: Server, namespace: str
    ):
        cache = ResponseCache.from_url(valkey.url, namespace=namespace, **PATIENT)
        async with InferenceGateway(lambda _query: next(iter(())), cache) as gateway:
            with pytest.raises(RuntimeError, match="StopIteration"):
                await asyncio.wait_for(gateway.resolve("x"), 5)

    @pytest.mark.parametrize("fails", [True, False])
    async def test_a_stream_that_cannot_be_closed_spoils_nothing(
        self, valkey: Server, namespace: str, fails: bool
    ):
        class Chunks:
            def __init__(self) -> None:
                self.left = ["a", "b"]

            def __aiter__(self) -> Chunks:
                return self

            async def __anext__(self) -> str:
                if self.left:
                    return self.left.pop(0)
                if fails:
                    raise ValueError("the provider's own")
                raise StopAsyncIteration

            async def aclose(self) -> None:
                raise RuntimeError("close failed")

        class Streaming:
            async def complete(self, _query: Any) -> str:
                return "not streamed"

            def stream(self, _query: Any) -> Chunks:
                return Chunks()

        cache = ResponseCache.from_url(valkey.url, namespace=namespace, **PATIENT)
        async with InferenceGateway(Streaming(), cache) as gateway:
            if fails:
                with pytest.raises(ValueError, match="the provider's own"):
                    [chunk async for chunk in gateway.stream("x")]
            else:
                assert [chunk async for chunk in gateway.stream("x")] == ["a", "b"]
                assert await gateway.resolve("x") == "ab"
