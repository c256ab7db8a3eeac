"""What a process raises when another one was told by the provider: the same class of the same SDK."""

from __future__ import annotations

import copy
import functools
import math
import os
import pickle
from typing import TYPE_CHECKING, Any

# Without it LiteLLM downloads its price list when it is imported.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm
import openai
import pytest
import pytest_asyncio
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcache_plugins.errors import SharedProviderError
from llmcache_plugins.failures import report_of
from llmcache_plugins.providers import LiteLLMProvider, OpenAIProvider
from llmcache_plugins.testing.provider_server import (
    Behaviour,
    ProviderServer,
    content_filter,
    hanging,
    rate_limited,
    server_error,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

pytestmark = [
    # LiteLLM builds validators for typed dicts with read-only items, which pydantic does not enforce.
    pytest.mark.filterwarnings("ignore:Items? .* using the `ReadOnly` qualifier:UserWarning:pydantic"),
]

MESSAGES = [{"role": "user", "content": "What is a cache?"}]
STATUSES = [400, 401, 402, 403, 404, 408, 409, 413, 418, 422, 425, 429, 451, 500, 502, 503, 504, 529]


@functools.cache
def openai_provider() -> OpenAIProvider:
    return OpenAIProvider(openai.AsyncOpenAI(base_url="http://me:secret@provider/v1", api_key="test"))


PROVIDERS: dict[str, Callable[[], Any]] = {"openai": openai_provider, "litellm": LiteLLMProvider}


@pytest.fixture(params=PROVIDERS)
def provider(request: pytest.FixtureRequest) -> Any:
    return PROVIDERS[request.param]()


def told(error: Exception, *, after: float = 0.0) -> SharedProviderError:
    """Return what another process raises for an error of this one."""
    report = report_of(error)
    wait = None if report.retry_after is None else report.retry_after - after
    return SharedProviderError(status=report.status, retry_after=wait, error_class=report.error_class)


# --- From the wire and back ------------------------------------------------------------------------------


class Sdk:
    """One SDK, and the errors it raises."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.provider: Any = None

    async def error_at(self, base_url: str, *, timeout: float = 10.0) -> Any:
        query: dict[str, Any] = {"messages": MESSAGES, "timeout": timeout}
        if self.name == "openai":
            client = openai.AsyncOpenAI(base_url=base_url, api_key="test", max_retries=0)
            self.provider = OpenAIProvider(client)
            query["model"] = "stand-in"
        else:
            self.provider = LiteLLMProvider()
            query |= {"model": "openai/stand-in", "api_base": base_url, "api_key": "test", "max_retries": 0}
        with pytest.raises(Exception) as raised:  # noqa: PT011 - which one is what the tests are about
            await self.provider.complete(query)
        if self.name == "openai":
            await client.close()
        return raised.value


@pytest_asyncio.fixture(params=PROVIDERS)
async def sdk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Sdk]:
    monkeypatch.setattr(litellm, "suppress_debug_info", True)
    yield Sdk(request.param)
    from litellm.litellm_core_utils.logging_worker import GLOBAL_LOGGING_WORKER

    await GLOBAL_LOGGING_WORKER.stop()
    await litellm.close_litellm_async_clients()
    litellm.in_memory_llm_clients_cache.flush_cache()


@pytest.mark.parametrize(
    "behaviour",
    [
        rate_limited(retry_after=7),
        rate_limited(retry_after=None),
        content_filter(),
        server_error(status=500),
        Behaviour(status=503, error_code="overloaded", retry_after=3),
        hanging(),
        Behaviour(cut_after=0),
        *(Behaviour(status=status, error_code="some_code") for status in STATUSES),
    ],
)
async def test_every_process_raises_the_class_of_the_one_that_was_told(sdk, behaviour):
    async with ProviderServer() as stand_in:
        stand_in.script(behaviour)
        real = await sdk.error_at(stand_in.base_url, timeout=0.2 if behaviour.hang else 10)
    rebuilt = sdk.provider.error_of(told(real))
    assert type(rebuilt) is type(real)
    assert report_of(rebuilt) == report_of(real)
    assert getattr(rebuilt, "status_code", None) == getattr(real, "status_code", None)
    if behaviour.retry_after is not None:
        assert rebuilt.response.headers["retry-after"] == f"{behaviour.retry_after}"
        assert rebuilt.response.status_code == behaviour.status
    as_the_sdk_does(rebuilt, real)


def as_the_sdk_does(rebuilt: Any, real: Any) -> None:
    """Check what tools do with errors: what the SDK's own bear, a rebuilt one bears too."""
    assert str(rebuilt)
    assert repr(rebuilt)
    assert rebuilt.request.method
    for use in (lambda error: pickle.loads(pickle.dumps(error)), copy.copy):
        assert outcome(use, rebuilt) == outcome(use, real)


def outcome(use: Callable[[Any], Any], error: Any) -> type:
    try:
        return type(use(error))
    except TypeError as refused:
        return type(refused)


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ("This model's maximum context length is 8192 tokens.", "ContextWindowExceededError"),
        ("Invalid prompt: potentially violating our usage policy.", "ContentPolicyViolationError"),
    ],
)
async def test_litellms_finer_classes_reach_every_process(sdk, message, error):
    async def refuse(_request: web.Request) -> web.Response:
        code = {"message": message, "type": "invalid_request_error", "param": "messages", "code": None}
        return web.json_response({"error": code}, status=400)

    application = web.Application()
    application.router.add_post("/chat/completions", refuse)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        real = await sdk.error_at(f"http://127.0.0.1:{runner.addresses[0][1]}")
    finally:
        await runner.cleanup()
    rebuilt = sdk.provider.error_of(told(real))
    assert type(rebuilt) is type(real)
    assert type(rebuilt).__name__ == (error if sdk.name == "litellm" else "BadRequestError")
    assert isinstance(rebuilt, openai.BadRequestError)
    assert message not in str(rebuilt)


