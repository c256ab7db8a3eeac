"""A fingerprint of each leaf of a request: enough to say where two requests differ, and nothing more.

    depth (1 byte), name of the key (4 bytes), then for each leaf: path (4 bytes), path and value (4 bytes)

All of it comes from keyed BLAKE2b (RFC 7693): who lacks the key cannot test a guess against it, of a path
or of a value. A request of more leaves than `MOST` is cut at a lesser depth: what is below counts as one.
Two leaves that differ pass for equal once in four billion times: nothing but an explanation depends on it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import msgspec

from llmcache_plugins.signature.canonical import join

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from llmcache_plugins.signature.canonical import Tree

__all__ = ["Differences", "Leaves"]

MOST = 128
_DEEPEST = 16
_NAME = 4
_HEAD = 1 + _NAME
_LEAF = 8
_ENCODER = msgspec.json.Encoder(order="deterministic")
_LONGEST_CONVERSATION = 200

# What a request lacks and another has can only be named by trying names: those of the common parameters.
_COMMON = (
    "frequency_penalty",
    "instructions",
    "logit_bias",
    "logprobs",
    "max_completion_tokens",
    "max_output_tokens",
    "max_tokens",
    "n",
    "parallel_tool_calls",
    "presence_penalty",
    "reasoning_effort",
    "response_format.type",
    "seed",
    "service_tier",
    "stop",
    "system",
    "temperature",
    "tool_choice",
    "top_k",
    "top_logprobs",
    "top_p",
    "verbosity",
)
_OF_MESSAGES = ("role", "content", "name", "tool_call_id", "content[0].text", "content[0].type")


@dataclass(frozen=True, slots=True, kw_only=True)
class Differences:
    """Where two requests differ, by path; `unnamed` is how many more paths only the other one has."""

    changed: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    """Only in the request that was asked about."""
    removed: tuple[str, ...] = ()
    """Only in the other one."""
    unnamed: int = 0

    @property
    def count(self) -> int:
        """How many leaves differ."""
        return len(self.changed) + len(self.added) + len(self.removed) + self.unnamed


class Leaves:
    """The leaves of one request, for one key of at most 64 bytes."""

    def __init__(self, tree: dict[str, Tree], *, key: bytes) -> None:
        self._tree = tree
        self._key = key
        self._by_depth: dict[int, dict[bytes, tuple[str, bytes]]] = {}

    def packed(self) -> bytes:
        """Return what is stored."""
        depth = next((d for d in range(_DEEPEST, 0, -1) if self._is_few(d)), 0)
        if depth == 0:
            return b""
        rows = (path + value for path, (_, value) in self._at(depth).items())
        return bytes([depth]) + _name_of(self._key) + b"".join(rows)

    def compare(self, stored: bytes) -> Differences | None:
        """Return where the request differs from one whose leaves are stored; None if that cannot be said."""
        if len(stored) < _HEAD or (len(stored) - _HEAD) % _LEAF or stored[1:_HEAD] != _name_of(self._key):
            return None
        theirs = {stored[i : i + 4]: stored[i + 4 : i + 8] for i in range(_HEAD, len(stored), _LEAF)}
        ours = self._at(stored[0])
        only_theirs = theirs.keys() - ours.keys()
        removed = sorted(path for path in self._guesses() if _path_hash(self._key, path) in only_theirs)
        return Differences(
            changed=tuple(path for h, (path, value) in ours.items() if theirs.get(h, value) != value),
            added=tuple(path for h, (path, _) in ours.items() if h not in theirs),
            removed=tuple(removed),
            unnamed=len(only_theirs) - len(removed),
        )

    def _is_few(self, depth: int) -> bool:
        return sum(1 for _ in islice(_walk(self._tree, "", depth), MOST + 1)) <= MOST

    def _at(self, depth: int) -> dict[bytes, tuple[str, bytes]]:
        if depth not in self._by_depth:
            self._by_depth[depth] = {
                _path_hash(self._key, path): (path, _value_hash(self._key, path, value))
                for path, value in _walk(self._tree, "", depth)
            }
        return self._by_depth[depth]

    def _guesses(self) -> Iterable[str]:
        yield from _COMMON
        for name in ("messages", "input"):
            for i in range(_LONGEST_CONVERSATION):
                yield f"{name}[{i}]"
                yield from (f"{name}[{i}].{field}" for field in _OF_MESSAGES)


def _walk(tree: Tree, path: str, depth: int) -> Iterator[tuple[str, Tree]]:
    """Yield the leaves of a tree; an empty container is a leaf, and so is what lies too deep."""
    if depth > 0 and isinstance(tree, dict) and tree:
        for name, item in tree.items():
            yield from _walk(item, join(path, name), depth - 1)
    elif depth > 0 and isinstance(tree, list) and tree:
        for place, item in enumerate(tree):
            yield from _walk(item, join(path, place), depth - 1)
    else:
        yield path, tree


def _name_of(key: bytes) -> bytes:
    return hashlib.blake2b(b"", key=key, digest_size=_NAME, person=b"llmcache name").digest()


def _path_hash(key: bytes, path: str) -> bytes:
    return hashlib.blake2b(path.encode(), key=key, digest_size=4, person=b"llmcache path").digest()


def _value_hash(key: bytes, path: str, value: Tree) -> bytes:
    text = path.encode()
    digest = hashlib.blake2b(key=key, digest_size=4, person=b"llmcache leaf")
    digest.update(len(text).to_bytes(4, "big") + text)
    digest.update(_ENCODER.encode(value))
    return digest.digest()
