"""The provider for `litellm`'s module-level calls.

Owns how LiteLLM's objects and errors are read and built. The payload is the same wire format that the OpenAI
provider and the LiteLLM cache hook write.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llmcache_plugins.answers.kinds import Kind
from llmcache_plugins.answers.openai_wire import join_chat_chunks, split_chat
from llmcache_plugins.providers._base import Api, WireProvider, chosen, retry_headers
from llmcache_plugins.providers._wire_codec import (
    Shape,
    WireCodec,
    WireStreamCodec,
    chat_codec,
    classes_by_type,
    responses_codec,
)

try:
    import httpx
    import litellm
    from litellm.types.llms.base import BaseLiteLLMOpenAIResponseObject
    from litellm.types.llms.openai import ResponsesAPIResponse, ResponsesAPIStreamingResponse
    from litellm.types.utils import EmbeddingResponse, ModelResponse, ModelResponseStream

    from llmcache_plugins.providers.litellm_requests import default_base, request_of
except ImportError as error:
    raise ImportError('LiteLLMProvider needs LiteLLM: pip install "llmcache-plugins[litellm]"') from error

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmcache_plugins.errors import SharedProviderError

__all__ = ["REPLAYED_CODEC", "LiteLLMProvider"]

Wire = dict[str, Any]


class LiteLLMProvider(WireProvider):
    """Calls `litellm.acompletion`, `litellm.aresponses` or `litellm.aembedding`.

    What a cache returns has the value of what LiteLLM returned, and the same types throughout. Private
    attributes are not kept: `_hidden_params` (headers, call id, cost) describes the call that was made, and
    a cached answer made none. `==` of LiteLLM's models compares them too; compare `model_dump()`.

    LiteLLM before 1.109 calls a stream that was cut off complete: what it says is believed, so cache streams
    with a newer one. A stream of several choices is not kept, since LiteLLM passes on the end of one of them
    only. A streamed answer carries its usage only if the query asked for it with `stream_options`.

    The id of a response of the Responses API is LiteLLM's own, with its routing inside, as LiteLLM
    returned it.
    """

    def __init__(self, *, api: Api = "chat") -> None:
        # Looked up at each call: programs and tracing tools replace these functions.
        names = {"chat": "acompletion", "responses": "aresponses", "embeddings": "aembedding"}
        name = chosen(api, names)
        super().__init__(call=lambda **arguments: getattr(litellm, name)(**arguments), codec=_CODECS[api])

    def scope(self, query: Mapping[str, Any]) -> Mapping[str, object]:
        """Return the module's `api_base` where the query has none; all else is in the query."""
        # What is no mapping is for `complete` to refuse, with a message of its own.
        base = default_base(query if isinstance(query, Mapping) else {})
        return {"api_base": base} if base else {}

    def request_of(self, query: Any) -> Any:
        """Return the request that LiteLLM sends: `openai/gpt-4o-mini` is OpenAI's `gpt-4o-mini`.

        So the entries are those of `OpenAIProvider`, too, where the address is the same; not so for the
        Responses API, where LiteLLM writes ids of its own.
        """
        if not isinstance(query, Mapping):
            return query
        return request_of(query, own_ids=self.codec.kind == "openai.responses")

    def _rebuilt(self, shared: SharedProviderError) -> Any:
        # The address is the one that LiteLLM gives its own errors.
        request = httpx.Request("POST", "https://litellm.ai")
        known: dict[str, Any] = {
            "message": str(shared),
            "model": "",
            "llm_provider": "",
            "request": request,
            "request_data": {},
        }
        if shared.status is None:
            name = _WITHOUT_STATUS.get(shared.error_class)
            return _built(name, known) if name is not None else None
        response = httpx.Response(shared.status, headers=retry_headers(shared), request=request)
        known |= {"response": response, "status_code": shared.status, "exception_status_code": shared.status}
        for name in (shared.error_class, _BY_STATUS.get(shared.status, ""), "APIError"):
            with suppress(Exception):
                error = _built(name, known)
                # Some classes have a status of their own, whatever they are told.
                if error.status_code == shared.status:
                    # And many make a response of their own, without the headers.
                    error.response = response
                    return error
        return None


# --- LiteLLM's errors ------------------------------------------------------------------------------------

_WITHOUT_STATUS = {
    "APIConnectionError": "APIConnectionError",
    "APITimeoutError": "Timeout",
    "Timeout": "Timeout",
}

