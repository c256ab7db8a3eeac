"""What makes two requests equal: the canonical form of a request, and its digest.

Owns the list of parameters that cannot change an answer, the canonical form, and the scheme version. Knows
nothing of frameworks, of Redis or of normalization: what comes in is a body (or a bare prompt) as it will be
sent, what goes out is a `CacheKey`.

    digest = SHA-256 or HMAC-SHA-256 of the canonical JSON of
             [scheme, kind, namespace, prompt | null, {parameter: value}]

Prompts are chosen by strangers, so the digest is a cryptographic one and the form is one JSON document:
no two different requests have the same bytes, wherever a character is moved. Whoever changes what
this module calls equal raises `SCHEME` in the same commit; entries of the old scheme are then never found.

Two mistakes are possible here and they are not alike. A parameter in the key that changes nothing costs a
provider call; one left out that changes something serves a wrong answer. So what is left out is a closed
list, and everything unknown stays in.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import json
import math
import unicodedata
from collections.abc import Mapping
from typing import Any, Final, Self, TypeAlias

import msgspec

from llmcache_plugins.errors import ConfigError, SignatureError
from llmcache_plugins.keys import CacheKey, encode_name

__all__ = ["LEFT_OUT", "LEFT_OUT_HEADERS", "SCHEME", "CacheSignatureEngine"]

SCHEME: Final = 1
"""Version of the canonical form, part of every digest."""

Tree: TypeAlias = "bool | int | float | str | list[Tree] | dict[str, Tree] | None"

# --- What cannot change an answer ---------------------------------------------------------------------------

# Who asks, and what the asker wants to find again later. Providers document these as labels for abuse
# detection and bookkeeping; keeping them in would give each user a cache of their own, which is what a
# namespace is for.
_ASKER = frozenset(
    {
        "litellm_metadata",
        "metadata",
        "safety_identifier",
        "store",
        "user",
    }
)

# Names of one call: new each time, so that keeping one in means never to hit.
_CALL_NAMES = frozenset(
    {
        "client_request_id",
        "completion_call_id",
        "idempotency_key",
        "litellm_call_id",
        "litellm_session_id",
        "litellm_trace_id",
        "request_id",
    }
)

# How the answer travels. A stream carries the same answer in pieces.
_DELIVERY = frozenset({"stream", "stream_options"})

# How long and how often to try before giving up.
_PATIENCE = frozenset(
    {
        "client_side_timeout",
        "force_timeout",
        "max_retries",
        "num_retries",
        "request_timeout",
        "retry_policy",
        "retry_strategy",
        "stream_timeout",
        "stream_timeout_by_service_tier",
        "timeout",
        "timeout_by_service_tier",
    }
)

# Secrets rotate, and a secret has no place in what is compared or explained. Which of several accounts is
# billed does not change the answer; callers who must not share answers have namespaces. What names a place
# (`organization`, `azure_scope`, `aws_region_name`, `vertex_project`, `litellm_credential_name`) stays in.
_CREDENTIALS = frozenset(
    {
        "api_key",
        "aws_access_key_id",
        "aws_secret_access_key",
        "aws_session_token",
        "aws_web_identity_token",
        "azure_ad_token",
        "azure_ad_token_provider",
        "azure_password",
        "client_secret",
        "configurable_clientside_auth_params",
        "secret_fields",
        "vertex_credentials",
    }
)

# Objects and switches of the calling library: they never reach the provider.
_MACHINERY = frozenset(
    {
        "acompletion",
        "aembedding",
        "async_call",
        "atext_completion",
        "client",
        "http_client",
        "litellm_logging_obj",
        "litellm_parent_otel_span",
        "litellm_request_debug",
        "log_client_error_tracebacks",
        "logger_fn",
        "model_info",
        "no-log",
        "parent_otel_span",
        "proxy_server_request",
        "shared_session",
        "turn_off_message_logging",
        "use_client",
    }
)

# What to do with the answer in a cache, not what to answer.
_CACHE_CONTROL = frozenset({"cache", "cache_key", "caching", "dynamic_cache_object", "preset_cache_key"})

# What LiteLLM's router keeps beside a deployment and passes along with each call. Left in, the deployments
# of one model group would not share answers as soon as one of them had another price or limit. (It passes
# `order`, `weight` and other everyday words too: whoever takes a request from the router drops those there.)
_DEPLOYMENT_BOOKS = frozenset(
    {
        "input_cost_per_second",
        "input_cost_per_token",
        "itpm",
        "max_parallel_requests",
        "otpm",
        "output_cost_per_second",
        "output_cost_per_token",
        "rpd",
        "rpm",
        "tpd",
        "tpm",
    }
)

# Where a call is reported to.
_REPORTING = frozenset(
    {
        "arize_api_key",
        "arize_space_id",
        "arize_space_key",
        "langfuse_host",
        "langfuse_public_key",
        "langfuse_secret",
        "langfuse_secret_key",
        "langsmith_api_key",
        "langsmith_base_url",
        "langsmith_project",
        "langsmith_sampling_rate",
    }
)

LEFT_OUT: Final = frozenset().union(
    _ASKER,
    _CALL_NAMES,
    _DELIVERY,
    _PATIENCE,
    _CREDENTIALS,
    _MACHINERY,
    _CACHE_CONTROL,
    _DEPLOYMENT_BOOKS,
    _REPORTING,
)
"""Top-level parameters of a provider's body that are not part of a key. Everything else is.

