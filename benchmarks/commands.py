"""How many commands a contender sent, and how many its server ran.

The server counts a command that a script runs like one that a client sends, under the same name, so it cannot
tell the two apart. What is sent is therefore counted where redis-py, which all contenders use, packs it; the
two counts are held against each other.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import TYPE_CHECKING, Any

import redis
import redis.asyncio.connection
import redis.connection

if TYPE_CHECKING:
    from collections.abc import Iterator

_HOUSEKEEPING = {"AUTH", "CLIENT", "COMMAND", "CONFIG", "HELLO", "INFO", "PING", "SCRIPT", "SELECT"}
_SCRIPTS = {"EVAL", "EVALSHA", "FCALL"}


def count_sent() -> Counter[str]:
    """Count, from now on, each command that this process sends, by name; return the counter."""
    sent: Counter[str] = Counter()
    asynchronous: Any = redis.asyncio.connection.AbstractConnection
    hiredis: Any = redis.connection.HiredisRespSerializer
    python: Any = redis.connection.PythonRespSerializer
    for owner, name in ((asynchronous, "pack_command"), (hiredis, "pack"), (python, "pack")):
        setattr(owner, name, _counting(getattr(owner, name), sent))
    return sent


def _counting(pack: Any, sent: Counter[str]) -> Any:
    def packed(self: Any, *arguments: Any) -> Any:
        word = arguments[0]
        text = word.decode() if isinstance(word, bytes) else str(word)
        sent[text.split()[0].upper()] += 1
        return pack(self, *arguments)

    return packed


class Counters:
    """Reads what a server ran. Its own commands are never in what it says."""

    def __init__(self, client: redis.Redis) -> None:
        self._client: Any = client
        self._own: Counter[str] = Counter()

    def read(self) -> Counter[str]:
        """Return what the server ran so far, by name; subcommands are counted under their command."""
        ran: Counter[str] = Counter()
        for name, stat in self._client.info("commandstats").items():
            ran[name.removeprefix("cmdstat_").split("|")[0].upper()] += stat["calls"]
        ran -= self._own
        # This very INFO is counted once it is answered.
        self._own["INFO"] += 1
        return ran


@contextlib.contextmanager
def open_counters(url: str) -> Iterator[Counters]:
    """Connect to a server."""
    with redis.Redis.from_url(url) as client:
        client.ping()
        yield Counters(client)


def without_housekeeping(commands: Counter[str]) -> int:
    """Return how many there are, but for handshakes, PING, INFO and SCRIPT LOAD."""
    return sum(count for name, count in commands.items() if name not in _HOUSEKEEPING)


def housekeeping(commands: Counter[str]) -> int:
    """Return how many handshakes, PING, INFO and SCRIPT LOAD there are."""
    return commands.total() - without_housekeeping(commands)


def disagreement(sent: Counter[str], ran: Counter[str]) -> str:
    """Say where the two counts contradict each other; a script may run what nobody sent, but never less."""
    with_scripts = any(ran[name] for name in _SCRIPTS)
    for name in sorted((set(sent) | set(ran)) - _HOUSEKEEPING):
        exact = not with_scripts or name in _SCRIPTS
        if ran[name] < sent[name] or (exact and ran[name] != sent[name]):
            return f"{name}: {sent[name]} sent, {ran[name]} ran"
    return ""
