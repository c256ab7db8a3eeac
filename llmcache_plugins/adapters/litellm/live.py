"""A stream that somebody else has under way, as LiteLLM hands out a replay of its own.

LiteLLM reads it chunk by chunk, and reports it when it has ended. Owns what is said when it breaks off: an
error of ours that is LiteLLM's too, so that its router deals with it as with any stream of its own.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import litellm
from litellm.exceptions import MidStreamFallbackError
from litellm.litellm_core_utils.streaming_handler import CustomStreamWrapper

from llmcache_plugins.errors import StreamInterrupted

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

__all__ = ["live_stream"]


class _Interrupted(StreamInterrupted, MidStreamFallbackError):
    """What LiteLLM says of a stream that broke off, and known to whoever expects ours."""

    def __init__(self, error: MidStreamFallbackError) -> None:
        message = "the stream that this one followed broke off: what came is not the whole answer"
        Exception.__init__(self, message)
        vars(self).update(vars(error), message=message)
        # LiteLLM's, of an error that it does not know; its router would raise that.
        self.original_exception = None


class _LiveStream(CustomStreamWrapper):
    async def __anext__(self) -> Any:
        try:
            return await super().__anext__()
        except MidStreamFallbackError as error:
            raise _Interrupted(error) from error.__context__


def live_stream(chunks: AsyncGenerator[Any, None], arguments: Mapping[str, Any]) -> CustomStreamWrapper:
    """Return a stream of LiteLLM's over these chunks, for the call with these arguments."""
    model, _, _, _ = litellm.get_llm_provider(
        model=arguments["model"],
        custom_llm_provider=arguments.get("custom_llm_provider"),
        api_base=arguments.get("api_base"),
        api_key=arguments.get("api_key"),
    )
    return _LiveStream(
        completion_stream=_to_its_end(chunks),
        model=model,
        custom_llm_provider="cached_response",
        logging_obj=arguments["litellm_logging_obj"],
    )


async def _to_its_end(chunks: AsyncGenerator[Any, None]) -> AsyncGenerator[Any, None]:
    """Yield the chunks; raise for a stream that has not said its end: LiteLLM would call it complete."""
    is_finished = False
    async with aclosing(chunks):
        async for chunk in chunks:
            is_finished = is_finished or any(choice.finish_reason for choice in chunk.choices)
            yield chunk
    if not is_finished:
        raise StreamInterrupted("the stream ended without a finish reason")
