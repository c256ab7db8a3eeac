"""How a scene is played and counted, whatever framework plays it.

Owns what a scene is, and the two counts beside each other: calls of the application, calls of the provider.
Imports no framework.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from llmcache_plugins.cli.demo.figures import Scene, Tally

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from llmcache_plugins.cli.load.stage import Source

__all__ = ["MEDIAN_SHARE", "Script", "Transcript", "scenes_of", "tally"]

MEDIAN_SHARE = 0.125
"""Only calls are counted here, and a chat waits for each answer: the stand-in takes a part of its time."""

Transcript = tuple[str, ...]
"""What the model said, call by call, in one play."""

App = TypeVar("App")


@dataclass(frozen=True, slots=True, kw_only=True)
class Script(Generic[App]):
    """A scene that is still to be played; every play of it makes the same calls."""

    name: str
    description: str
    play: Callable[[App], Awaitable[list[Transcript]]]


async def tally(script: Script[App], app: App, source: Source, on_done: Callable[[int], None]) -> Tally:
    """Play a scene; return what it took."""
    counted = source.count()
    transcripts = await script.play(app)
    calls = sum(map(len, transcripts))
    on_done(calls)
    return Tally(
        calls=calls,
        different_calls=len(transcripts[0]),
        different_answers=len(set(transcripts)),
        provider_calls=source.count() - counted,
    )


def scenes_of(scripts: Sequence[Script[App]], columns: Sequence[Sequence[Tally]]) -> tuple[Scene, ...]:
    """Put beside each other what was taken without a cache, with the framework's own, and with ours."""
    return tuple(
        Scene(name=script.name, description=script.description, no_cache=no_cache, theirs=theirs, ours=ours)
        for script, no_cache, theirs, ours in zip(scripts, *columns, strict=True)
    )
