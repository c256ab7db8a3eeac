"""LiteLLM's proxy with the configuration in examples/, as a process of its own and asked over HTTP.

It needs what the dependency group `litellm-proxy` brings.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import subprocess
import sys
import uuid
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from openai import AsyncOpenAI, BadRequestError
from servers import valkey_server
from waiting import wait_until_async

from llmcache_plugins.testing.provider_server import Behaviour, ProviderServer, hanging

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from openai.types.chat import ChatCompletion
    from servers import Server

pytestmark = [
    pytest.mark.skipif(find_spec("fastapi_sso") is None, reason="needs the group litellm-proxy"),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(300),  # the proxy takes its time to start
]

EXAMPLES = Path(__file__).parents[1] / "examples"
PASSWORD = "a-password-nobody-may-see"
PEOPLE = {"sk-ann": "red", "sk-amy": "red", "sk-bob": "blue", "sk-cyd": None, "sk-dot": None}
"""Who may ask the proxy, and the team each belongs to."""
AUTH = f"""
from litellm.proxy._types import UserAPIKeyAuth

PEOPLE = {PEOPLE!r}


async def check(request, api_key):
    with open("arrived", "a") as arrived:
        arrived.write(".")
    return UserAPIKeyAuth(api_key=api_key, team_id=PEOPLE[api_key])
"""
AUTH_SETTINGS = "\ngeneral_settings:\n  custom_auth: auth.check\n  custom_auth_run_common_checks: false\n"
keeps_streams = pytest.mark.skipif(
    tuple(map(int, version("litellm").split(".")[:2])) < (1, 110),
    reason="no stream of such a LiteLLM is kept",
)
START_SECONDS = 200.0
MAX_LEAD = 12.0
"""Instead of 120 s, so that a test sees its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """One that runs."""

    url: str
    home: Path
    provider: ProviderServer

    def client(self, person: str = "ann") -> AsyncOpenAI:
        return AsyncOpenAI(base_url=self.url, api_key=f"sk-{person}", max_retries=0, timeout=100)

    def arrived(self) -> int:
        """Return how many requests the proxy has let in."""
        return len((self.home / "arrived").read_text())


@pytest.fixture(scope="module")
def redis_with_password(tmp_path_factory) -> Iterator[Server]:
    with valkey_server(tmp_path_factory.mktemp("valkey"), "--requirepass", PASSWORD, tcp=True) as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def proxy(tmp_path_factory, redis_with_password) -> AsyncIterator[Proxy]:
    home = tmp_path_factory.mktemp("proxy")
    module = (EXAMPLES / "litellm_proxy_cache.py").read_text()
    call = 'from_url(os.environ["LLMCACHE_URL"]'
    assert call in module
    (home / "litellm_proxy_cache.py").write_text(module.replace(call, f"{call}, max_lead={MAX_LEAD}"))
    config = (EXAMPLES / "litellm_proxy.yaml").read_text() + AUTH_SETTINGS
    (home / "config.yaml").write_text(config)
    (home / "auth.py").write_text(AUTH)
    (home / "arrived").touch()
    async with ProviderServer() as provider:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PYTHONDONT")},
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_MASTER_KEY": f"sk-{secrets.token_hex(32)}",
            "LLMCACHE_URL": redis_with_password.tcp_url,
            "OPENAI_API_KEY": "sk-of-the-provider",
            "OPENAI_BASE_URL": provider.base_url,
        }
        process, port = await _started(home, environment)
        try:
            yield Proxy(url=f"http://127.0.0.1:{port}", home=home, provider=provider)
        finally:
            process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(process.wait, 30)


async def _started(home: Path, environment: dict[str, str]) -> tuple[subprocess.Popen[bytes], int]:
    port = _free_port()
    process = _spawn(home, environment, port)

    async def answers() -> bool:
        if process.poll() is not None:
            pytest.fail(f"the proxy has not started: {(home / 'log').read_text()[-3000:]}")
        with suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return True
        return False

    try:
        await wait_until_async(answers, description="the proxy", timeout=START_SECONDS)
    except BaseException:
        process.kill()
        process.wait()
        raise
    return process, port


