"""The provider for `openai.AsyncOpenAI` and its relatives.

Owns how the SDK's objects and errors are read and built, and which settings of a client change an answer.
Calls only what the SDK documents.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from llmcache_plugins.answers.kinds import Kind
from llmcache_plugins.providers._base import Api, WireProvider, chosen, retry_headers
from llmcache_plugins.providers._wire_codec import (
    Shape,
    WireCodec,
    chat_codec,
    classes_by_type,
    responses_codec,
)
from llmcache_plugins.signature import LEFT_OUT_HEADERS

try:
    import openai
    from openai.types import CreateEmbeddingResponse
    from openai.types.chat import ChatCompletion, ChatCompletionChunk
    from openai.types.responses import Response, ResponseStreamEvent
except ImportError as error:
    raise ImportError(
        'OpenAIProvider needs the OpenAI SDK: pip install "llmcache-plugins[openai]"'
    ) from error

if TYPE_CHECKING:
    from collections.abc import Mapping

    from openai import AsyncOpenAI

    from llmcache_plugins.errors import SharedProviderError

__all__ = ["OpenAIProvider"]

_OF_THE_SDK = frozenset({"accept", "content-type", "openai-organization", "openai-project"})
_SECRET_PARAMETERS = frozenset({"access_token", "api-key", "api_key", "apikey", "subscription-key"})


class OpenAIProvider(WireProvider):
    """Calls `client.chat.completions.create`, `client.responses.create` or `client.embeddings.create`.

    The client stays the caller's: it is never closed or changed. Its `max_retries` apply inside one call of
    the cache. What a cache returns equals what the SDK returned; only `_request_id`, which names the request
    that was once sent, is absent. `AsyncAzureOpenAI` and other subclasses work alike.

    A streamed answer carries its usage only if the query asked for it with `stream_options`.
    """

    def __init__(self, client: AsyncOpenAI, *, api: Api = "chat") -> None:
        calls = {
            "chat": client.chat.completions.create,
            "responses": client.responses.create,
            "embeddings": client.embeddings.create,
        }
        super().__init__(call=chosen(api, calls), codec=_CODECS[api])
        self._client = client

    def scope(self, query: Mapping[str, Any]) -> Mapping[str, object]:
        """Return what the client adds to every request and an answer may depend on.

        Address, organization, project, and the headers and parameters its owner has set, less credentials
        and what only names a call. It is read each time: clients may be reconfigured.
        """
        client = self._client
        found = {
            "api_base": _without_user(str(client.base_url)),
            "organization": client.organization,
            "project": client.project,
            "default_headers": _headers_that_count(client.default_headers),
            "default_query": _parameters_that_count(client.default_query),
        }
        return {name: value for name, value in found.items() if value}

    def _rebuilt(self, shared: SharedProviderError) -> Exception | None:
        base_url = self._client.base_url
        # httpx; httpx2 in newer versions of the SDK.
        http: Any = sys.modules[type(base_url).__module__.partition(".")[0]]
        request = http.Request("POST", _without_user(str(base_url)))
        if shared.status is None:
            made = _WITHOUT_STATUS.get(shared.error_class)
            return made(request=request) if made is not None else None
        response = http.Response(shared.status, headers=retry_headers(shared), request=request)
        usual = _usual_class(shared.status)
        with suppress(Exception):
            error: Exception = _named_class(shared, usual)(str(shared), response=response, body=None)
            return error
        return usual(str(shared), response=response, body=None)


def _without_user(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _headers_that_count(headers: Mapping[str, object]) -> dict[str, str]:
    """Return the headers of a client's owner. A value that is no text means that the header is not sent."""
    lowered = {name.lower(): value for name, value in headers.items()}
    return {
        name: value
        for name, value in lowered.items()
        if isinstance(value, str)
        and name not in LEFT_OUT_HEADERS | _OF_THE_SDK
        and not name.startswith("x-stainless-")
    }


def _parameters_that_count(parameters: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in parameters.items() if name.lower() not in _SECRET_PARAMETERS}


# --- The SDK's errors ------------------------------------------------------------------------------------

_WITHOUT_STATUS: dict[str, type[openai.APIConnectionError]] = {
    "APIConnectionError": openai.APIConnectionError,
    "APITimeoutError": openai.APITimeoutError,
}

_BY_STATUS: dict[int, type[openai.APIStatusError]] = {
    400: openai.BadRequestError,
    401: openai.AuthenticationError,
    403: openai.PermissionDeniedError,
    404: openai.NotFoundError,
    409: openai.ConflictError,
    422: openai.UnprocessableEntityError,
    429: openai.RateLimitError,
}


def _usual_class(status: int) -> type[openai.APIStatusError]:
    """Return the class by the SDK's own rule, which it does not export."""
    return _BY_STATUS.get(status, openai.InternalServerError if status >= 500 else openai.APIStatusError)


def _named_class(shared: SharedProviderError, usual: type[openai.APIStatusError]) -> Any:
    """Return the class that raised there, if the SDK here has it for this status: it may be a newer one."""
    named = getattr(openai, shared.error_class, None)
    is_one = isinstance(named, type) and issubclass(named, usual)
    return named if is_one and getattr(named, "status_code", None) == shared.status else usual


# --- The SDK's classes -----------------------------------------------------------------------------------


def _read(model: Any) -> dict[str, Any]:
    # exclude_unset: the wire as it was, not with every field this version of the SDK knows.
    # warnings: the SDK does not validate what a server sends, and serializes it all the same.
    wire: dict[str, Any] = model.model_dump(mode="json", by_alias=True, exclude_unset=True, warnings=False)
    return wire


def _shape(model: Any) -> Shape:
    # `construct` is how the SDK itself turns a body into an object: nested, and without validation.
    return Shape(
        holds=lambda value: type(value) is model, read=_read, build=lambda wire: model.construct(**wire)
    )


_EVENTS = classes_by_type(ResponseStreamEvent)


def _build_event(wire: dict[str, Any]) -> Any:
    return _EVENTS[wire["type"]].construct(**wire)


_RESPONSE_EVENT = Shape(
    # An event that this version of the SDK does not know becomes an object of one that it does.
    holds=lambda value: hasattr(value, "type") and hasattr(value, "model_dump"),
    read=_read,
    build=_build_event,
)

_CODECS: dict[str, WireCodec] = {
    "chat": chat_codec(answer=_shape(ChatCompletion), chunk=_shape(ChatCompletionChunk)),
    "responses": responses_codec(answer=_shape(Response), chunk=_RESPONSE_EVENT),
    "embeddings": WireCodec(Kind.EMBEDDINGS, answer=_shape(CreateEmbeddingResponse)),
}
