"""The example of a web service, under uvicorn, as an HTTP client sees it."""

from __future__ import annotations

import asyncio
import importlib.util
import re
import socket
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import uvicorn
from command import ROOT
from waiting import wait_until_async

from llmcache_plugins import ResponseCache
from llmcache_plugins.testing.provider_server import hanging, server_error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from servers import Server

    from llmcache_plugins.testing.provider_server import ProviderServer

EXAMPLE = ROOT / "examples" / "asgi_app.py"
PAGE = (ROOT / "docs" / "http.md").read_text("utf-8")
PATIENT: dict[str, Any] = {"lookup_budget": 5.0, "commit_budget": 5.0, "socket_timeout": 5.0}
"""A busy machine must not make an outage of a hit."""
STORED = "llmcache; fwd=uri-miss; stored"


@dataclass(frozen=True, slots=True)
class Service:
    """The example, running."""

    client: httpx.AsyncClient
    server: uvicorn.Server
    cache: ResponseCache

    async def ask(self, question: str = "What is a lease?", control: str | None = None) -> httpx.Response:
        headers = {} if control is None else {"Cache-Control": control}
        return await self.client.post("/answer", content=question.encode(), headers=headers)

    async def status(self, question: str = "What is a lease?", control: str | None = None) -> str:
        response = await self.ask(question, control)
        assert response.status_code == 200
        return response.headers["Cache-Status"]


@pytest.fixture
async def service(
    valkey: Server, stand_in: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Service]:
    async with serving(valkey.url, stand_in, monkeypatch) as running:
        yield running


def loaded() -> Any:
    """Return the example as a module."""
    spec = importlib.util.spec_from_file_location("asgi_app", EXAMPLE)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    return example


@asynccontextmanager
async def serving(
    url: str, provider: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Service]:
    for name, value in (
        ("LLMCACHE_URL", url),
        ("OPENAI_API_KEY", "test"),
        ("OPENAI_BASE_URL", provider.base_url),
    ):
        monkeypatch.setenv(name, value)
    caches: list[ResponseCache] = []
    from_url = ResponseCache.from_url

    def opened(*where: str) -> ResponseCache:
        caches.append(from_url(*where, **PATIENT))
        return caches[-1]

    monkeypatch.setattr(ResponseCache, "from_url", opened)
    app = loaded().app
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="on"))
        running = asyncio.create_task(server.serve(sockets=[listening]))
        await wait_until_async(lambda: server.started or running.done(), description="it serves", timeout=20)
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
                yield Service(client, server, caches[0])
        finally:
            server.should_exit = True
            await running


class TestAnswers:
    async def test_a_miss_that_is_stored_and_then_a_hit_of_the_same_text(
        self, service: Service, stand_in: ProviderServer
    ):
        miss, hit = await service.ask(), await service.ask()
        assert miss.text
        assert miss.text == hit.text
        assert miss.headers["Cache-Status"] == STORED
        assert "Age" not in miss.headers
        assert re.fullmatch(r"llmcache; hit; ttl=3[56]\d\d", hit.headers["Cache-Status"])
        assert hit.headers["Age"].isdecimal()
        assert stand_in.calls == 1

    async def test_requests_at_one_time_cost_one_call_and_say_that_they_were_collapsed(
        self, service: Service, stand_in: ProviderServer
    ):
        stand_in.script(hanging())
        asking = [asyncio.create_task(service.status()) for _ in range(10)]
        await stand_in.called()
        await wait_until_async(
            lambda: len(service.server.server_state.tasks) == len(asking), description="all are let in"
        )
        stand_in.release()
        statuses = await asyncio.gather(*asking)
        assert sorted(statuses) == ["llmcache; fwd=uri-miss; collapsed"] * 9 + [STORED]
        assert stand_in.calls == 1

    async def test_a_question_in_any_encoding_is_answered(self, service: Service):
        response = await service.client.post("/answer", content=b"\xff\xfe")
        assert response.status_code == 200


