"""`llmcache inspect`: what is said of one entry, by any of its names, and what is not."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from entries import entry_of, key_of
from test_ls import HOSTILE, PATIENT, fill, told

from llmcache_plugins import CacheConfig, ResponseRepository
from llmcache_plugins.answers.plain import pack
from llmcache_plugins.keys import CacheKey, encode_name
from llmcache_plugins.models import AnswerFacts, EncodedAnswer
from llmcache_plugins.repository import new_token

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from servers import Cluster, Server

    Called = Callable[..., tuple[int, str, str]]


def with_repository(
    server: Server | Cluster, work: Callable[[ResponseRepository], Awaitable[Any]], **config: Any
) -> Any:
    async def do_it() -> Any:
        async with ResponseRepository(server.url, config=CacheConfig(**PATIENT, **config)) as repository:
            return await work(repository)

    return asyncio.run(do_it())


@pytest.fixture
def where(server: Server | Cluster, namespace: str) -> tuple[str, ...]:
    """Return the options for a namespace with one entry, "q", on each kind of server."""
    fill(server, {(namespace, "q"): told()})
    return ("--url", server.url, "--namespace", namespace)


class TestNames:
    def test_each_name_of_an_entry_finds_it(
        self, server: Server | Cluster, where: tuple[str, ...], namespace: str, called: Called
    ):
        key = key_of("q", namespace=namespace)
        redis_key = key.redis_key(buckets=64 if len(server.nodes) > 1 else 1)
        digest = key.digest
        for name in (str(key), digest, digest[:8], digest[:20].upper(), f"llm:resp:{digest[:9]}"):
            code, out, err = called("inspect", name, *where, "--json")
            assert (code, err) == (0, "")
            said = json.loads(out)
            assert (said["key"], said["redis_key"]) == (str(key), redis_key)
            assert said["entry"]["model"] == "m"
        # It says the namespace itself, whatever is configured.
        for more in (where[:2], (*where[:2], "--namespace", "another", "--tenant", "alice")):
            code, out, _ = called("inspect", redis_key, *more, "--json")
            assert (code, json.loads(out)["namespace"]) == (0, namespace)

    def test_digits_of_several_entries_name_none_and_list_them(
        self, valkey: Server, namespace: str, called: Called
    ):
        digests = ["0123456789" + c * 54 for c in "abc"]

        async def fill_all(repository: ResponseRepository) -> None:
            for digest in digests:
                await repository.persist(CacheKey(digest=digest, namespace=namespace), told())
            await repository.delete(CacheKey(digest=digests[2], namespace=namespace))

        with_repository(valkey, fill_all)
        where = ("--url", valkey.url, "--namespace", namespace, "--json")
        code, out, err = called("inspect", "01234567", *where)
        assert (code, json.loads(out)["error"]["type"]) == (2, "CannotRun")
        assert [digest in err for digest in digests] == [True, True, False]
        assert called("inspect", "0123456789a", *where)[0] == 0

    def test_what_has_expired_is_not_in_the_way(self, valkey: Server, namespace: str, called: Called):
        async def fill_all(repository: ResponseRepository) -> None:
            for c in "ab":
                await repository.persist(CacheKey(digest="01234567" + c * 56, namespace=namespace), told())

        with_repository(valkey, fill_all)
        valkey.command("DEL", f"llm:{{{namespace}.0}}:resp:01234567{'a' * 56}")
        code, out, _ = called("inspect", "01234567", "--url", valkey.url, "--namespace", namespace, "--json")
        assert (code, json.loads(out)["key"][9:18]) == (0, "01234567b")

    @pytest.mark.parametrize(
        "name",
        ["", "q", "0123456", "0" * 65, "other:resp:" + "0" * 64, "llm:resp:", "other:{x.0}:resp:" + "0" * 64],
    )
    def test_what_is_no_name_is_said_before_a_server_is_asked(self, called: Called, name: str):
        code, out, err = called("inspect", name, "--url", "redis://127.0.0.1:1")
        assert (code, out) == (2, "")
        assert "key" in err
        assert len(err.splitlines()) == 1

    def test_a_hostile_namespace_and_one_too_long_for_keys(self, valkey: Server, called: Called):
        long = "n" * 100
        fill(valkey, {(HOSTILE, "q"): told(), (long, "q"): told()})
        for name in (HOSTILE, long):
            key = key_of("q", namespace=name)
            where = ("--url", valkey.url, "--namespace", name)
            code, out, _ = called("inspect", key.digest, *where)
            assert (code, "\x1b" in out, "\u202e" in out) == (0, False, False)
            assert called("inspect", key.redis_key(), *where)[0] == 0
        assert called("inspect", key_of("q", namespace=HOSTILE).redis_key(), "--url", valkey.url)[0] == 0
        code, _, err = called("inspect", key_of("q", namespace=long).redis_key(), "--url", valkey.url)
        assert (code, "say it with --namespace" in err) == (2, True)


class TestWhatIsSaid:
    def test_all_but_the_answer(self, where: tuple[str, ...], namespace: str, called: Called):
        code, out, _ = called("inspect", key_of("q", namespace=namespace).digest, *where)
        assert code == 0
        for text in (str(key_of("q", namespace=namespace)), "m-2026", "for 17m", "for 33m", "12 in, 34 out",
                     "2.5 s", "doc:7, v2", "plain", encode_name(namespace)):  # fmt: skip
            assert text in out
        assert "a secret answer" not in out

    def test_the_answer_for_who_asks(self, where: tuple[str, ...], namespace: str, called: Called):
        name = key_of("q", namespace=namespace).digest
        assert called("inspect", name, *where, "--answer")[1].endswith("\n\na secret answer\n")
        _, out, _ = called("inspect", name, *where, "--answer", "--json")
        assert json.loads(out)["answer"] == {"text": "a secret answer", "data": "a secret answer"}

    def test_answers_of_other_shapes(self, valkey: Server, namespace: str, called: Called):
        chat = {"choices": [{"message": {"content": "Hello,\n\x1b[2Jthere"}}], "n": float("nan")}
        vector = {"data": [{"embedding": [0.5]}], "raw": b"\x00"}
        now = time.time()
        entries = {}
        for name, payload in (("chat", pack(chat)), ("vector", pack(vector)), ("junk", b"\xc1")):
            answer = EncodedAnswer(kind="openai.chat", payload=payload, facts=AnswerFacts())
            entries[namespace, name] = told(answer="")
            entries[namespace, name] = type(entries[namespace, name])(
                answer=answer, created=now, fresh_until=now + 60
            )
        fill(valkey, entries)
        where = ("--url", valkey.url, "--namespace", namespace, "--answer")
        said = {}
        for name in ("chat", "vector", "junk"):
            digest = key_of(name, namespace=namespace).digest
            code, out, _ = called("inspect", digest, *where, "--json")
            said[name] = json.loads(out)["answer"]
            assert code == 0
        assert said["chat"]["data"]["n"] is None
        assert said["vector"] == {"text": "", "data": {"data": [{"embedding": [0.5]}], "raw": "AA=="}}
        assert said["junk"] == {"text": "", "data": None}
        _, out, _ = called("inspect", key_of("chat", namespace=namespace).digest, *where)
        assert out.endswith("Hello,\n\\x1b[2Jthere\n")
        _, out, _ = called("inspect", key_of("vector", namespace=namespace).digest, *where)
        assert '"embedding"' in out

    def test_whether_somebody_fetches_it_and_never_who(
        self, server: Server | Cluster, where: tuple[str, ...], namespace: str, called: Called
    ):
        token, other = new_token(), new_token()
        lost, held = key_of("lost", namespace=namespace), key_of("q", namespace=namespace)

        async def take(repository: ResponseRepository) -> None:
            await repository.leases.acquire(held, token=token, seen="*")
            await repository.leases.acquire(lost, token=other)

        with_repository(server, take, lease_ttl=60.0)
        code, out, _ = called("inspect", held.digest, *where, "--json")
        assert (code, 40 < json.loads(out)["lease_seconds"] <= 60) == (0, True)
        code, text, _ = called("inspect", lost.digest, *where)
        assert (code, "No valid entry" in text, "held, for" in text) == (1, True, True)
        assert not any(name in out + text for name in (token, other))

        async def void(repository: ResponseRepository) -> None:
            await repository.delete(lost)

        with_repository(server, void)
        assert json.loads(called("inspect", lost.digest, *where, "--json")[1])["lease_seconds"] is None

    def test_whether_a_vector_lies_beside_it(
        self, server: Server | Cluster, where: tuple[str, ...], namespace: str, called: Called
    ):
        key = key_of("q", namespace=namespace)

        async def attach(repository: ResponseRepository) -> None:
            found = await repository.fetch(key, touch=False)
            for embedder in ("0" * 12, "1" * 12):
                await repository.vectors.attach(
                    key,
                    fence=found.fence,
                    embedder=embedder,
                    scope="0" * 64,
                    text="q",
                    canonical="1" * 64,
                    vector=b"\x00" * 8,
                )

        assert json.loads(called("inspect", key.digest, *where, "--json")[1])["vectors"] == 0
        with_repository(server, attach)
        assert json.loads(called("inspect", key.digest, *where, "--json")[1])["vectors"] == 2

    def test_it_is_no_use_of_the_entry_and_writes_nothing(
        self, valkey: Server, namespace: str, called: Called
    ):
        fill(valkey, {(namespace, "a"): told(), (namespace, "b"): entry_of("x")})

        def all_there_is() -> dict[bytes, Any]:
            keys = sorted(valkey.command("KEYS", "*"))
            return {key: valkey.command("DUMP", key) for key in keys}

        before = all_there_is()
        where = ("--url", valkey.url, "--namespace", namespace)
        for name in ("a", "b", "c"):
            called("inspect", key_of(name, namespace=namespace).digest, *where)
        assert all_there_is() == before


class TestNothingThere:
    def test_a_key_without_an_entry_or_with_a_void_one_ends_with_1(
        self, server: Server | Cluster, where: tuple[str, ...], namespace: str, called: Called
    ):
        for name in ("0" * 64, "0" * 8):
            code, out, err = called("inspect", name, *where)
            assert (code, err) == (1, "")
            assert out.startswith("No valid entry ")
            code, out, _ = called("inspect", name, *where, "--json")
            assert (code, json.loads(out)["entry"]) == (1, None)

        async def void(repository: ResponseRepository) -> None:
            await repository.invalidate(namespace, models=["m"])

        with_repository(server, void)
        for name in (key_of("q", namespace=namespace).digest, key_of("q", namespace=namespace).digest[:8]):
            assert called("inspect", name, *where, "--answer")[0] == 1

    def test_bytes_of_others_are_no_entry(self, valkey: Server, namespace: str, called: Called):
        for name, junk in (("0" * 64, "junk"), ("1" * 64, "1" * 100)):
            valkey.command("SET", f"llm:{{{namespace}.0}}:resp:{name}", junk, "EX", "100")
            code, out, _ = called("inspect", name, "--url", valkey.url, "--namespace", namespace)
            assert (code, "junk" in out) == (1, False)

    def test_a_server_that_is_away_is_said_in_a_sentence(self, called: Called):
        code, out, err = called("inspect", "0" * 64, "--url", "redis://:hush@127.0.0.1:1", "--json")
        assert (code, json.loads(out)["error"]["type"]) == (2, "RepositoryUnavailable")
        assert len(err.splitlines()) == 1
        assert "hush" not in out + err