A mapping is a provider's body if it has a `model`, `messages`, an `input` or a `prompt`. Of any other mapping
everything counts: in `{"system": ..., "user": ...}` the user is the question.

Some stay in on purpose. `service_tier`: the answer names the tier that served it, no provider promises the
same weights on all tiers, and a deployment has one tier anyway. `prompt_cache_key`: only a hint to OpenAI's
own cache, but not every compatible server reads it so, and an application has few of them. `seed`,
`logprobs`, `n`, `modalities`: they ask for another answer. `previous_response_id`, `conversation`: they name
text that is not in the body. `background`: the answer is a receipt. `fallbacks`: another model may answer.
`extra_body`, `extra_query`: nobody knows what is inside.
"""

LEFT_OUT_HEADERS: Final = frozenset(
    # Credentials.
    {
        "api-key",
        "authorization",
        "cookie",
        "ocp-apim-subscription-key",
        "proxy-authorization",
        "x-amz-security-token",
        "x-api-key",
        "x-goog-api-key",
    }
    # Names of one call and of its place in a trace.
    | {
        "b3",
        "baggage",
        "correlation-id",
        "idempotency-key",
        "request-id",
        "sentry-trace",
        "traceparent",
        "tracestate",
        "x-amzn-trace-id",
        "x-b3-flags",
        "x-b3-parentspanid",
        "x-b3-sampled",
        "x-b3-spanid",
        "x-b3-traceid",
        "x-client-request-id",
        "x-cloud-trace-context",
        "x-correlation-id",
        "x-datadog-parent-id",
        "x-datadog-sampling-priority",
        "x-datadog-trace-id",
        "x-idempotency-key",
        "x-ms-client-request-id",
        "x-request-id",
        "x-trace-id",
    }
    # Which program asks, and for how long it waits.
    | {
        "user-agent",
        "x-stainless-arch",
        "x-stainless-async",
        "x-stainless-lang",
        "x-stainless-os",
        "x-stainless-package-version",
        "x-stainless-read-timeout",
        "x-stainless-retry-count",
        "x-stainless-runtime",
        "x-stainless-runtime-version",
        "x-stainless-timeout",
    }
)
"""Names in `extra_headers` that are not part of a key, in lower case. Every other header is."""

_OPENAI_BASE = "https://api.openai.com/v1"
_BODY_MARKS = frozenset({"input", "messages", "model", "prompt"})
_CONVERSATIONS = ("messages", "input")
_EXTRAS = ("extra_body", "extra_headers", "extra_query")

# --- Limits -------------------------------------------------------------------------------------------------

# Python's own stack ends at a depth nobody can foresee (it depends on the caller), ours must not. No provider
# accepts a schema half as deep. It is also how a cycle is noticed.
_DEEPEST = 128
# The interpreter refuses to print integers of more digits than a setting allows (at least 640): this is less.
_MOST_BITS = 2048
# In messages: enough to find the place, not enough to print a prompt that was used as a key.
_LONGEST_NAME = 60
_LONGEST_PATH = 40

# --- The engine ---------------------------------------------------------------------------------------------


class CacheSignatureEngine:
    """Gives equal requests equal keys.

    With a `secret` the digest is an HMAC: who can read the key names of the server cannot test whether a
    guessed prompt was asked. All processes that share entries need the same secret. `namespace` is the trust
    domain; it is part of the digest as well, so that not even the digests of two tenants can be compared.

    The engine has no state: one may be used by any number of tasks and threads. It does no I/O and never
    changes a request.
    """

    __slots__ = ("_namespace", "_prefix", "_secret")

    def __init__(
        self, *, secret: str | bytes | None = None, namespace: str = "default", prefix: str = "llm"
    ) -> None:
        self._secret = _secret_bytes(secret)
        self._namespace = namespace
        self._prefix = prefix

    def compute_signature(
        self,
        request: Mapping[str, Any] | str,
        *,
        kind: str = "plain",
        scope: Mapping[str, object] | None = None,
        namespace: str | None = None,
    ) -> CacheKey:
        """Return the key of a request.

        `kind` says which codec reads the stored value. `scope` holds facts of the provider that change the
        answer, such as `{"api_base": ...}`; they count as parameters of the request, whose own win.
        A chat of two kilobytes takes about 30 microseconds, on the calling thread.

        Raises `SignatureError`, and nothing else, for a request without a canonical form.
        """
        message = self.canonical(request, kind=kind, scope=scope, namespace=namespace)
        return CacheKey(
            digest=self._digest(message),
            namespace=self._namespace if namespace is None else namespace,
            prefix=self._prefix,
        )

    def canonical(
        self,
        request: Mapping[str, Any] | str,
        *,
        kind: str = "plain",
        scope: Mapping[str, object] | None = None,
        namespace: str | None = None,
    ) -> bytes:
        """Return the bytes that are digested: one JSON document in canonical form. It contains the prompt.

        After RFC 8785 (JSON Canonicalization Scheme), which sorts keys and fixes the spelling of numbers.
        Other than there, keys are sorted by code point and not by UTF-16 unit; integers keep all their digits
        and do not become doubles; a float with an integral value is that integer; strings are in Unicode NFC.
        `None` is the same as absent where an SDK makes it so, as a parameter and as a field of a message, and
        nowhere else: the schema `{"const": null}` is not `{}`.

        Raises `SignatureError`, and nothing else, for a request without a canonical form.
        """
        spelled = encode_name(self._namespace if namespace is None else namespace)
        try:
            prompt, parameters = _parts(request, scope or {})
            return _ENCODER.encode([SCHEME, _at("kind", kind), spelled, prompt, parameters])
        except _Refused as refused:
            raise SignatureError(refused.reason, path=refused.path()) from None
        except RuntimeError as error:
            # The caller's own stack was nearly used up, or another thread changed the request meanwhile.
            raise SignatureError(f"could not be read ({type(error).__name__})", path="") from None

    def _digest(self, message: bytes) -> str:
        if self._secret is None:
            return hashlib.sha256(message).hexdigest()
        return hmac.digest(self._secret, message, "sha256").hex()


# Shared by all threads: an encoder keeps nothing between two calls. "deterministic" sorts the keys.
_ENCODER = msgspec.json.Encoder(order="deterministic")


def _secret_bytes(secret: str | bytes | None) -> bytes | None:
    if secret is None:
        return None
    if not secret:
        # An unset variable in a deployment's environment: whoever asked for a secret must not get none.
        raise ConfigError("the secret is empty; give None for keys without a secret")
    return secret.encode("utf-8", "surrogatepass") if isinstance(secret, str) else bytes(secret)


# --- Top level ----------------------------------------------------------------------------------------------


def _parts(request: object, scope: Mapping[str, object]) -> tuple[Tree, dict[str, Tree]]:
    """Split a request into its bare prompt, if it is one, and its parameters."""
    body = _plain(request)
    facts = _parameters(_spelled(_plain(scope)), LEFT_OUT)
    if isinstance(body, str):
        return _tree(body, 0), _with_default_base(facts)
    if isinstance(body, dict):
        said = _spelled(body)
        return None, _with_default_base(facts | _parameters(said, _left_out_of(said)))
    raise _Refused(f"a request is a mapping or a string, not {_named(request)}")


def _spelled(body: dict[Any, Any]) -> dict[str, Any]:
    """Return what a body says, None being nothing."""
    said: dict[str, Any] = {}
    for key, value in body.items():
        name = key if type(key) is str and key.isascii() else _name(key)
        if name in said:
            raise _collision(name)
        if value is not None:
            said[name] = value
    return said


def _left_out_of(said: dict[str, Any]) -> frozenset[str]:
    return frozenset() if _BODY_MARKS.isdisjoint(said) else LEFT_OUT


def _parameters(said: dict[str, Any], left_out: frozenset[str]) -> dict[str, Tree]:
    tree = {name: _at(name, value) for name, value in said.items() if name not in left_out}
    return _with_one_base(_without_empty_extras(_with_short_messages(tree)))


def _at(name: str, value: Any) -> Tree:
    """Return the canonical form of one parameter."""
    try:
        return _tree(_kept_headers(value) if name == "extra_headers" else value, 1)
    except _Refused as refused:
        raise refused.under(name) from None


def _with_short_messages(tree: dict[str, Tree]) -> dict[str, Tree]:
    """Drop the fields of messages that are None: an SDK does not send them."""
    for name in _CONVERSATIONS:
        messages = tree.get(name)
        if isinstance(messages, list):
            tree[name] = [_without_none(message) for message in messages]
    return tree


def _without_none(message: Tree) -> Tree:
    if not isinstance(message, dict) or None not in message.values():
        return message
    return {name: value for name, value in message.items() if value is not None}


def _kept_headers(headers: Any) -> Any:
    plain = _plain(headers)
    if type(plain) is not dict:
        return plain
    kept: dict[str, Any] = {}
    for key, value in plain.items():
        # RFC 9110, 5.1: the names of fields are case-insensitive.
        name = _name(key).lower()
        if name in LEFT_OUT_HEADERS:
            continue
        if name in kept:
            raise _collision(name)
        kept[name] = value
    return kept


def _without_empty_extras(tree: dict[str, Tree]) -> dict[str, Tree]:
    """Drop what adds nothing to a request."""
    for name in _EXTRAS:
        if tree.get(name) == {}:
            del tree[name]
    return tree


def _with_one_base(tree: dict[str, Tree]) -> dict[str, Tree]:
    """Give the address of the provider one name and spelling."""
    for name in ("api_base", "base_url"):
        address = tree.get(name)
        if isinstance(address, str):
            tree[name] = address.rstrip("/")
    base = tree.get("api_base")
    # Two different addresses both stay: which of them wins is the provider's affair.
    if "base_url" in tree and (base is None or (isinstance(base, str) and base == tree["base_url"])):
        tree["api_base"] = tree.pop("base_url")
    return tree


def _with_default_base(tree: dict[str, Tree]) -> dict[str, Tree]:
    """Drop OpenAI's own address: it is what no address means."""
    if tree.get("api_base") == _OPENAI_BASE and "base_url" not in tree:
        del tree["api_base"]
    return tree