class TestOutages:
    async def test_a_redis_that_goes_costs_no_answer(self, service: Service, valkey: Server):
        assert await service.status() == STORED
        valkey.kill()
        assert await service.status() == "llmcache; fwd=miss; detail=unavailable"
        assert f"\ncache-status: {await service.status('Who is next?')}\n" in PAGE

    async def test_one_that_was_never_there_neither(
        self, stand_in: ProviderServer, monkeypatch: pytest.MonkeyPatch
    ):
        async with serving("redis://127.0.0.1:1", stand_in, monkeypatch) as service:
            response = await service.ask()
        assert response.status_code == 200
        assert response.headers["Cache-Status"] == "llmcache; fwd=miss; detail=unavailable"
        assert "Age" not in response.headers

    async def test_a_provider_that_fails_is_a_bad_gateway_and_the_cache_says_nothing_of_it(
        self, service: Service, stand_in: ProviderServer
    ):
        stand_in.behave(lambda _call: server_error(status=400))
        response = await service.ask()
        assert response.status_code == 502
        assert "Cache-Status" not in response.headers

    async def test_it_ends_with_its_connections_closed(
        self, valkey: Server, stand_in: ProviderServer, monkeypatch: pytest.MonkeyPatch
    ):
        async with serving(valkey.url, stand_in, monkeypatch) as service:
            await service.ask()
        assert service.cache.in_flight() == 0
        clients = partial(valkey.command, "CLIENT", "LIST")
        await wait_until_async(
            lambda: len(clients().splitlines()) == 1, description="only the test's own connection is there"
        )


class TestDirectives:
    async def test_the_page_says_what_a_client_sees(self, service: Service):
        (block,) = re.findall(
            r"<!-- the requests of a test -->\n```text\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL
        )
        shown = block.strip().split("\n\n")
        assert len(shown) == 8
        for case in shown:
            command, *told = case.splitlines()
            question = re.search(r"-d '([^']+)'", command)[1]
            control = re.search(r"-H 'Cache-Control: ([^']+)'", command)
            response = await service.ask(question, control and control[1])
            seen = [f"HTTP/1.1 {response.status_code} {response.reason_phrase}"]
            seen += [
                f"{name}: {response.headers[name]}"
                for name in ("cache-status", "age")
                if name in response.headers
            ]
            assert [_timeless(line) for line in seen] == [_timeless(line) for line in told], command

    async def test_an_answer_that_must_not_be_stored_is_not(self, service: Service):
        for _ in range(2):
            assert await service.status(control="no-store") == "llmcache; fwd=uri-miss"
        assert await service.status() == STORED

    async def test_who_wants_only_a_stored_answer_costs_no_call(
        self, service: Service, stand_in: ProviderServer
    ):
        response = await service.ask(control="only-if-cached")
        assert response.status_code == 504
        assert "Cache-Status" not in response.headers
        assert stand_in.calls == 0
        await service.ask()
        assert (await service.status(control="Only-If-Cached, max-age=60")).startswith("llmcache; hit; ttl=")
        assert (await service.ask(control="only-if-cached, no-cache")).status_code == 504
        assert stand_in.calls == 1

    async def test_a_new_answer_replaces_the_old_one(self, service: Service, stand_in: ProviderServer):
        await service.ask()
        assert await service.status(control="no-cache") == "llmcache; fwd=request; stored"
        assert (await service.status()).startswith("llmcache; hit; ttl=")
        assert stand_in.calls == 2

    async def test_directives_in_several_lines_count_together(self, service: Service):
        await service.ask()
        lines = [("Cache-Control", "no-store"), ("Cache-Control", "no-cache")]
        response = await service.client.post("/answer", content=b"What is a lease?", headers=lines)
        assert response.headers["Cache-Status"] == "llmcache; fwd=request"

    @pytest.mark.parametrize(
        ("control", "seconds"),
        [
            ("max-age=60", 60),
            ('max-age="60"', 60),
            ("private, MAX-AGE=7 ", 7),
            ("max-age=0", 0),
            ("max-age", 0),
            ("max-age=soon", 0),
            ("max-age=-1", 0),
            ("max-age=\N{SUPERSCRIPT TWO}", 0),
            ("max-age=2147483648", 31536000),
            (f"max-age={'9' * 5000}", 31536000),
        ],
    )
    def test_an_age_is_a_number_of_seconds_or_none_will_do(self, control: str, seconds: int):
        assert loaded().options_of(control) == {"max_age": seconds}

    @pytest.mark.parametrize("control", ["", ",", "no-transform, max-stale=5, x=y", "=", "no-cached"])
    def test_what_is_not_known_changes_nothing(self, control: str):
        assert loaded().options_of(control) == {}


def _timeless(line: str) -> str:
    return re.sub(r"(ttl=3|age: )\d+", r"\1...", line)
