"""What one call may say about how it is cached, what the proxy adds, and what nobody is told."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any

import litellm
import pytest
from litellm_calls import (  # noqa: F401
    QUIET,
    Chat,
    cache,
    chat,
    make,
    outcomes,
    quiet,
    text_of,
    written,
)
from waiting import wait_until_async

from llmcache_plugins import CacheMiss, CachePolicy, ConfigError, PolicyRouter, ResponseCache
from llmcache_plugins.adapters.litellm import LiteLLMCache

if TYPE_CHECKING:
    from litellm_calls import Make
    from servers import Server

    from llmcache_plugins.testing.provider_server import ProviderServer

pytestmark = QUIET


async def ask(chat: Chat, asked: LiteLLMCache, /, **more: Any) -> str:
    answer = await litellm.acompletion(**chat(), **more)
    await written(asked)
    return text_of(answer)


class TestControls:
    @pytest.mark.parametrize("ttl", [0.3, "0.3"], ids=["a number", "its spelling"])
    @pytest.mark.parametrize("inside", [True, False], ids=["inside", "beside"])
    async def test_an_answer_lives_for_its_ttl(
        self, stand_in: ProviderServer, cache: LiteLLMCache, chat: Chat, ttl: Any, inside: bool
    ):
        said: Any = {"cache": {"ttl": ttl}} if inside else {"ttl": ttl}
        await ask(chat, cache, **said)

        async def is_gone() -> bool:
            plan = cache._desk.key_of(chat()).plan
            return await cache.response_cache.acquire(plan.key, codec=plan.codec, ttl=0.0) is None

        await wait_until_async(is_gone, description="the answer is gone", timeout=15)
        await ask(chat, cache)
        assert stand_in.calls == 2

    @pytest.mark.parametrize("name", ["s-maxage", "s-max-age"])
    async def test_an_older_answer_than_wanted_is_none(
        self, stand_in: ProviderServer, cache: LiteLLMCache, chat: Chat, name: str
    ):
        await ask(chat, cache)
        await ask(chat, cache, cache={name: "3600"})
        assert stand_in.calls == 1
        calls = (litellm.acompletion(**chat(), cache={name: 0.0}) for _ in range(10))
        answers = await asyncio.gather(*calls)
        assert stand_in.calls == 2  # and those who find it too old at one time share one call
        await written(cache)
        newest = await litellm.acompletion(**chat())
        assert newest.id == answers[0].id
        assert stand_in.calls == 2

    async def test_no_cache_asks_and_replaces(
        self, stand_in: ProviderServer, cache: LiteLLMCache, chat: Chat
    ):
        await ask(chat, cache)
        fresh = await litellm.acompletion(**chat(), cache={"no-cache": True})
        await written(cache)
        assert (await litellm.acompletion(**chat())).id == fresh.id
        assert stand_in.calls == 2

    async def test_no_store_asks_and_keeps_nothing_and_nobody_waits_for_it(
        self, stand_in: ProviderServer, cache: LiteLLMCache, chat: Chat
    ):
        await asyncio.gather(*(ask(chat, cache, cache={"no-store": True}) for _ in range(3)))
        assert stand_in.calls == 3
        await ask(chat, cache)
        assert stand_in.calls == 4
        await ask(chat, cache, cache={"no-store": True})
        assert stand_in.calls == 4  # it takes what is there

    async def test_a_namespace_is_a_world_of_its_own(
        self, stand_in: ProviderServer, cache: LiteLLMCache, chat: Chat
    ):
        for said in ({"cache": {"namespace": "other"}}, {"metadata": {"redis_namespace": "other"}}):
            await ask(chat, cache, **said)
        assert stand_in.calls == 1
        await ask(chat, cache)
        assert stand_in.calls == 2
        await cache.aclear("other")
        await ask(chat, cache)
        assert stand_in.calls == 2

    async def test_only_who_asks_for_it_if_it_is_off_by_default(
        self, stand_in: ProviderServer, make: Make, chat: Chat
    ):
        cache = make(mode="default_off")
        for _ in range(2):
            await ask(chat, cache)
        assert stand_in.calls == 2
        assert await outcomes(cache) == {}
        for _ in range(2):
            await ask(chat, cache, cache={"use-cache": True})
        assert stand_in.calls == 3

    async def test_our_modes(self, stand_in: ProviderServer, cache: LiteLLMCache, chat: Chat):
        with pytest.raises(CacheMiss):
            await litellm.acompletion(**chat(), cache={"mode": "read_only"})
        with pytest.raises(CacheMiss):
            await asyncio.to_thread(litellm.completion, **chat(), cache={"mode": "read_only"})
        assert stand_in.calls == 0
        await ask(chat, cache)
        await ask(chat, cache, cache={"mode": "read_only"})
        assert stand_in.calls == 1
        await ask(chat, cache, cache={"mode": "off"})
        assert stand_in.calls == 2
        fresh = await litellm.acompletion(**chat(), cache={"mode": "refresh"})
        await written(cache)
        assert (await litellm.acompletion(**chat())).id == fresh.id
        assert stand_in.calls == 3

    async def test_a_mode_for_all_calls(self, stand_in: ProviderServer, make: Make, chat: Chat):
        make(mode="read_only")
        with pytest.raises(CacheMiss):
            await litellm.acompletion(**chat())
        assert stand_in.calls == 0

    @pytest.mark.parametrize(
        "wrong",
        [
            {"ttl": "soon"},
            {"ttl": -1},
            {"ttl": float("nan")},
            {"ttl": True},
            {"s-maxage": []},
            {"no-store": "yes"},
            {"no-cache": 1},
            {"use-cache": "true"},
            {"namespace": 7},
            {"namespace": ""},
            {"tenant": {}},
            {"mode": "sometimes"},
            {"namspace": "secret-team"},
        ],
        ids=repr,
    )
    async def test_a_wrong_word_is_said_once_and_the_provider_asked(
        self,
        stand_in: ProviderServer,
        cache: LiteLLMCache,
        chat: Chat,
        wrong: dict[str, Any],
        caplog: pytest.LogCaptureFixture,
    ):
        for _ in range(2):
            assert await ask(chat, cache, cache=wrong)
        assert stand_in.calls == 2
        assert await outcomes(cache) == {"bypass": 2}
        ours = [record.message for record in caplog.records if record.name == "llmcache_plugins"]
        assert len(ours) == 1
        assert "`cache`" in ours[0]
        assert "secret-team" not in ours[0]

    def test_a_mode_that_there_is_not(self, valkey: Server):
        with pytest.raises(ConfigError, match="mode"):
            LiteLLMCache.from_url(valkey.url, mode="sometimes")


class TestTenants:
    def of(self, **said: Any) -> dict[str, Any]:
        return {"metadata": {name: value for name, value in said.items() if value is not None}}

    async def test_the_proxys_teams_have_answers_of_their_own_else_its_keys(
        self, stand_in: ProviderServer, cache: LiteLLMCache, chat: Chat
    ):
        callers = [
            self.of(user_api_key="k1", user_api_key_team_id="red"),
            self.of(user_api_key="k3", user_api_key_team_id="blue"),
            self.of(user_api_key="k4"),
            self.of(user_api_key="k5"),
            self.of(user_api_key="red"),
            self.of(),
        ]
        for caller in callers:
            await ask(chat, cache, **caller)
        assert stand_in.calls == len(callers)
        await ask(chat, cache, **self.of(user_api_key="k2", user_api_key_team_id="red"))
        await ask(chat, cache, litellm_metadata={"user_api_key": "k4"})
        assert stand_in.calls == len(callers)

    async def test_they_share_if_told_to(self, stand_in: ProviderServer, make: Make, chat: Chat):
        cache = make(isolate=False)
        for key in ("k1", "k2"):
            await ask(chat, cache, **self.of(user_api_key=key))
        assert stand_in.calls == 1

    async def test_no_word_of_a_caller_leads_to_another_s_answers(
        self, stand_in: ProviderServer, cache: LiteLLMCache, chat: Chat
    ):
        """The proxy passes on what its callers say in `cache`."""
        red, blue = (self.of(user_api_key_team_id=team) for team in ("red", "blue"))
        await ask(chat, cache, **red)
        place = cache._desk.key_of({**chat(), **red}).plan.key.namespace
        for said in ({"namespace": place}, {"tenant": "red"}, {"tenant": "user_api_key_team_id=red"}):
            before = stand_in.calls
            await ask(chat, cache, cache=said, **blue)
            assert stand_in.calls == before + 1

    async def test_a_tenant_of_one_s_own(self, stand_in: ProviderServer, cache: LiteLLMCache, chat: Chat):
        for tenant in ("a", "b", "a"):
            await ask(chat, cache, cache={"tenant": tenant})
        assert stand_in.calls == 2

    def test_who_they_are_is_in_no_key(self, cache: LiteLLMCache, chat: Chat):
        key = cache._desk.key_of({**chat(), **self.of(user_api_key_team_id="red-team")}).plan.key
        assert "red-team" not in key.namespace
        assert "red-team" not in key.redis_key()


class TestSecrets:
    async def test_the_proxys_page_shows_no_address_and_no_password(self, namespace: str, quiet: None):
        cache = LiteLLMCache.from_url("redis://user:hunter2@secret-host:6379", namespace=namespace)
        seen: set[int] = set()

        def all_in(value: Any) -> str:
            """Go down as LiteLLM's proxy does: into dicts, lists, and what has attributes."""
            if id(value) in seen:
                return ""
            seen.add(id(value))
            if isinstance(value, dict):
                return "".join(f"{name}{all_in(inner)}" for name, inner in value.items())
            if isinstance(value, list | tuple | set):
                return "".join(map(all_in, value))
            return str(value) + (all_in(vars(value)) if hasattr(value, "__dict__") else "")

        for shown in (all_in(vars(cache)), all_in(vars(cache.cache)), repr(cache), repr(cache.cache)):
            assert "hunter2" not in shown
            assert "secret-host" not in shown
        await cache.aclose()

    async def test_no_prompt_answer_or_key_is_logged(
        self, stand_in: ProviderServer, make: Make, chat: Chat, caplog: pytest.LogCaptureFixture
    ):
        caplog.set_level(logging.DEBUG, logger="llmcache_plugins")
        cache = make()
        for more in ({}, {"extra_query": {"at": object()}}, {"cache": {"wrong": "word"}}):
            with contextlib.suppress(Exception):  # what LiteLLM cannot send
                await litellm.acompletion(**{**chat("my secret question"), **more, "api_key": "sk-secret"})
            await written(cache)
        ours = "".join(record.getMessage() for record in caplog.records if "llmcache" in record.name)
        assert "secret" not in ours
        assert "word" not in ours


