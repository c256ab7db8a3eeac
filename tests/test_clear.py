"""`llmcache clear`: what it removes, that it asks, and what it says when it cannot."""

from __future__ import annotations

import asyncio
import io
import json
import sys
from typing import TYPE_CHECKING

import pytest
from entries import entry_of, key_of

from llmcache_plugins import CacheConfig, ResponseCache, ResponseRepository

if TYPE_CHECKING:
    from collections.abc import Callable

    from servers import Cluster, Server

    Called = Callable[..., tuple[int, str, str]]


@pytest.fixture
def filled(server: Server | Cluster, namespace: str) -> str:
    """Return the URL of a server where a namespace and its neighbour have three answers each."""

    async def fill() -> None:
        config = CacheConfig(socket_timeout=10.0)
        async with ResponseRepository(server.url, config=config) as repository:
            for name in (namespace, f"{namespace}.0"):
                for i in range(3):
                    await repository.persist(key_of(str(i), namespace=name), entry_of("x"))

    asyncio.run(fill())
    return server.url


def answers(server: Server | Cluster, namespace: str) -> int:
    patterns = (f"llm:{{{namespace}.{digits}}}:resp:*" for digits in ("?", "??"))
    return sum(len(node.command("KEYS", pattern)) for pattern in patterns for node in server.nodes)


def test_it_empties_one_namespace_and_says_how_much_that_was(
    filled: str, server: Server | Cluster, namespace: str, called: Called
):
    code, out, err = called("clear", "--url", filled, "--namespace", namespace, "--yes", "--json")

    assert (code, err) == (0, "")
    said = json.loads(out)
    assert said["seconds"] > 0
    assert (said["namespace"], said["entries"]) == (namespace, 3)
    assert answers(server, namespace) == 0
    assert answers(server, f"{namespace}.0") == 3


def test_a_tenant_s_answers_go_and_no_other_s(valkey: Server, namespace: str, called: Called):
    async def fill() -> None:
        async with ResponseCache.from_url(valkey.url, namespace=namespace, secret="s") as cache:
            for tenant in ("alice", "bob"):
                await cache.put("q", "x", tenant=tenant)

    asyncio.run(fill())
    where = ("--url", valkey.url, "--namespace", namespace, "--secret", "s")
    code, out, _ = called("clear", *where, "--tenant", "alice", "--yes")
    assert (code, "1 entry removed" in out) == (0, True)
    assert len(valkey.command("KEYS", "*:resp:*")) == 1


def test_without_a_terminal_it_needs_yes(redis8: Server, namespace: str, called: Called, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    code, out, err = called("clear", "--url", redis8.url, "--namespace", namespace)

    assert (code, out) == (2, "")
    assert "--yes" in err


class Terminal(io.StringIO):
    """Somebody who types."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("typed", "code", "said"), [("y\n", 0, "0 entries removed"), ("n\n", 2, "")])
def test_on_a_terminal_it_asks(
    redis8: Server, namespace: str, called: Called, monkeypatch, typed: str, code: int, said: str
):
    monkeypatch.setattr(sys, "stdin", Terminal(typed))
    monkeypatch.setenv("LLMCACHE_URL", redis8.url)
    ended, out, err = called("clear", "--namespace", namespace)

    assert ended == code
    assert said in out
    assert f"Remove all answers of namespace '{namespace}' at unix://" in err
    assert ("nothing was removed" in err) == (code == 2)


def test_the_question_says_whose_answers_go_wherever_that_comes_from(
    redis8: Server, namespace: str, called: Called, monkeypatch
):
    monkeypatch.setattr(sys, "stdin", Terminal("n\n"))
    for name, value in (("URL", redis8.url), ("NAMESPACE", namespace), ("TENANT", "alice\x1b")):
        monkeypatch.setenv(f"LLMCACHE_{name}", value)
    code, _, err = called("clear")
    assert code == 2
    assert f"Remove all answers of tenant 'alice\\x1b' of '{namespace}' at unix://" in err


def test_who_interrupts_the_question_ends_it_with_130(
    redis8: Server, namespace: str, called: Called, monkeypatch
):
    monkeypatch.setattr(sys, "stdin", Terminal(""))
    code, out, err = called("clear", "--url", redis8.url, "--namespace", namespace)
    assert (code, out.strip()) == (130, "")
    assert err.endswith("\nllmcache clear: interrupted\n")


def test_a_server_that_is_away_is_said_in_a_sentence_without_the_password(called: Called):
    url = "redis://:hush@127.0.0.1:1"
    code, out, err = called("clear", "--url", url, "--namespace", "x", "--yes", "--json")

    assert code == 2
    assert json.loads(out)["error"]["type"] == "RepositoryUnavailable"
    assert "did not answer" in err
    assert "hush" not in out + err
    assert len(err.splitlines()) == 1