def _spawn(home: Path, environment: dict[str, str], port: int) -> subprocess.Popen[bytes]:
    program = Path(sys.executable).with_name("litellm")
    with (home / "log").open("wb") as log:
        return subprocess.Popen(
            [program, "--config", "config.yaml", "--host", "127.0.0.1", "--port", str(port)],
            cwd=home,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def _free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


@pytest.fixture
def question() -> str:
    """Return what no other test asks."""
    return f"What is a lease? {uuid.uuid4().hex}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a client sees."""

    completion: ChatCompletion
    cache_key: str | None
    """The header that the proxy sends with hits."""


async def ask(proxy: Proxy, question: str, *, person: str = "ann", **more: Any) -> Answer:
    async with proxy.client(person) as client:
        raw = await client.chat.completions.with_raw_response.create(**_request(question), **more)
        return Answer(completion=raw.parse(), cache_key=raw.headers.get("x-litellm-cache-key"))


async def read(proxy: Proxy, question: str) -> str:
    async with proxy.client() as client:
        stream = await client.chat.completions.create(**_request(question), stream=True)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])


def _request(question: str) -> dict[str, Any]:
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": question}]}


def text_of(answer: Answer) -> str | None:
    return answer.completion.choices[0].message.content


def calls(proxy: Proxy, question: str) -> int:
    return proxy.provider.calls_by_prompt[question]


async def all_arrived(proxy: Proxy, number: int) -> None:
    await wait_until_async(
        lambda: proxy.arrived() >= number, description=f"{number} requests at the proxy", timeout=60
    )


async def all_under_way(proxy: Proxy, question: str, asking: list[asyncio.Task[Any]], *, before: int) -> None:
    await all_arrived(proxy, before + len(asking))
    await wait_until_async(
        lambda: calls(proxy, question) >= 1, description="a request at the provider", timeout=60
    )


async def test_the_second_one_to_ask_gets_the_first_one_s_answer(proxy, question):
    first = await ask(proxy, question)
    second = await ask(proxy, question)

    assert calls(proxy, question) == 1
    assert second.completion.id == first.completion.id
    assert second.completion.usage == first.completion.usage
    assert text_of(second) == text_of(first)
    assert first.cache_key is None
    assert second.cache_key
    assert question not in second.cache_key


async def test_twenty_requests_at_once_are_one_call_of_the_provider(proxy, question):
    before = proxy.arrived()
    proxy.provider.script(hanging())
    asking = [asyncio.create_task(ask(proxy, question)) for _ in range(20)]
    await all_under_way(proxy, question, asking, before=before)
    proxy.provider.release()
    answers = await asyncio.gather(*asking)

    assert calls(proxy, question) == 1
    assert len({answer.completion.id for answer in answers}) == 1


@keeps_streams
async def test_twenty_streams_at_once_are_one_call_and_serve_whole_answers_too(proxy, question):
    before = proxy.arrived()
    proxy.provider.script(hanging())
    asking = [asyncio.create_task(read(proxy, question)) for _ in range(20)]
    await all_under_way(proxy, question, asking, before=before)
    proxy.provider.release()
    texts = await asyncio.gather(*asking)
    whole = await ask(proxy, question)

    assert calls(proxy, question) == 1
    assert set(texts) == {text_of(whole)}
    assert whole.cache_key


async def test_a_whole_answer_is_streamed_to_who_asks_for_a_stream(proxy, question):
    whole = await ask(proxy, question)

    assert await read(proxy, question) == text_of(whole)
    assert calls(proxy, question) == 1


async def test_embeddings_are_asked_for_once_each(proxy, question):
    async with proxy.client() as client:
        first = await client.embeddings.create(model="text-embedding-3-small", input=[question, "b"])
        second = await client.embeddings.create(model="text-embedding-3-small", input=["c", question])

    asked = [call.request["input"] for call in proxy.provider.received if call.api == "embeddings"]
    assert asked[-2:] == [[question, "b"], ["c"]]
    assert second.data[1].embedding == first.data[0].embedding


async def test_a_team_shares_answers_and_keeps_them_from_others(proxy, question):
    firsts = [await ask(proxy, question, person=person) for person in ("ann", "bob", "cyd", "dot")]
    amy, cyd = await ask(proxy, question, person="amy"), await ask(proxy, question, person="cyd")

    assert calls(proxy, question) == 4  # two teams, and two who have none
    assert amy.completion.id == firsts[0].completion.id
    assert cyd.completion.id == firsts[2].completion.id