class TestLife:
    async def test_a_server_that_is_away_costs_no_call_its_answer(
        self, stand_in: ProviderServer, make: Make, chat: Chat
    ):
        cache = make(url="redis://127.0.0.1:1", lookup_budget=0.2, commit_budget=0.2)
        assert (await litellm.acompletion(**chat())).choices
        assert (await asyncio.to_thread(litellm.completion, **chat("two"))).choices
        assert await cache.ping() is False

    async def test_ping_says_whether_the_server_answers(self, cache: LiteLLMCache):
        assert await cache.ping() is True

    async def test_what_the_proxy_would_keep_is_not_kept(self, cache: LiteLLMCache):
        await cache.cache.async_set_cache(key="k", value="v", ttl=3)
        await cache.cache.async_set_cache_pipeline([("k", "v")])
        assert await cache.cache.async_get_cache("k") is None
        assert cache.cache.get_cache("k") is None

    async def test_it_is_emptied(self, stand_in: ProviderServer, cache: LiteLLMCache, chat: Chat):
        await ask(chat, cache)
        await cache.aclear()
        await ask(chat, cache)
        await asyncio.to_thread(cache.clear)
        await ask(chat, cache)
        assert stand_in.calls == 3

    async def test_one_cache_for_all_faces_stays_its_owner_s(
        self, stand_in: ProviderServer, valkey: Server, namespace: str, chat: Chat, quiet: None
    ):
        async with ResponseCache.from_url(valkey.url, namespace=namespace) as owned:
            async with LiteLLMCache(owned) as cache:
                litellm.cache = cache
                await ask(chat, cache)
            assert await owned.get_or_call("q", _answer) == "answer"

    def test_a_block_closes_it(self, valkey: Server, namespace: str):
        with LiteLLMCache.from_url(valkey.url, namespace=namespace) as cache:
            assert cache.get_cache(model="m", messages=[], litellm_call_id="1") is None
            cache._desk.calls.end("1", None)

    def test_long_chats_are_chats(self, cache: LiteLLMCache):
        """LiteLLM's own caches leave those of more than four messages alone."""
        assert cache.should_use_cache(messages=[{"role": "user", "content": "Hi"}] * 5) is True