_BY_STATUS = {
    400: "BadRequestError",
    401: "AuthenticationError",
    403: "PermissionDeniedError",
    404: "NotFoundError",
    408: "Timeout",
    422: "UnprocessableEntityError",
    429: "RateLimitError",
    500: "InternalServerError",
    502: "BadGatewayError",
    503: "ServiceUnavailableError",
    504: "Timeout",
}
"""For an error that another SDK raised; not every version of LiteLLM has every class."""


def _built(name: str, known: Mapping[str, Any]) -> Any:
    """Return an error of a class of LiteLLM. Raises if there is none, or if it wants to know more."""
    made = getattr(litellm.exceptions, name)
    if not issubclass(made, Exception):
        raise TypeError(f"{name} is no error")
    wanted = inspect.signature(made).parameters
    return made(**{argument: value for argument, value in known.items() if argument in wanted})


# --- LiteLLM's classes -----------------------------------------------------------------------------------


def _read(model: Any) -> Wire:
    wire: Wire = model.model_dump(mode="json", by_alias=True, exclude_unset=True, warnings=False)
    return wire


def _read_completion(model: Any) -> Wire:
    """Return a completion with what older versions (1.75) hold and leave out of their own dumps."""
    wire = _read(model)
    for choice, said in zip(model.choices, wire["choices"], strict=True):
        fields = getattr(choice.message, "provider_specific_fields", None)
        if fields:
            said["message"].setdefault("provider_specific_fields", fields)
    return wire


def _read_chunk(model: Any) -> Wire:
    """Return a chunk without its nulls: LiteLLM sets every field of every chunk it repacks."""
    wire: Wire = model.model_dump(
        mode="json", by_alias=True, exclude_unset=True, exclude_none=True, warnings=False
    )
    return wire


def _read_event(model: Any) -> Wire:
    wire = _read(model)
    response = wire.get("response")
    if isinstance(response, dict) and isinstance(response.get("usage"), dict):
        response["usage"] = _response_usage(response["usage"])
    return wire


def _response_usage(usage: Wire) -> Wire:
    """Return usage in the words of the Responses API.

    LiteLLM's logging may rewrite the usage of the last event into the words of chat completions, in place
    and after the caller has got it.
    """
    if "input_tokens" in usage or "prompt_tokens" not in usage:
        return usage
    return {
        "input_tokens": usage["prompt_tokens"],
        "output_tokens": usage.get("completion_tokens", 0),
        "total_tokens": usage.get("total_tokens", 0),
    }


def _shape(model: Any, *, read: Callable[[Any], Wire] = _read) -> Shape:
    return Shape(holds=lambda value: type(value) is model, read=read, build=lambda wire: model(**wire))


_EVENTS = classes_by_type(ResponsesAPIStreamingResponse)


def _build_event(wire: Wire) -> Any:
    event = _EVENTS.get(wire["type"], BaseLiteLLMOpenAIResponseObject)
    try:
        return event(**wire)
    except ValueError:
        # As LiteLLM does with events of servers that are only nearly compatible.
        return event.model_construct(**wire)


_EVENT = Shape(
    holds=lambda value: isinstance(value, BaseLiteLLMOpenAIResponseObject),
    read=_read_event,
    build=_build_event,
)


def _build_replayed(wire: Wire) -> Any:
    # LiteLLM loses the usage of a replayed chunk that has no choice.
    return ModelResponseStream(**{**wire, "choices": wire.get("choices") or [{"index": 0, "delta": {}}]})


REPLAYED_CODEC = WireStreamCodec(
    Kind.CHAT,
    answer=_shape(ModelResponse, read=_read_completion),
    chunk=replace(_shape(ModelResponseStream, read=_read_chunk), build=_build_replayed),
    joined=join_chat_chunks,
    parts=lambda wire, _query: split_chat(wire, include_usage=True),
)
"""For chunks that LiteLLM's own replay of a cached stream reads; it wants the usage, whoever asked for it."""

_CODECS: dict[str, WireCodec] = {
    "chat": chat_codec(
        answer=_shape(ModelResponse, read=_read_completion),
        chunk=_shape(ModelResponseStream, read=_read_chunk),
    ),
    "responses": responses_codec(answer=_shape(ResponsesAPIResponse), chunk=_EVENT),
    "embeddings": WireCodec(Kind.EMBEDDINGS, answer=_shape(EmbeddingResponse)),
}