# --- Classes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "openai_class", "litellm_class"),
    [
        (400, "BadRequestError", "BadRequestError"),
        (404, "NotFoundError", "NotFoundError"),
        (408, "APIStatusError", "Timeout"),
        (409, "ConflictError", "APIError"),
        (418, "APIStatusError", "APIError"),
        (422, "UnprocessableEntityError", "UnprocessableEntityError"),
        (429, "RateLimitError", "RateLimitError"),
        (500, "InternalServerError", "InternalServerError"),
        (503, "InternalServerError", "ServiceUnavailableError"),
        (504, "InternalServerError", "Timeout"),
        (529, "InternalServerError", "APIError"),
    ],
)
@pytest.mark.parametrize(
    "name", ["", "Unheard", "Exception", "openai", "AsyncOpenAI", "APIResponseValidationError"]
)
def test_a_class_that_the_sdk_does_not_have_becomes_the_one_for_the_status(
    name, status, openai_class, litellm_class
):
    shared = SharedProviderError(status=status, retry_after=2.0, error_class=name)
    of_openai, of_litellm = openai_provider().error_of(shared), LiteLLMProvider().error_of(shared)
    assert type(of_openai) is getattr(openai, openai_class)
    if status != 500 or name != "APIResponseValidationError":  # LiteLLM has that one, with status 500
        assert type(of_litellm) is getattr(litellm, litellm_class)
    for error in (of_openai, of_litellm):
        assert isinstance(error, openai.APIError)
        assert (error.status_code, error.response.headers["retry-after"]) == (status, "2")


@pytest.mark.parametrize(
    "error_class", ["RateLimitError", "BadRequestError", "InternalServerError", "Timeout"]
)
def test_a_class_that_contradicts_the_status_is_not_believed(error_class):
    shared = SharedProviderError(status=404, error_class=error_class)
    assert type(openai_provider().error_of(shared)) is openai.NotFoundError
    assert LiteLLMProvider().error_of(shared).status_code == 404


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("AuthenticationError", 401),
        ("NotFoundError", 404),
        ("BadRequestError", 400),
        ("UnprocessableEntityError", 422),
        ("UnsupportedParamsError", 400),
        ("Timeout", 408),
        ("Timeout", 504),
        ("PermissionDeniedError", 403),
        ("RateLimitError", 429),
        ("ContextWindowExceededError", 400),
        ("RejectedRequestError", 400),
        ("ContentPolicyViolationError", 400),
        ("InternalServerError", 500),
        ("ServiceUnavailableError", 503),
        ("BadGatewayError", 502),
        ("APIError", 413),
        ("APIConnectionError", 500),
        ("APIResponseValidationError", 500),
        # It wants to know the answer and the schema, which nobody is told.
        ("JSONSchemaValidationError", 500),
        # It is said of a budget of the process that had it.
        ("BudgetExceededError", 429),
    ],
)
def test_each_class_of_litellm_is_built_or_its_nearest_one(name, status):
    wanted = getattr(litellm.exceptions, name, None)
    if wanted is None:
        pytest.skip(f"this version of LiteLLM has no {name}")
    nearest = {"JSONSchemaValidationError": "InternalServerError", "BudgetExceededError": "RateLimitError"}
    error = LiteLLMProvider().error_of(SharedProviderError(status=status, retry_after=1.5, error_class=name))
    assert type(error) is getattr(litellm.exceptions, nearest.get(name, name))
    assert (error.status_code, error.response.status_code) == (status, status)
    assert error.response.headers["retry-after"] == "2"
    assert (error.model, error.llm_provider) == ("", "")
    assert str(error)
    assert repr(error)


@pytest.mark.parametrize("caught", ["openai", "litellm"])
def test_an_application_catches_both_sdks_alike(caught):
    error = LiteLLMProvider().error_of(SharedProviderError(status=429, error_class="RateLimitError"))
    assert isinstance(error, {"openai": openai, "litellm": litellm}[caught].RateLimitError)


