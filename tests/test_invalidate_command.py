"""`llmcache invalidate`: what is forgotten by which option, that it asks, and what it says when it cannot."""

from __future__ import annotations

import asyncio
import io
import json
import sys
from typing import TYPE_CHECKING, Any

import pytest
from entries import key_of
from test_inspect import with_repository
from test_ls import HOSTILE, PATIENT, fill, told

from llmcache_plugins import ResponseCache
from llmcache_plugins.models import Provenance

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from servers import Cluster, Server

    from llmcache_plugins import ResponseRepository

    Called = Callable[..., tuple[int, str, str]]

ABOUT = {
    "seven": Provenance(model="m", tags=("doc:7",)),
    "eight": Provenance(model="m", tags=("doc:8",)),
    "both": Provenance(model="n", tags=("doc:7", "doc:8")),
    "none": Provenance(model="n"),
}


@pytest.fixture
def where(server: Server | Cluster, namespace: str) -> tuple[str, ...]:
    """Return the options for a namespace with four entries, and a neighbour with as many."""
    names = (namespace, f"{namespace}.0")
    fill(server, {(ns, name): told(provenance=what) for ns in names for name, what in ABOUT.items()})
    return ("--url", server.url, "--namespace", namespace)


def served(server: Server | Cluster, namespace: str) -> set[str]:
    """Return which of the four are still given out."""

    async def look(repository: ResponseRepository) -> set[str]:
        found = {name: await repository.fetch(key_of(name, namespace=namespace)) for name in ABOUT}
        return {name for name, one in found.items() if one is not None}

    return with_repository(server, look)


