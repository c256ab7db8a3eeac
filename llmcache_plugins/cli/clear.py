"""`llmcache clear`: remove all answers of one namespace, such as those of a person or a tenant.

Owns the options, the question and the exit code. What is removed, and what that means for calls under way,
is `ResponseRepository.clear`.
"""

import asyncio
import json
import time

import typer

from llmcache_plugins.cli.ending import with_a_sentence
from llmcache_plugins.cli.options import AsJson, Namespace, Prefix, Secret, Tenant, Url, Yes
from llmcache_plugins.cli.reaching import ask, reach, use, whose_answers

__all__ = ["clear"]


def clear(
    *,
    namespace: Namespace,
    url: Url = None,
    tenant: Tenant = None,
    secret: Secret = None,
    prefix: Prefix = "llm",
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Remove all answers of a namespace: afterwards no process serves them and no byte of them is in Redis.

    Other namespaces are not touched. Safe while the cache is in use, and safe to repeat. Waits a second for
    the near caches that there may be. The namespace must be given, by the option, the environment or the
    file.

    Example: llmcache clear --namespace acme --tenant alice

    Exit codes: 0 cleared, 2 not cleared, or not wholly.
    """
    with with_a_sentence("clear", as_json=as_json):
        whose = whose_answers(namespace, tenant)
        repository = reach(url, namespace=namespace, tenant=tenant, secret=secret, prefix=prefix)
        if not yes:
            ask(f"Remove all answers of {whose} at {repository.address}?", otherwise="nothing was removed")
        began = time.monotonic()
        entries = asyncio.run(use(repository, lambda: repository.clear(wait=True)))
        seconds = time.monotonic() - began
        if as_json:
            done = {
                "namespace": namespace,
                "tenant": tenant,
                "server": repository.address,
                "entries": entries,
                "seconds": round(seconds, 3),
            }
            typer.echo(json.dumps(done, indent=2))
        else:
            gone = f"{entries} {'entry' if entries == 1 else 'entries'} removed in {seconds:.2f} s"
            typer.echo(f"{whose[0].upper()}{whose[1:]} at {repository.address}: {gone}.")