def test_what_one_sdk_was_told_the_other_raises_in_its_own_words():
    def error_of(provider: Any, status: int | None, name: str) -> str:
        return type(provider.error_of(SharedProviderError(status=status, error_class=name))).__name__

    assert error_of(openai_provider(), 400, "ContextWindowExceededError") == "BadRequestError"
    assert error_of(openai_provider(), 413, "APIError") == "APIStatusError"
    assert error_of(LiteLLMProvider(), 409, "ConflictError") == "APIError"
    assert error_of(LiteLLMProvider(), 503, "InternalServerError") == "ServiceUnavailableError"
    assert error_of(LiteLLMProvider(), None, "APITimeoutError") == "Timeout"


@pytest.mark.parametrize("name", ["APITimeoutError", "APIConnectionError"])
def test_an_outage_without_a_status_is_one_of_the_sdk_too(provider, name):
    error = provider.error_of(SharedProviderError(error_class=name))
    assert isinstance(error, getattr(openai, name))
    assert str(error)


@pytest.mark.parametrize(
    "name",
    ["", "TimeoutError", "ContentFilterFinishReasonError", "LengthFinishReasonError", "RateLimitError"],
)
def test_an_error_without_a_status_that_the_sdk_could_not_have_raised_stays_what_it_is(provider, name):
    assert provider.error_of(SharedProviderError(error_class=name)) is None


# --- What it says ----------------------------------------------------------------------------------------


def test_the_message_says_that_another_process_was_told(provider):
    error = provider.error_of(SharedProviderError(status=429, retry_after=3.0, error_class="RateLimitError"))
    assert "another caller with status 429; retry after 3.0 s" in str(error)
    assert error.body is None
    assert "secret" not in f"{error} {error!r} {error.request.url}"


@pytest.mark.parametrize(
    ("wait", "header"),
    [
        (3.0, "3"),
        (2.1, "3"),
        (0.2, "1"),
        (0.0, "0"),
        (None, None),
        (-1.0, None),
        (math.nan, None),
        (math.inf, None),
    ],
)
def test_the_wait_is_whole_seconds_and_never_less_than_asked(provider, wait, header):
    error = provider.error_of(SharedProviderError(status=429, retry_after=wait))
    assert error.response.headers.get("retry-after") == header


def test_every_caller_gets_an_error_of_its_own(provider):
    shared = SharedProviderError(status=429, error_class="RateLimitError")
    assert provider.error_of(shared) is not provider.error_of(shared)


def test_azure_clients_raise_the_same():
    client = openai.AsyncAzureOpenAI(
        azure_endpoint="https://name.openai.azure.com", api_version="2024-10-21", api_key="test"
    )
    error = OpenAIProvider(client).error_of(SharedProviderError(status=429, error_class="RateLimitError"))
    assert type(error) is openai.RateLimitError
    assert error.request.url.host == "name.openai.azure.com"


# --- Whatever comes --------------------------------------------------------------------------------------


NAMES = st.sampled_from(sorted({*dir(openai), *dir(litellm.exceptions)})) | st.text()
SHARED = st.builds(
    SharedProviderError,
    status=st.none() | st.sampled_from(STATUSES) | st.integers(),
    retry_after=st.none() | st.floats(),
    error_class=NAMES,
)


@settings(deadline=None)
@given(shared=SHARED, name=st.sampled_from(sorted(PROVIDERS)))
def test_no_report_however_odd_raises(shared, name):
    error = PROVIDERS[name]().error_of(shared)
    if error is None:
        assert shared.status is None or not 400 <= shared.status <= 599
        return
    assert isinstance(error, Exception)
    assert str(error)
    if shared.status is not None:
        assert error.status_code == error.response.status_code == shared.status


@pytest.mark.parametrize("garbage", ["429", 4.29, [], object(), b"429"])
def test_a_report_of_other_types_never_raises(provider, garbage):
    for attribute in ("status", "retry_after", "error_class"):
        shared = SharedProviderError(status=429, retry_after=1.0, error_class="RateLimitError")
        setattr(shared, attribute, garbage)
        error = provider.error_of(shared)
        assert error is None or isinstance(error, openai.RateLimitError)


def test_an_sdk_that_builds_its_errors_in_another_way_costs_the_class_only(monkeypatch):
    class Changed(openai.APIStatusError):
        def __init__(self) -> None:
            super().__init__("", response=None, body=None)

    shared = SharedProviderError(status=413, error_class="PayloadTooLargeError")
    Changed.status_code = 413
    monkeypatch.setattr(openai, "PayloadTooLargeError", Changed, raising=False)
    assert type(openai_provider().error_of(shared)) is openai.APIStatusError
    newer = type("PayloadTooLargeError", (openai.APIStatusError,), {"status_code": 413})
    monkeypatch.setattr(openai, "PayloadTooLargeError", newer)
    assert type(openai_provider().error_of(shared)) is newer
    provider = openai_provider()
    monkeypatch.setattr(provider, "_client", object())
    assert provider.error_of(shared) is None
