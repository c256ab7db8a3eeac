"""What cannot change an answer, and so is no part of a key: two closed lists, each name with its reason."""

from __future__ import annotations

from typing import Final

__all__ = ["LEFT_OUT", "LEFT_OUT_HEADERS"]

# Who asks, and what the asker wants to find again later. Providers document these as labels for abuse
# detection and bookkeeping; keeping them in would give each user a cache of their own, which is what a
# namespace is for.
_ASKER = frozenset(
    {
        "litellm_metadata",
        "metadata",
        "safety_identifier",
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
text that is not in the body. `background`: the answer is a receipt. `store`: an answer that
was not kept cannot be continued. `fallbacks`: another model may answer.
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
