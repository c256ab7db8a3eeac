"""What the installed version of LiteLLM gets right, where versions differ."""

from __future__ import annotations

from importlib.metadata import version
from typing import Final

from litellm.litellm_core_utils.streaming_handler import CustomStreamWrapper

__all__ = ["MIXES_UP_LISTS", "NOTICES_CUT_STREAMS"]

_VERSION = tuple(int(part) for part in version("litellm").split(".")[:2])

MIXES_UP_LISTS: Final = _VERSION < (1, 106)
"""Whether it gives wrong vectors for a list of inputs of which only some are known."""

NOTICES_CUT_STREAMS: Final = hasattr(CustomStreamWrapper, "_should_fail_on_clean_eof")
"""Whether a stream that ends without its finish reason is an error, and not a whole answer. Since 1.109, of
providers that speak as OpenAI does; what another provider's ends with is believed."""
