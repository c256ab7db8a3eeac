"""Record the answers of the examples anew, from the stand-in provider: `python tests/record_examples.py`.

To be run when an example asks something else than before, or a framework asks it in another way.
"""

from __future__ import annotations

import asyncio
import os
import sys
from urllib.parse import urlsplit

from command import ROOT

from llmcache_plugins.testing.provider_server import ProviderServer

EXAMPLES = ROOT / "examples"
# Where the package is installed, pytest has found the plugin already.
OPTIONS = ("-p", "no:cacheprovider", "-p", "no:randomly", "-p", "no:xdist", "-q", "--tb=short")


async def main() -> int:
    """Ask slowly, so that who comes second finds the first still asking; then look at what there is."""
    sys.path.insert(0, str(EXAMPLES))
    import test_recorded as recorded

    async with ProviderServer(port=urlsplit(recorded.BASE_URL).port or 0, median_seconds=0.3):
        for name in recorded.EXAMPLES:
            # In a process each: langchain-openai keeps a client for all event loops, and each has its own.
            test = f"{recorded.__file__}::test_an_example[{name}]"
            # That it prints something else when it is not yet recorded is no failure to record.
            await session("--llmcache=record", "--llmcache-rewrite", "--tb=no", test)
    return await session("--llmcache=strict", "--llmcache-unused", str(EXAMPLES))


async def session(*options: str) -> int:
    """Return the exit code of a session of pytest."""
    settings = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    command = (sys.executable, "-m", "pytest", *OPTIONS, *options)
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, env=settings)
    return await process.wait()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
