"""Fixtures every test may use: real servers, a namespace of one's own, and two checks after each test.

The servers live as long as the test worker and start when the first test asks for them. A test that breaks
one for good may do so: what was killed or paused is restored after the test. A test that needs other server
options, or must break things all the time, starts its own from `servers`.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import platform
import sys
import uuid
import warnings
from functools import lru_cache
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from command import environment
from hypothesis import HealthCheck, settings
from servers import Cluster, Server, redis_cluster, redis_search_server, redis_server, valkey_server
from warm import Warm

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from llmcache_plugins.testing.provider_server import ProviderServer

# How quick a machine is is no property of what it runs.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

SERVER_KINDS = ("valkey", "redis8", "cluster")


@pytest.fixture(scope="session")
def _valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with valkey_server(tmp_path_factory.mktemp("valkey"), tcp=True) as server:
        yield server


@pytest.fixture(scope="session")
def _redis8(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with redis_server(tmp_path_factory.mktemp("redis8"), tcp=True) as server:
        yield server


@pytest.fixture(scope="session")
def _searching(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        pytest.skip("the wheel with RediSearch is for Linux on x86-64")
    with redis_search_server(tmp_path_factory.mktemp("searching"), tcp=True) as server:
        yield server


@pytest.fixture(scope="session")
def _cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with redis_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def frameworks() -> Iterator[Warm]:
    """Return a process that has imported the frameworks, for programs that would each wait for them."""
    with Warm("langchain.agents", "langchain_openai", "langgraph.graph", "litellm") as process:
        yield process


@pytest_asyncio.fixture
async def stand_in() -> AsyncIterator[ProviderServer]:
    """Return a provider that speaks OpenAI's wire format, counts what reaches it and does what it is told."""
    from llmcache_plugins.testing.provider_server import ProviderServer

    async with ProviderServer() as running:
        yield running


def pytest_sessionfinish() -> None:
    """Collect what LiteLLM has left open, before its complaints are taken for failures."""
    if "litellm" in sys.modules:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()


_clients_of_other_loops: list[object] = []


@pytest.fixture(autouse=True)
def _own_clients() -> Iterator[None]:
    """Let langchain-openai, which keeps a client for each address for the process, begin anew.

    When a port comes again, a client whose loop has ended would answer for it. Dropped, it would complain.
    """
    yield
    module = sys.modules.get("langchain_openai.chat_models._client_utils")
    for name in ("_cached_sync_httpx_client", "_cached_async_httpx_client"):
        if (cached := getattr(module, name, None)) is not None and cached.cache_info().currsize:
            _clients_of_other_loops.append(cached)
            setattr(module, name, lru_cache(cached.__wrapped__))


# The session fixtures start a server; these hand it to one test and look at what the test has left there.


@pytest.fixture
def valkey(_valkey: Server) -> Iterator[Server]:
    """Return the worker's Valkey 9: `.url` is `unix://...`, `.tcp_url` is `redis://...`."""
    yield _valkey
    _check_and_empty(_valkey)


@pytest.fixture
def redis8(_redis8: Server) -> Iterator[Server]:
    """Return the worker's Redis 8: `.url` is `unix://...`, `.tcp_url` is `redis://...`."""
    yield _redis8
    _check_and_empty(_redis8)


@pytest.fixture
def searching(_searching: Server) -> Iterator[Server]:
    """Return the worker's Redis 8 with RediSearch 2.10."""
    yield _searching
    _check_and_empty(_searching)


@pytest.fixture
def cluster(_cluster: Cluster) -> Iterator[Cluster]:
    """Return the worker's Redis Cluster of three: `.url` is `redis+cluster://...`."""
    yield _cluster
    _check_and_empty(_cluster)


@pytest.fixture(params=SERVER_KINDS)
def server(request: pytest.FixtureRequest) -> Server | Cluster:
    """Return each kind of server in turn: the test runs once per kind."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def called(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Return what runs the command in this process: one of its own takes a second to begin.

    It returns the exit code, and what was said on stdout and stderr.
    """
    from llmcache_plugins.cli import main

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["llmcache", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return ended.value.code, said.out, said.err

    for name in set(os.environ) - set(environment()):
        monkeypatch.delenv(name)
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    return call


@pytest.fixture
def namespace() -> str:
    """Return a name that no other test uses."""
    return f"test-{uuid.uuid4().hex}"


def _check_and_empty(server: Server | Cluster) -> None:
    """Fail when the test left a key that never expires, and leave an empty server to the next one.

    FLUSHALL is safe here: this worker has started the server, and nobody else knows its address.
    """
    server.heal()
    immortal = [key.decode(errors="replace") for node in server.nodes for key in node.empty()]
    if immortal:
        pytest.fail(f"the test left keys without a TTL: {immortal}")


@pytest.fixture(autouse=True)
def _nothing_lives_on(request: pytest.FixtureRequest) -> None:
    """Check the tasks after every async test; autouse, so it is set up first and looks last."""
    if inspect.iscoroutinefunction(getattr(request, "function", None)):
        request.getfixturevalue("_no_stray_tasks")


@pytest.fixture
async def _no_stray_tasks() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    # A task that has been awaited or cancelled by its owner needs a turn or two of the loop to be gone.
    for _ in range(3):
        await asyncio.sleep(0)
    strays = asyncio.all_tasks() - before - {asyncio.current_task()}
    described = [repr(task) for task in strays]
    for task in strays:
        task.cancel()
    await asyncio.gather(*strays, return_exceptions=True)
    if strays:
        pytest.fail(f"the test left tasks that nobody awaited or cancelled: {described}")