@pytest.mark.parametrize(
    "pretended",
    [
        {"metadata": {"user_api_key_team_id": "red"}},
        {"litellm_metadata": {"user_api_key_team_id": "red"}},
        {"metadata": {"user_api_key": "sk-ann"}, "litellm_metadata": {"user_api_key_team_id": "red"}},
        {"cache": {"namespace": "default"}},
        {"cache": {"tenant": "red"}},
        {"user_api_key_team_id": "red"},
    ],
    ids=str,
)
async def test_nobody_gets_into_another_team_by_what_the_request_says(proxy, question, pretended):
    ann = await ask(proxy, question)
    cyd = await ask(proxy, question, person="cyd", extra_body=pretended)

    assert cyd.completion.id != ann.completion.id
    assert cyd.cache_key is None


async def test_a_client_may_say_that_it_wants_a_new_answer(proxy, question):
    first = await ask(proxy, question)
    new = await ask(proxy, question, extra_body={"cache": {"no-cache": True}})
    third = await ask(proxy, question)

    assert first.completion.id != new.completion.id == third.completion.id


async def test_the_ping_shows_neither_the_address_nor_the_password(proxy, redis_with_password, question):
    await ask(proxy, question)  # it is connected now
    async with proxy.client() as client:
        shown = await client.get("/cache/ping", cast_to=object)

    assert shown["status"] == "healthy"
    for secret in (PASSWORD, str(redis_with_password.port), "redis://"):
        assert secret not in repr(shown)


async def test_an_error_of_the_provider_is_told_and_others_go_on(proxy, question):
    before = proxy.arrived()
    proxy.provider.script(Behaviour(hang=True, status=400, error_code="invalid_value"))
    asking = [asyncio.create_task(ask(proxy, question)) for _ in range(5)]
    await all_under_way(proxy, question, asking, before=before)
    proxy.provider.release()
    told = await asyncio.gather(*asking, return_exceptions=True)

    assert [type(one) for one in told].count(BadRequestError) == 1
    assert len({one.completion.id for one in told if isinstance(one, Answer)}) == 1
    assert calls(proxy, question) == 2


async def test_a_client_that_hangs_up_takes_the_answer_from_nobody(proxy, question):
    before = proxy.arrived()
    proxy.provider.script(hanging())
    leader = asyncio.create_task(ask(proxy, question))
    await all_under_way(proxy, question, [leader], before=before)
    follower = asyncio.create_task(ask(proxy, question))
    await all_arrived(proxy, before + 2)
    leader.cancel()
    await asyncio.wait([leader])
    proxy.provider.release()

    assert text_of(await follower)
    assert calls(proxy, question) == 1  # the proxy makes the call to its end


async def test_a_client_that_leaves_its_stream_is_waited_for_no_longer_than_max_lead(proxy, question):
    before = proxy.arrived()
    proxy.provider.script(hanging())
    leader = asyncio.create_task(read(proxy, question))
    await all_under_way(proxy, question, [leader], before=before)
    follower = asyncio.create_task(ask(proxy, question))
    await all_arrived(proxy, before + 2)
    leader.cancel()
    await asyncio.wait([leader])
    proxy.provider.release()

    assert text_of(await follower)
    assert calls(proxy, question) <= 2


async def test_a_server_that_is_away_keeps_no_answer_back(proxy, redis_with_password, question):
    redis_with_password.kill()
    try:
        first, second = await ask(proxy, question), await ask(proxy, question)
    finally:
        redis_with_password.heal()

    assert text_of(first) == text_of(second)
    assert calls(proxy, question) == 2

    async def hits() -> bool:
        return (await ask(proxy, question)).cache_key is not None

    await wait_until_async(hits, description="hits again", timeout=60)


async def test_the_log_of_the_proxy_has_no_prompt_and_no_password(proxy, question):
    await ask(proxy, question)
    await ask(proxy, question, extra_body={"cache": {"no-such-word": question}})

    logged = (proxy.home / "log").read_text()
    assert question not in logged
    assert PASSWORD not in logged