async def _answer() -> str:
    return "answer"


class TestPolicies:
    async def test_answers_are_forgotten_by_their_tags_and_their_model(
        self, stand_in: ProviderServer, cache: LiteLLMCache, chat: Chat
    ):
        await ask(chat, cache, cache={"tags": ["doc:7"]})
        await cache.response_cache.invalidate(tags=["doc:8"], model="another")
        await ask(chat, cache)
        assert stand_in.calls == 1
        await cache.response_cache.invalidate(tags=["doc:7"])
        await ask(chat, cache)
        assert stand_in.calls == 2
        # As it is sent to the provider.
        await cache.response_cache.invalidate(model="gpt-4o-mini")
        await ask(chat, cache)
        assert stand_in.calls == 3

    async def test_a_version_is_part_of_the_key(
        self, stand_in: ProviderServer, cache: LiteLLMCache, chat: Chat
    ):
        for said in ({"prompt_version": "v1"}, {"prompt_version": "v1"}, {"data_version": 2}, {}):
            await ask(chat, cache, cache=said)
        assert stand_in.calls == 3

    async def test_a_call_names_a_scenario_or_brings_a_policy(
        self, stand_in: ProviderServer, cache: LiteLLMCache, chat: Chat
    ):
        for policy in ("batch", CachePolicy(max_temperature=0.0)):
            await ask(chat, cache, cache={"policy": policy}, temperature=0.7)
        stats = await cache.response_cache.stats()
        assert stats.refusals["temperature"] == 1
        assert stand_in.calls == 2

    async def test_a_router_sees_the_body(self, stand_in: ProviderServer, make: Make, chat: Chat):
        seen: list[Any] = []

        def is_today(request: Any) -> bool:
            seen.append(request)
            return request["messages"][0]["content"] == "today"

        cache = make(policy=PolicyRouter((is_today, CachePolicy(ttl=0))))
        for _ in range(2):
            await ask(chat, cache)
            await litellm.acompletion(**{**chat(), "messages": [{"role": "user", "content": "today"}]})
        assert stand_in.calls == 3
        assert not {"api_key", "litellm_logging_obj"} & seen[0].keys()

    async def test_of_those_who_find_a_stale_answer_one_calls(
        self, stand_in: ProviderServer, make: Make, chat: Chat
    ):
        cache = make(policy=CachePolicy(ttl=0.3, stale_while_revalidate=100))
        await ask(chat, cache)

        async def is_stale() -> bool:
            said = await cache.explain(**chat())
            return bool(said.outcome == "stale")

        await wait_until_async(is_stale, description="it is stale")
        await asyncio.gather(*(litellm.acompletion(**chat()) for _ in range(10)))
        await written(cache)
        assert stand_in.calls == 2
        assert (await outcomes(cache))["stale"] == 9

    @pytest.mark.parametrize(
        "said",
        [{"tags": "doc:7"}, {"tags": [7]}, {"policy": "weekly"}, {"data_version": True}],
        ids=["one tag", "a number", "no scenario", "no version"],
    )
    async def test_what_is_not_understood_is_not_cached(
        self, stand_in: ProviderServer, cache: LiteLLMCache, chat: Chat, said: Any
    ):
        for _ in range(2):
            await ask(chat, cache, cache=said)
        assert stand_in.calls == 2
        assert (await outcomes(cache)) == {"bypass": 2}

    async def test_a_tenant_is_the_one_that_other_faces_call_so(
        self, stand_in: ProviderServer, cache: LiteLLMCache, chat: Chat
    ):
        await ask(chat, cache, cache={"tenant": "acme"})
        await cache.response_cache.invalidate(tenant="bcme")
        await ask(chat, cache, cache={"tenant": "acme"})
        assert stand_in.calls == 1
        assert await cache.response_cache.clear(tenant="acme") == 1
        await ask(chat, cache, cache={"tenant": "acme"})
        assert stand_in.calls == 2


class TestExplain:
    async def test_why_a_call_misses(self, stand_in: ProviderServer, cache: LiteLLMCache, chat: Chat):
        await ask(chat, cache)
        assert (await cache.explain(**chat())).outcome == "hit"
        said = await cache.explain(**chat(), temperature=0.5)
        assert (said.outcome, said.differences) == ("miss", ("temperature",))
        said = await cache.explain(**chat(), cache={"tenent": "acme"})
        assert said.outcome == "bypass"
        assert "tenant" in said.reason
        assert stand_in.calls == 1