# --- Values -------------------------------------------------------------------------------------------------


def _tree(value: Any, depth: int) -> Tree:
    """Return the canonical form of a value. Exact types first: nearly every value has one of them."""
    cls = type(value)
    if cls is str:
        text: str = value
        return text if text.isascii() else _text(text)
    if cls is dict:
        return _mapping(value, depth)
    if cls is list or cls is tuple:
        return _sequence(value, depth)
    # bool before int: True is not 1.
    if value is None or cls is bool:
        atom: bool | None = value
        return atom
    if cls is int:
        return _integer(value)
    if cls is float:
        return _number(value)
    _not_deeper(depth)
    return _tree(_plain(value), depth + 1)


def _mapping(value: dict[Any, Any], depth: int) -> dict[str, Tree]:
    _not_deeper(depth)
    tree: dict[str, Tree] = {}
    for key, item in value.items():
        name = key if type(key) is str and key.isascii() else _name(key)
        if name in tree:
            raise _collision(name)
        try:
            tree[name] = _tree(item, depth + 1)
        except _Refused as refused:
            raise refused.under(name) from None
    return tree


def _sequence(value: list[Any] | tuple[Any, ...], depth: int) -> list[Tree]:
    _not_deeper(depth)
    tree: list[Tree] = []
    try:
        for item in value:
            tree.append(_tree(item, depth + 1))  # noqa: PERF401 - its length is the place of a refused item
    except _Refused as refused:
        raise refused.under(len(tree)) from None
    return tree