class TestWhatGoes:
    @pytest.mark.parametrize(
        ("options", "stays"),
        [
            (("--tag", "doc:7"), {"eight", "none"}),
            (("--tag", "doc:7", "--tag", "doc:8"), {"none"}),
            (("--model", "n"), {"seven", "eight"}),
            (("--model", "n", "--tag", "doc:8"), {"seven"}),
            (("--all",), set()),
            (("--tag", "doc:9"), set(ABOUT)),
        ],
    )
    def test_by_provenance(
        self,
        server: Server | Cluster,
        namespace: str,
        where: tuple[str, ...],
        called: Called,
        options: tuple[str, ...],
        stays: set[str],
    ):
        code, out, err = called("invalidate", *where, *options, "--yes", "--json")
        assert (code, err) == (0, "")
        assert served(server, namespace) == stays
        assert served(server, f"{namespace}.0") == set(ABOUT)
        said = json.loads(out)
        assert (said["entries"], said["forgotten"], said["namespace"]) == (0, 0, namespace)

    def test_keys_by_any_of_their_names(
        self, server: Server | Cluster, namespace: str, where: tuple[str, ...], called: Called
    ):
        seven, eight = (key_of(name, namespace=namespace) for name in ("seven", "eight"))
        code, out, _ = called(
            "invalidate", *where, "--key", str(seven), "--key", eight.digest[:10], "--yes", "--json"
        )
        assert (code, json.loads(out)["entries"]) == (0, 2)
        assert json.loads(out)["keys"] == [str(seven), str(eight)]
        assert served(server, namespace) == {"both", "none"}
        both = key_of("both", namespace=namespace).redis_key(buckets=64 if len(server.nodes) > 1 else 1)
        code, out, _ = called(
            "invalidate", *where, "--key", both, "--key", "f" * 64, "--model", "n", "--yes", "--json"
        )
        assert (code, json.loads(out)["entries"]) == (0, 1)
        assert served(server, namespace) == set()

    def test_a_request_s_answers_of_every_kind(
        self, valkey: Server, namespace: str, tmp_path: Path, called: Called
    ):
        file = tmp_path / "request.json"
        file.write_text(json.dumps({"model": "m", "prompt": "6ba7b810-9dad-11d1-80b4-00c04fd430c8"}))
        request = json.loads(file.read_text())

        async def store_or_look(*, stores: bool) -> list[bool]:
            settings: dict[str, Any] = {"normalizers": ["uuid"], "prompt_version": "3", **PATIENT}
            async with ResponseCache.from_url(valkey.url, namespace=namespace, **settings) as cache:
                key = cache._intake.read_key(request, kind="openai.chat", options={})
                if stores:
                    await cache.put(cache.key_of(request), "x")
                    await cache.put(key, "x")
                found = [await cache.repository.fetch(one) for one in (cache.key_of(request), key)]
                return [one is not None for one in found]

        assert asyncio.run(store_or_look(stores=True)) == [True, True]
        where = ("--url", valkey.url, "--namespace", namespace, "--request", str(file), "--yes", "--json")
        assert json.loads(called("invalidate", *where)[1])["entries"] == 0
        settings = ("--normalizer", "uuid", "--prompt-version", "3")
        assert json.loads(called("invalidate", *where, *settings)[1])["entries"] == 2
        assert asyncio.run(store_or_look(stores=False)) == [False, False]

    def test_a_tenant_s_and_nobody_else_s(self, valkey: Server, namespace: str, called: Called):
        async def store_or_look(*, stores: bool) -> list[bool]:
            found = []
            async with ResponseCache.from_url(
                valkey.url, namespace=namespace, secret="s", **PATIENT
            ) as cache:
                for tenant in ("alice", "bob"):
                    if stores:
                        await cache.put("q", "x", tenant=tenant, tags=["t"])
                    key = cache.key_of("q", tenant=tenant)
                    found.append(await cache.repository.fetch(key) is not None)
            return found

        assert asyncio.run(store_or_look(stores=True)) == [True, True]
        where = ("--url", valkey.url, "--namespace", namespace, "--secret", "s", "--tenant", "alice")
        code, out, _ = called("invalidate", *where, "--tag", "t", "--yes")
        assert code == 0
        assert out.startswith(f"Tenant 'alice' of '{namespace}' at unix://")
        assert "0 entries removed at once; others that are void are served to nobody" in out
        assert asyncio.run(store_or_look(stores=False)) == [False, True]

    def test_a_hostile_namespace(self, valkey: Server, called: Called):
        fill(valkey, {(HOSTILE, "seven"): told(provenance=ABOUT["seven"])})
        where = ("--url", valkey.url, "--namespace", HOSTILE)
        code, out, _ = called("invalidate", *where, "--tag", "doc:7", "--yes")
        assert (code, "\x1b" in out) == (0, False)
        assert served(valkey, HOSTILE) == set()

    def test_wait_lasts_until_near_caches_have_let_go(self, valkey: Server, namespace: str, called: Called):
        where = ("--url", valkey.url, "--namespace", namespace, "--yes", "--json")
        for what in (("--tag", "x"), ("--key", "0" * 64), ("--all",)):
            code, out, _ = called("invalidate", *where, *what, "--wait")
            assert (code, json.loads(out)["seconds"] >= 1) == (0, True)

    def test_the_namespace_may_be_the_environment_s(
        self, valkey: Server, namespace: str, called: Called, monkeypatch: pytest.MonkeyPatch
    ):
        fill(valkey, {(namespace, "seven"): told(provenance=ABOUT["seven"])})
        monkeypatch.setenv("LLMCACHE_NAMESPACE", namespace)
        monkeypatch.setenv("LLMCACHE_URL", valkey.url)
        assert called("invalidate", "--all", "--yes")[0] == 0
        assert served(valkey, namespace) == set()


