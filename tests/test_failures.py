"""What an error of the provider means for those who wait: real errors of real clients, and odd ones."""

from __future__ import annotations

import asyncio
import email.message
import math
import os
import time
import urllib.error
from email.utils import formatdate
from http import HTTPStatus
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import MagicMock

# Without it LiteLLM downloads its price list when it is imported.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import aiohttp
import httpx
import litellm
import msgspec
import openai
import pytest
import pytest_asyncio
from hypothesis import example, given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from llmcache_plugins.errors import SharedProviderError
from llmcache_plugins.failures import LONGEST_RETRY_AFTER, is_own, record_of, report_of
from llmcache_plugins.models import FailureReport, RecordKind
from llmcache_plugins.testing.provider_server import (
    Behaviour,
    content_filter,
    cut_stream,
    hanging,
    rate_limited,
    server_error,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

pytestmark = [
    # LiteLLM builds validators for typed dicts with read-only items, which pydantic does not enforce.
    pytest.mark.filterwarnings("ignore:Items? .* using the `ReadOnly` qualifier:UserWarning:pydantic"),
]

SHARED_FOR, ELECTED_FOR = 2.0, 610.0
REQUEST = httpx.Request("POST", "http://provider/v1")


def record(error: BaseException) -> Any:
    return record_of(error, shared_for=SHARED_FOR, elected_for=ELECTED_FOR)


def refused(status: int = 400) -> Behaviour:
    return Behaviour(status=status, error_code="invalid_value")


# --- Real errors -----------------------------------------------------------------------------------------


@pytest_asyncio.fixture(params=["openai", "litellm", "litellm responses"])
async def error_for(request, stand_in, monkeypatch) -> AsyncIterator[Callable[[Behaviour], Awaitable[Any]]]:
    """Return what gets the error that an SDK raises when the provider behaves so."""
    monkeypatch.setattr(litellm, "suppress_debug_info", True)
    client = openai.AsyncOpenAI(base_url=stand_in.base_url, api_key="test", max_retries=0)
    messages = [{"role": "user", "content": "What is a cache?"}]
    here = {"api_base": stand_in.base_url, "api_key": "test", "max_retries": 0}

    def call(timeout: float) -> Awaitable[Any]:
        if request.param == "openai":
            return client.chat.completions.create(model="stand-in", messages=messages, timeout=timeout)
        if request.param == "litellm":
            return litellm.acompletion("openai/stand-in", messages, timeout=timeout, **here)
        return litellm.aresponses("Hi", "openai/stand-in", timeout=timeout, **here)

    async def error_for(behaviour: Behaviour) -> Exception:
        stand_in.script(behaviour)
        timeout = 0.2 if behaviour.hang else 10
        with pytest.raises(Exception) as raised:  # noqa: PT011 - which one is what the tests are about
            await call(timeout)
        return raised.value

    yield error_for
    await client.close()
    from litellm.litellm_core_utils.logging_worker import GLOBAL_LOGGING_WORKER

    await GLOBAL_LOGGING_WORKER.stop()
    await litellm.close_litellm_async_clients()
    litellm.in_memory_llm_clients_cache.flush_cache()


@pytest.mark.parametrize("behaviour", [*map(refused, (400, 404, 413, 422)), content_filter()])
async def test_what_the_provider_refuses_is_told_to_those_who_wait(error_for, behaviour):
    error = await error_for(behaviour)
    left = record(error)
    assert (left.kind, left.seconds) == (RecordKind.REFUSED, SHARED_FOR)
    # LiteLLM 1.75 makes a 400 of most statuses.
    assert left.report.status == error.status_code <= behaviour.status
    assert left.report.error_class == type(error).__name__
    assert not is_own(error)


@pytest.mark.parametrize(
    ("asked", "seconds"), [(3, 3.0), (29.5, 29.5), (3600, LONGEST_RETRY_AFTER), (None, SHARED_FOR)]
)
async def test_a_rate_limit_lasts_as_the_provider_says_and_no_longer_than_half_a_minute(
    error_for, asked, seconds
):
    left = record(await error_for(rate_limited(retry_after=asked)))
    assert (left.kind, left.seconds) == (RecordKind.RATE_LIMITED, seconds)
    assert left.report == FailureReport(status=429, retry_after=asked, error_class="RateLimitError")


@pytest.mark.parametrize("status", [401, 403])
async def test_refused_credentials_are_nobody_elses_business(error_for, status):
    error = await error_for(refused(status))
    assert record(error).kind is RecordKind.OWN
    assert record(error).seconds == ELECTED_FOR
    assert is_own(error)


@pytest.mark.parametrize(
    "behaviour",
    [server_error(), server_error(status=503), server_error(status=529), hanging(), Behaviour(cut_after=0)],
)
async def test_an_outage_a_timeout_and_a_cut_connection_elect_a_new_leader(error_for, behaviour):
    error = await error_for(behaviour)
    left = record(error)
    assert (left.kind, left.seconds) == (RecordKind.PASSING, ELECTED_FOR)
    assert left.report.error_class == type(error).__name__
    assert not is_own(error)


async def test_nothing_of_what_the_provider_said_leaves_the_process(error_for):
    error = await error_for(Behaviour(status=400, error_code="sk-secret"))
    # In the error or, with LiteLLM, in the error it was made from.
    assert "sk-secret" in f"{error} {vars(error)} {vars(error.__context__ or error)}"
    for private in (error, RuntimeError("sk-secret"), SharedProviderError(error_class="sk-secret")):
        told = msgspec.json.encode(record(private).report)
        assert b"secret" not in told
        assert b"stand-in" not in told


async def test_a_stream_that_breaks_off_elects_a_new_leader(stand_in):
    stand_in.script(cut_stream(after=3))
    messages = [{"role": "user", "content": "What is a cache?"}]
    async with openai.AsyncOpenAI(base_url=stand_in.base_url, api_key="test", max_retries=0) as client:
        chunks = await client.chat.completions.create(model="stand-in", messages=messages, stream=True)
        with pytest.raises(Exception) as raised:  # noqa: PT011 - it differs between versions of the SDK
            [chunk async for chunk in chunks]
        await chunks.close()
    assert record(raised.value).kind is RecordKind.PASSING


async def test_a_cancelled_call_leaves_nothing(stand_in):
    stand_in.script(hanging())
    async with openai.AsyncOpenAI(base_url=stand_in.base_url, api_key="test") as client:
        call = asyncio.create_task(client.embeddings.create(model="embedder", input="Hi"))
        await stand_in.called()
        call.cancel()
        with pytest.raises(asyncio.CancelledError) as raised:
            await call
    assert record(raised.value) is None
    assert record(KeyboardInterrupt()) is record(GeneratorExit()) is None


async def test_the_errors_of_http_clients_are_understood_too(stand_in):
    url = f"{stand_in.base_url}/chat/completions"
    stand_in.behave(lambda _call: rate_limited(retry_after=7))
    async with httpx.AsyncClient() as client:
        answer = await client.post(url, json={"messages": []})
        with pytest.raises(httpx.HTTPStatusError) as of_httpx:
            answer.raise_for_status()
    async with aiohttp.ClientSession(raise_for_status=True) as session:
        with pytest.raises(aiohttp.ClientResponseError) as of_aiohttp:
            await session.post(url, json={"messages": []})
    headers = email.message.Message()
    headers["Retry-After"] = "7"
    of_urllib = urllib.error.HTTPError(url, 429, "Too Many Requests", headers, None)
    for error in (of_httpx.value, of_aiohttp.value, of_urllib):
        assert report_of(error) == FailureReport(
            status=429, retry_after=7.0, error_class=type(error).__name__
        )
    of_urllib.close()


# --- Statuses --------------------------------------------------------------------------------------------


class Refusal(Exception):
    """An error with attributes."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__("the provider's own words")
        self.__dict__.update(attributes)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *((status, RecordKind.REFUSED) for status in (400, 404, 406, 410, 413, 415, 418, 422, 451, 499)),
        *((status, RecordKind.OWN) for status in (401, 403)),
        (429, RecordKind.RATE_LIMITED),
        *((status, RecordKind.PASSING) for status in (408, 409, 425, 500, 502, 503, 504, 529, 599)),
        # No status of an error: as if there were none.
        *((status, RecordKind.PASSING) for status in (None, 0, 200, 302, 399, 600, 4290, -429, True)),
        *((status, RecordKind.PASSING) for status in ("429", 429.0, "failed", 10**400, MagicMock(), [])),
        (HTTPStatus.TOO_MANY_REQUESTS, RecordKind.RATE_LIMITED),
    ],
)
def test_the_status_decides_who_gets_the_error(status, kind):
    for error in (
        Refusal(status_code=status),
        Refusal(status=status),
        Refusal(response=SimpleNamespace(status_code=status)),
        # What is no status does not hide one that is.
        Refusal(status_code="invalid", status=None, response=SimpleNamespace(status_code=status)),
    ):
        assert record(error).kind is kind
        assert report_of(error).status in (status, None)
        assert report_of(error).status is not None or kind is RecordKind.PASSING
        assert is_own(error) is (kind is RecordKind.OWN)


def test_the_first_of_several_statuses_counts():
    response = SimpleNamespace(status_code=500)
    assert report_of(Refusal(status_code=404, status=503, response=response)).status == 404
    assert report_of(Refusal(status=503, response=response)).status == 503


@pytest.mark.parametrize(
    "error", [TimeoutError(), ConnectionResetError(), OSError(), ValueError(), KeyError()]
)
def test_an_error_without_a_status_elects_a_new_leader(error):
    left = record(error)
    assert (left.kind, left.seconds) == (RecordKind.PASSING, ELECTED_FOR)
    assert left.report == FailureReport(error_class=type(error).__name__)


def test_the_error_of_a_cache_behind_this_one_is_passed_on():
    error = SharedProviderError(status=429, retry_after=5.0, error_class="RateLimitError")
    left = record(error)
    assert (left.kind, left.seconds, left.report.status) == (RecordKind.RATE_LIMITED, 5.0, 429)


def made_from(error: Refusal, first: Refusal, *, is_said: bool) -> Refusal:
    """Return an error as if raised while `first` was handled, two layers further down."""
    between = RuntimeError()
    for later, earlier in ((error, between), (between, first)):
        setattr(later, "__cause__" if is_said else "__context__", earlier)
    return error


@pytest.mark.parametrize("is_said", [True, False])
def test_a_library_that_makes_a_400_of_refused_credentials_does_not_spread_it(is_said):
    error = made_from(Refusal(status_code=400), Refusal(status_code=401), is_said=is_said)
    assert record(error).kind is RecordKind.OWN
    assert is_own(error)


@pytest.mark.parametrize(("status", "kind"), [(429, RecordKind.RATE_LIMITED), (503, RecordKind.PASSING)])
def test_refused_credentials_in_the_past_of_another_error_do_not_matter(status, kind):
    error = made_from(Refusal(status_code=status), Refusal(status_code=401), is_said=False)
    assert record(error).kind is kind


def test_errors_that_cause_each_other_come_to_an_end():
    one, other = Refusal(status_code=400), Refusal(status_code=404)
    one.__cause__, other.__cause__ = other, one
    assert record(one).kind is RecordKind.REFUSED


# --- Retry-After -----------------------------------------------------------------------------------------


def asked(headers: Any) -> float | None:
    return report_of(Refusal(status_code=429, response=SimpleNamespace(headers=headers))).retry_after


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"Retry-After": "7"}, 7.0),
        ({"RETRY-AFTER": 7}, 7.0),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after": " 7 "}, 7.0),
        ({"retry-after": ["7", "9"]}, 7.0),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "2"}, 2.0),
        ({"retry-after-ms": "-1", "retry-after": "2"}, 2.0),
        (httpx.Headers({"Retry-After": "7"}), 7.0),
        (CIMultiDict({"Retry-After": "7"}), 7.0),
        ({"retry-after": "99999999999"}, 99999999999.0),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "1e999"}, None),
        ({"retry-after": "9" * 5000}, None),
        ({"retry-after": 10**5000}, None),
        ({"retry-after": "bald\N{LATIN SMALL LETTER SHARP S}\udcff"}, None),
        ({"retry-after": "Wed, 99 Foo 2015 07:28:00 GMT"}, None),
        ({"retry-after": []}, None),
        ({"retry-after": None}, None),
        ({"retry-after": True}, None),
        ({7: "7"}, None),
        ({}, None),
        (None, None),
        ("retry-after: 7", None),
        (MagicMock(), None),
    ],
)
def test_a_wait_is_read_however_it_is_said_and_nonsense_is_none(headers, seconds):
    assert asked(headers) == seconds


def test_a_wait_until_a_date_is_the_time_until_then():
    assert asked({"retry-after": formatdate(time.time() + 20, usegmt=True)}) == pytest.approx(20, abs=2)
    assert asked({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0.0


def test_a_date_without_a_time_zone_is_not_taken_for_local_time(monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        date = formatdate(time.time() + 20, usegmt=True)
        assert asked({"retry-after": date.removesuffix(" GMT")}) == pytest.approx(20, abs=2)
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("said", "seconds"),
    [(5, 5.0), (0.5, 0.5), ("5", 5.0), (-1, 2.0), (math.nan, 2.0), (10**400, 2.0), (True, 2.0), (None, 2.0)],
)
def test_a_wait_that_the_error_itself_states_comes_before_the_header(said, seconds):
    response = SimpleNamespace(headers={"retry-after": "2"})
    assert report_of(Refusal(retry_after=said, response=response)).retry_after == seconds


def test_a_wait_is_found_in_the_headers_of_the_error_where_its_response_has_none():
    error = Refusal(headers={"Retry-After": "4"}, response=httpx.Response(429, request=REQUEST))
    assert report_of(error).retry_after == 4.0


@pytest.mark.parametrize("wait", ["0", "-3", "nan", "1e300", "9" * 400])
def test_no_wait_makes_a_rate_limit_endless_or_void(wait):
    left = record(Refusal(status_code=429, response=SimpleNamespace(headers={"retry-after": wait})))
    assert 0 < left.seconds <= LONGEST_RETRY_AFTER


# --- Odd errors ------------------------------------------------------------------------------------------


class Trap(Exception):
    """An error all of whose attributes raise."""

    def _spring(self) -> Any:
        raise RuntimeError("not to be touched")

    status_code = status = response = retry_after = headers = property(_spring)
    litellm_response_headers = __cause__ = __context__ = property(_spring)


class _NamelessType(type):
    @property
    def __name__(cls) -> str:  # type: ignore[override]
        raise RuntimeError("not to be named")


class Nameless(Exception, metaclass=_NamelessType):
    """An error whose class does not say its name."""


class LoneResponse(Trap):
    """An error that raises for all but its response."""

    response = SimpleNamespace(status_code=429, headers={"retry-after": "3"})


class TrappedCause(Refusal):
    """A refusal that does not say where it comes from."""

    __cause__ = property(Trap._spring)


def test_attributes_that_raise_are_attributes_that_are_not_there():
    assert report_of(Trap()) == FailureReport(error_class="Trap")
    assert record(Trap()).kind is RecordKind.PASSING
    assert not is_own(Trap())
    assert report_of(LoneResponse()) == FailureReport(status=429, retry_after=3.0, error_class="LoneResponse")
    assert report_of(Nameless()) == FailureReport()
    assert record(TrappedCause(status_code=400)).kind is RecordKind.REFUSED


@pytest.mark.parametrize("name", ["x" * 65, "Fehler\N{LATIN SMALL LETTER SHARP S}", "a b", "a\n", "<x>", ""])
def test_a_name_that_is_no_plain_identifier_is_left_out(name):
    assert report_of(type(name, (Exception,), {})()).error_class == ""


ODD = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(400, 599)
    | st.sampled_from([401, 403, 429, 10**400])
    | st.floats()
    | st.text()
    | st.binary()
    | st.builds(object)
    | st.builds(MagicMock)
    | st.builds(Trap),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
NUMBERS = st.floats().map(str) | st.integers().map(str) | st.datetimes().map(str)
DATES = st.datetimes().map(lambda date: date.strftime("%a, %d %b %Y %H:%M:%S GMT"))
HEADERS = ODD | st.dictionaries(
    st.sampled_from(["retry-after", "Retry-After", "retry-after-ms", "x"]), ODD | NUMBERS | DATES
)
RESPONSES = ODD | st.builds(lambda status, headers: SimpleNamespace(**locals()), ODD, HEADERS)
ERRORS = st.fixed_dictionaries(
    {},
    optional={
        "status_code": ODD,
        "status": ODD,
        "response": RESPONSES
        | st.builds(lambda code, headers: SimpleNamespace(status_code=code, headers=headers), ODD, HEADERS),
        "headers": HEADERS,
        "retry_after": ODD | NUMBERS,
        "litellm_response_headers": HEADERS,
    },
).map(lambda attributes: Refusal(**attributes))


@settings(deadline=None)
@given(error=ERRORS, cause=st.none() | ERRORS | st.builds(Trap))
@example(error=Refusal(status_code=429, retry_after=10**400), cause=None)
def test_whatever_an_error_says_of_itself_there_is_a_sound_record_of_it(error, cause):
    error.__cause__ = cause
    left = record(error)
    limit = {RecordKind.RATE_LIMITED: LONGEST_RETRY_AFTER, RecordKind.REFUSED: SHARED_FOR}
    assert 0 < left.seconds <= limit.get(left.kind, ELECTED_FOR)
    told = msgspec.json.decode(msgspec.json.encode(left.report), type=FailureReport)
    assert told == left.report
    assert told.status is None or 400 <= told.status <= 599
    assert told.retry_after is None or 0 <= told.retry_after < math.inf
    assert is_own(error) is (left.kind is RecordKind.OWN)
