"""Checks that concern a server or Cluster as a whole: who may use it, and whether it does what is asked."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from llmcache_plugins.diagnosis.finding import fine, note, problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from llmcache_plugins.diagnosis.facts import Refusal, ServerFacts
    from llmcache_plugins.diagnosis.finding import Finding

__all__ = ["access", "litellm", "rights", "scripts", "slots"]

_LITELLM_LIMITED = (1, 106)


def access(facts: ServerFacts) -> Finding:
    """See who can read and write answers."""
    if facts.has_login:
        return fine("access", "a password is needed")
    if facts.kind == "embedded":
        return fine("access", "its socket is open to this user only")
    if facts.is_local:
        return note(
            "access",
            "no password, on an address of this machine",
            why="every program and user of this machine can read answers and answer for the model",
            fix="requirepass, or a user of the cache's own (docs/security.md)",
        )
    return note(
        "access",
        "NO PASSWORD, on an address that other machines reach",
        why="whoever reaches it reads every answer, can answer for the model, and may take over the machine",
        fix="requirepass, or a user of the cache's own (docs/security.md), now; rediss:// across networks",
    )


def litellm(version: str) -> Finding:
    """Say what LiteLLM's own caches leave out by default, whatever the server."""
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    what = f"LiteLLM {version} is installed here"
    if numbers < _LITELLM_LIMITED:
        return fine("litellm", what)
    return note(
        "litellm",
        what,
        why="its own caches neither serve nor store chats of more than 4 messages (max_messages)",
        fix="litellm.cache = LiteLLMCache.from_url(...) has no such limit",
    )


def slots(facts: ServerFacts) -> Finding | None:
    """Check that every key of the Cluster has a home."""
    if facts.kind != "cluster":
        return None
    if not facts.uncovered:
        return fine("slots", "all 16384 slots are covered")
    ranges = ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in facts.uncovered)
    return problem(
        "slots",
        f"nobody serves the slots {ranges}",
        why="answers whose keys lie there are not stored; by default the whole Cluster refuses to work",
        fix="redis-cli --cluster fix HOST:PORT, or CLUSTER ADDSLOTSRANGE on a node",
    )


def rights(facts: ServerFacts) -> Iterator[Finding]:
    """Check that all went well that the cache does: the commands of its scripts, its messages, its sweeps."""
    forbidden = [refusal for refusal in facts.refusals if refusal.command]
    if forbidden:
        yield _forbidden(forbidden)
    for said in dict.fromkeys(refusal.said for refusal in facts.refusals if not refusal.command):
        failed = dict.fromkeys(refusal.what for refusal in facts.refusals if refusal.said == said)
        yield problem(
            "use",
            f"it did not {', '.join(failed)}: {said}",
            why="the cache does this all the time; without it calls go to the provider",
            fix="mend what is said there: a full or read-only server or one that lacks slots cannot write",
        )
    if not facts.refusals:
        yield fine("rights", "a lease, an answer, a stream, a message, an eviction and a clear all worked")


def _forbidden(refusals: Sequence[Refusal]) -> Finding:
    commands = sorted({refusal.command for refusal in refusals})
    return problem(
        "rights",
        f"this user may not {', '.join(dict.fromkeys(refusal.what for refusal in refusals))}",
        why="without it calls go to the provider, or wait longer for one another; the server said: "
        + "; ".join(dict.fromkeys(refusal.said for refusal in refusals)),
        fix=f"grant {' '.join(map(_grant, commands))} (the whole line is in docs/security.md), and run this"
        " again: what comes after a refused command was not met",
    )


def _grant(command: str) -> str:
    return command if command.startswith(("~", "&")) else f"+{command}"


def scripts(facts: ServerFacts) -> Finding | None:
    """Show what a round trip with a script takes."""
    if not facts.scripts:
        return None
    return fine("scripts", f"a script takes {statistics.median(facts.scripts) * 1000:.2f} ms (median)")
