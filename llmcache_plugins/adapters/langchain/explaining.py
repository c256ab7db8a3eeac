"""Why a call of a chat model hits or misses, asked as the model itself is."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from langchain_core.load import dumps

from llmcache_plugins.adapters.langchain.cache import LangChainCache
from llmcache_plugins.adapters.langchain.description import described
from llmcache_plugins.adapters.langchain.keys import bypass_reason, request_of
from llmcache_plugins.adapters.langchain.model import cached_part
from llmcache_plugins.adapters.langchain.results import ResultCodec
from llmcache_plugins.adapters.langchain.shown import shown
from llmcache_plugins.adapters.langchain.values import GenerationsCodec
from llmcache_plugins.cache import Explanation
from llmcache_plugins.models import Outcome

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

    from llmcache_plugins.cache import ResponseCache

__all__ = ["explain"]


async def explain(
    model: BaseChatModel, asked: Any, cache: ResponseCache | LangChainCache, **arguments: Any
) -> Explanation:
    """Say why `model.ainvoke(asked, **arguments)` hits or misses: see `ResponseCache.explain`.

    `model` is one of LangChain's, served by its hook, or what `cached` made of one. Calls no model.
    """
    cache = cache.cache if isinstance(cache, LangChainCache) else cache
    messages = model._convert_input(asked).to_messages()
    part = cached_part(model)
    if part is not None:
        plain, calls = part
        request = described(plain, messages, arguments, kind=calls.kind)
        body = partial(shown, request)
        return await cache.explain(request, codec=ResultCodec(), request=body, **calls.options)
    stop = arguments.pop("stop", None)
    llm_string = model._get_llm_string(stop=stop, **arguments)
    if (reason := bypass_reason(llm_string)) is not None:
        return Explanation(outcome=Outcome.BYPASS, reason=f"the model {reason}")
    request = request_of(dumps(messages), llm_string)
    return await cache.explain(request, codec=GenerationsCodec(), request=partial(shown, request))