class TestAsking:
    class Terminal(io.StringIO):
        """Somebody who types."""

        def isatty(self) -> bool:
            return True

    def test_without_a_terminal_it_needs_yes(
        self, valkey: Server, namespace: str, called: Called, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
        fill(valkey, {(namespace, "seven"): told(provenance=ABOUT["seven"])})
        code, out, err = called("invalidate", "--url", valkey.url, "--namespace", namespace, "--all")
        assert (code, out, "--yes" in err) == (2, "", True)
        assert served(valkey, namespace) == {"seven"}

    @pytest.mark.parametrize(("typed", "code", "stays"), [("y\n", 0, set()), ("n\n", 2, {"seven"})])
    def test_on_a_terminal_it_says_what_would_go(
        self,
        valkey: Server,
        namespace: str,
        called: Called,
        monkeypatch: pytest.MonkeyPatch,
        typed: str,
        code: int,
        stays: set[str],
    ):
        fill(valkey, {(namespace, "seven"): told(provenance=ABOUT["seven"])})
        monkeypatch.setattr(sys, "stdin", self.Terminal(typed))
        key = key_of("seven", namespace=namespace)
        ended, out, err = called(
            *("invalidate", "--url", valkey.url, "--namespace", namespace),
            *("--tag", "a\x1b", "--key", key.digest[:9]),
        )
        what = f"the answers with tag 'a\\x1b', the answer {key} in namespace '{namespace}' at unix://"
        assert f"Forget {what}" in err
        assert ended == code
        assert ("removed at once" in out, "nothing was forgotten" in err) == (code == 0, code == 2)
        assert served(valkey, namespace) == stays


class TestWhatCannotBeDone:
    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ((), "say what to forget"),
            (("--all", "--tag", "x"), "--all is all there is"),
            (("--all", "--key", "0" * 64), "--all is all there is"),
            (("--key", "no-key"), "a key is"),
            (("--key", "0123"), "at least 8"),
            (("--request", "no-such-file.json"), "cannot be read"),
            (("--tag", ""), "a tag is a non-empty string"),
            (("--tag", "x", "--normalizer", "no-such"), "no-such"),
        ],
    )
    def test_wrong_usage(self, valkey: Server, called: Called, options: tuple[str, ...], said: str):
        code, out, err = called("invalidate", "--url", valkey.url, "--namespace", "x", "--yes", *options)
        assert (code, out) == (2, "")
        assert said in err
        assert "Traceback" not in err

    def test_the_namespace_must_be_given(self, called: Called):
        code, out, err = called("invalidate", "--all", "--yes")
        assert (code, out, "--namespace" in err) == (2, "", True)

    def test_digits_that_no_entry_begins_with_and_keys_of_others(
        self, valkey: Server, namespace: str, called: Called
    ):
        where = ("--url", valkey.url, "--namespace", namespace, "--yes", "--tag", "doc:7", "--key")
        fill(valkey, {(namespace, "seven"): told(provenance=ABOUT["seven"])})
        code, _, err = called("invalidate", *where, "0" * 8)
        assert (code, "nothing was forgotten" in err) == (2, True)
        code, _, err = called("invalidate", *where, key_of("q", namespace="another").redis_key())
        assert (code, "another namespace" in err) == (2, True)
        assert served(valkey, namespace) == {"seven"}

    def test_a_server_that_is_away(self, called: Called):
        where = ("--url", "redis://:hush@127.0.0.1:1", "--namespace", "x", "--yes", "--json")
        for what in (("--all",), ("--key", "0" * 64), ("--tag", "x")):
            code, out, err = called("invalidate", *where, *what)
            assert (code, json.loads(out)["error"]["type"]) == (2, "RepositoryUnavailable")
            assert len(err.splitlines()) == 1
            assert "hush" not in out + err

    def test_where_a_node_refuses_it_is_to_be_repeated(
        self, cluster: Cluster, namespace: str, called: Called
    ):
        where = ("--url", cluster.url, "--namespace", namespace, "--yes", "--json")
        cluster.nodes[2].command("CONFIG", "SET", "min-replicas-to-write", "1")
        try:
            code, out, err = called("invalidate", *where, "--all")
        finally:
            cluster.nodes[2].command("CONFIG", "SET", "min-replicas-to-write", "0")
        assert (code, json.loads(out)["error"]["type"]) == (2, "InvalidationIncomplete")
        assert "Repeat the call: it is safe." in err
        assert called("invalidate", *where, "--all")[0] == 0