def _not_deeper(depth: int) -> None:
    if depth > _DEEPEST:
        raise _Refused(f"is nested deeper than {_DEEPEST} levels, or contains itself")


def _text(value: str) -> str:
    if value.isascii():
        return value
    normal = unicodedata.normalize("NFC", value)
    try:
        normal.encode()
    except UnicodeEncodeError:
        raise _Refused("a str with a lone surrogate has no UTF-8 form") from None
    return normal


def _integer(value: int) -> int:
    if value.bit_length() > _MOST_BITS:
        raise _Refused(f"an int of more than {_MOST_BITS} bits")
    return value


def _number(value: float) -> int | float:
    # JSON knows one kind of number, and encoders disagree about "1.0" and "-0.0".
    if value.is_integer():
        return int(value)
    if math.isfinite(value):
        return value
    raise _Refused("a float that is NaN or infinite has no JSON form")


def _name(key: Any) -> str:
    """Return the string that JSON makes of a key."""
    cls = type(key)
    if issubclass(cls, str):
        return _text(str.__str__(key))
    if issubclass(cls, int) and cls is not bool:
        return str(_integer(int.__int__(key)))
    # json.dumps would write a float, a bool and None as well, in ways that other languages do not.
    raise _Refused(f"has a key of type {type(key).__qualname__}; keys are strings or integers")


