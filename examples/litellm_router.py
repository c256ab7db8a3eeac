import asyncio

import litellm

from llmcache_plugins.adapters.litellm import LiteLLMCache

QUESTION = [{"role": "user", "content": "What is a lease?"}]
AWAY = "http://127.0.0.1:9"  # nobody listens there
DEPLOYMENTS = [
    {"model_name": "assistant", "litellm_params": {"model": "openai/gpt-4o-mini"}},
    {"model_name": "assistant", "litellm_params": {"model": "openai/gpt-4o"}},
    {"model_name": "broken", "litellm_params": {"model": "openai/gpt-4o-mini", "api_base": AWAY}},
    {"model_name": "spare", "litellm_params": {"model": "openai/gpt-4.1-mini"}},
]


async def main() -> None:
    async with LiteLLMCache.from_url() as cache:
        litellm.cache = cache  # before the router, which makes a cache if there is none
        router = litellm.Router(
            DEPLOYMENTS, cache_responses=True, fallbacks=[{"broken": ["spare"]}], num_retries=0
        )
        for group in ("assistant", "broken"):  # deployments of a group share their answers
            answers = await asyncio.gather(*(router.acompletion(group, QUESTION) for _ in range(5)))
            print(f"{group}: {len({answer.id for answer in answers})} answer to {len(answers)} calls")


asyncio.run(main())
# assistant: 1 answer to 5 calls
# broken: 1 answer to 5 calls
# Run again within an hour:
# assistant: 1 answer to 5 calls
# broken: 1 answer to 5 calls