# --- Values of other types ----------------------------------------------------------------------------------


def _plain(value: Any) -> Any:
    """Return a value of any other type as one of a JSON type, if it clearly is one.

    The type is asked and not the value, for a mock or a proxy claims to be whatever it is asked for.
    """
    if type(value) in (dict, str):
        return value
    try:
        return _by_value(value, type(value))
    except _Refused:
        raise
    except Exception as error:  # noqa: BLE001 - code of strangers runs here; what it raises is their business
        raise _Refused(f"{_named(value)} that cannot be read ({type(error).__name__})") from None


def _by_value(value: Any, cls: type[Any]) -> Any:
    # The base class's own methods: an enum's __str__ gives its name.
    if issubclass(cls, str):
        return str.__str__(value)
    if issubclass(cls, int):
        return int.__int__(value)
    if issubclass(cls, float):
        return float.__float__(value)
    if issubclass(cls, enum.Enum):
        return value.value
    if issubclass(cls, Mapping):
        return _as_dict(value)
    if issubclass(cls, (list, tuple)):
        return list(value)
    if hasattr(cls, "model_dump"):
        return _dumped(value, cls)
    # Dataclasses too: no SDK sends one, and which of its fields a provider reads is not to be seen here.
    raise _Refused(f"{_named(value)} has no canonical form")


def _as_dict(value: Mapping[Any, Any]) -> dict[Any, Any]:
    items = list(value.items())
    plain = dict(items)
    if len(plain) != len(items):
        # A multidict: which of the values counts is not to be seen here.
        raise _Refused(f"{_named(value)} that has a key twice")
    return plain


def _dumped(value: Any, cls: type[Any]) -> Any:
    """Return what a pydantic model, or what looks like one, stands for.

    The OpenAI SDK sends the fields that were set (and never those in `__api_exclude__`), other libraries send
    defaults as well. A default that is not None therefore counts: `UserMessage(content="hi")` and
    `SystemMessage(content="hi")` often differ in nothing else. A None that nobody set is not a field.
    """
    options: dict[str, Any] = {"mode": "json"}
    if hasattr(cls, "__pydantic_serializer__"):
        # pydantic's warnings quote the value, and so the prompt.
        options |= {"warnings": False, "exclude": getattr(value, "__api_exclude__", None)}
    return _without_unset_none(value.model_dump(**options), value.model_dump(exclude_unset=True, **options))


def _without_unset_none(full: Any, given: Any) -> Any:
    if type(full) is dict and type(given) is dict:
        return {
            key: _without_unset_none(value, given[key]) if key in given else value
            for key, value in full.items()
            if value is not None or key in given
        }
    if type(full) is list and type(given) is list and len(full) == len(given):
        return [_without_unset_none(*pair) for pair in zip(full, given, strict=True)]
    return full


# --- Refusals -----------------------------------------------------------------------------------------------


class _Refused(Exception):
    """A value without a canonical form. Each container it passes on its way up adds a step to its path.

    So that a path costs nothing where nothing is refused.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self._steps: list[str | int] = []

    def under(self, step: str | int) -> Self:
        """Add the place inside the next container."""
        self._steps.append(step)
        return self

    def path(self) -> str:
        """Return the place as Python would write it, such as `messages[2].content`."""
        steps = self._steps[::-1]
        spelled = "".join(map(_step, steps[:_LONGEST_PATH])).removeprefix(".")
        return f"{spelled}..." if len(steps) > _LONGEST_PATH else spelled


def _collision(name: str) -> _Refused:
    return _Refused("two keys become this one").under(name)


def _step(step: str | int) -> str:
    if isinstance(step, int):
        return f"[{step}]"
    if len(step) > _LONGEST_NAME:
        return f"[{json.dumps(step[:_LONGEST_NAME] + '...')}]"
    return f".{step}" if step.isidentifier() else f"[{json.dumps(step)}]"


def _named(value: object) -> str:
    return f"a value of type {type(value).__qualname__}"
