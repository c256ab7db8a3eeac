"""Vector search that the server does: `FT.CREATE`, `FT.SEARCH` and what they answer (RediSearch 2.10).

One index for each namespace and embedder, over the hashes that `Vectors` attaches: the server indexes them as
they are written and forgets them as they go. An index holds nothing of its own, so it may be dropped and made
anew at any time.

A query names nothing but digests and a field's name of our own making: there is no text in it to escape.
"""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING, Any

from llmcache_plugins.errors import ConfigError, RepositoryError
from llmcache_plugins.keys import BUCKETS_ON_SERVER, require_digest
from llmcache_plugins.models import VectorMatch
from llmcache_plugins.repository.faults import translate

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from llmcache_plugins.keys import KeyLayout
    from llmcache_plugins.repository.link import Link
    from llmcache_plugins.repository.scripts import Argument

__all__ = ["ALGORITHMS", "REFUSED", "Search", "field_of"]

ALGORITHMS = ("hnsw", "flat")
_EMBEDDER = re.compile(r"[0-9a-f]{12}")
_MISSING = re.compile(r"no such index|unknown index|index.*not.?found", re.IGNORECASE)
_EXISTS = re.compile(r"already exists", re.IGNORECASE)
REFUSED = "the server refused to make an index"
"""For a reason that may pass."""
_NEIGHBOURS = 16
"""Links of a node in an HNSW graph (M), the server's default."""
_BUILD_EFFORT = 200
"""Candidates that are kept in view while a node is added (EF_CONSTRUCTION), the server's default."""
_EFFORT = 200
"""Candidates that a search keeps in view (EF_RUNTIME): the server's 10 finds too few of what is there."""
_ATTEMPTS = 5
"""To find an index that others drop and make at the same time."""


def field_of(embedder: str) -> str:
    """Return the field of an embedder's vectors; raise `ConfigError` for what is no `embedder_id`."""
    if not _EMBEDDER.fullmatch(embedder):
        raise ConfigError("an embedder is named by 12 lowercase hexadecimal digits: see embedder_id()")
    return f"v_{embedder}"


class Search:
    """The server's indexes of one namespace."""

    def __init__(self, link: Link, layout: KeyLayout) -> None:
        self._link = link
        self._layout = layout

    @property
    def _root(self) -> str:
        return self._layout.bucket(0).root

    async def unable(self) -> str:
        """Return why the server cannot do it; nothing if it can. Makes an index to see, and drops it."""
        if self._layout.buckets != BUCKETS_ON_SERVER:
            return "a Cluster has no index over all of its nodes"
        name = f"{self._root}probe:{secrets.token_hex(8)}"
        create = ("FT.CREATE", name, "ON", "HASH", "PREFIX", 1, f"{name}:", "SCHEMA", "s", "TAG")
        replies = await self._link.ask(
            [create, ("FT.SEARCH", name, "*", "LIMIT", 0, 0), ("FT.DROPINDEX", name)]
        )
        refused = [str(reply) for reply in replies if isinstance(reply, Exception)]
        if not refused:
            return ""
        said = refused[0].lower()
        if "unknown command" in said:
            return "this server has no FT.SEARCH"
        if "permission" in said:
            return "this user may not use FT.CREATE, FT.SEARCH and FT.DROPINDEX"
        if "db" in said or "database" in said:
            return "indexes are only possible in database 0"
        return REFUSED

    async def ensure(self, embedder: str, *, dim: int, algorithm: str) -> bool:
        """Make the index, or make it anew when it is not as it should be; return whether that was needed."""
        if algorithm not in ALGORITHMS:
            raise ConfigError(f"algorithm must be one of {', '.join(ALGORITHMS)}, not {algorithm!r}")
        name, made = self._layout.index(embedder), False
        for _ in range(_ATTEMPTS):
            info = await self._ask("FT.INFO", name)
            if info is None:
                made = await self._ask(*self._creation(embedder, dim=dim, algorithm=algorithm)) is not None
                if made:
                    return True
            elif _differs(_pairs(info), embedder, dim=dim, algorithm=algorithm, prefix=f"{self._root}vec:"):
                await self._ask("FT.DROPINDEX", name)
            else:
                return made
        raise RepositoryError("the server's index was changed by others faster than it could be made")

    async def drop(self, embedder: str) -> None:
        """Drop the index if there is one; never the hashes."""
        await self._ask("FT.DROPINDEX", self._layout.index(embedder))

    async def count(self, embedder: str) -> int | None:
        """Return how many hashes are indexed."""
        info = await self._ask("FT.INFO", self._layout.index(embedder))
        return None if info is None else int(float(_pairs(info)[b"num_docs"]))

    async def nearest(self, embedder: str, scope: str, vector: bytes, *, k: int) -> list[VectorMatch] | None:
        """Return the nearest vectors of a scope, the nearest first."""
        query = f"({_scope(scope)})=>[KNN {k:d} @{field_of(embedder)} $v AS d]"
        options = ("PARAMS", 2, "v", vector, "RETURN", 2, "d", "t", "LIMIT", 0, k, "DIALECT", 2)
        found = await self._search(embedder, query, options)
        if found is None:
            return None
        matches = [match for name, fields in found if (match := self._match(name, fields)) is not None]
        # The server's own order is that of SORTBY, which not every server has.
        return sorted(matches, key=lambda match: (match.distance, match.digest))

    async def with_canonical(self, embedder: str, scope: str, canonical: str) -> list[VectorMatch] | None:
        """Return questions with this canonical text, as if their distance was nothing."""
        query = f"{_scope(scope)} @c:{{{require_digest('canonical', canonical)}}}"
        found = await self._search(embedder, query, ("RETURN", 1, "t", "LIMIT", 0, 8, "DIALECT", 2))
        if found is None:
            return None
        matches = [self._match(name, {**fields, b"d": b"0"}) for name, fields in found]
        return [match for match in matches if match is not None]

    # -- inside ----------------------------------------------------------------------------------------

    def _creation(self, embedder: str, *, dim: int, algorithm: str) -> tuple[Argument, ...]:
        options: list[Argument] = ["TYPE", "FLOAT32", "DIM", dim, "DISTANCE_METRIC", "COSINE"]
        if algorithm == "hnsw":
            options += ["M", _NEIGHBOURS, "EF_CONSTRUCTION", _BUILD_EFFORT, "EF_RUNTIME", _EFFORT]
        field: list[Argument] = [field_of(embedder), "VECTOR", algorithm.upper(), len(options), *options]
        over = ("ON", "HASH", "PREFIX", 1, f"{self._root}vec:")
        schema = ("SCHEMA", "s", "TAG", "c", "TAG", *field)
        return ("FT.CREATE", self._layout.index(embedder), *over, *schema)

    async def _ask(self, *command: Argument) -> Any:
        """Return a reply; None when the index is not there, or is there already."""
        (reply,) = await self._link.ask([command])
        if not isinstance(reply, Exception):
            return reply
        if _MISSING.search(str(reply)) or _EXISTS.search(str(reply)):
            return None
        raise translate(reply) from reply

    async def _search(
        self, embedder: str, query: str, options: Sequence[Argument]
    ) -> list[tuple[bytes, dict[bytes, Any]]] | None:
        command: tuple[Argument, ...] = ("FT.SEARCH", self._layout.index(embedder), query, *options)
        try:
            reply = await self._link.send(self._root, command)
        except RepositoryError as error:
            if _MISSING.search(str(error)):
                return None
            raise
        return list(_results(reply))

    def _match(self, name: bytes, fields: Mapping[bytes, Any]) -> VectorMatch | None:
        digest = self._digest(name)
        if digest is None or b"d" not in fields or b"t" not in fields:
            return None  # it has expired, and the index does not know yet
        try:
            text = fields[b"t"].decode("utf-8", "surrogatepass")
            return VectorMatch(digest=digest, distance=float(fields[b"d"]), text=text)
        except ValueError:
            return None

    def _digest(self, name: bytes) -> str | None:
        prefix = f"{self._root}vec:".encode()
        if not name.startswith(prefix):
            return None
        try:
            return require_digest("digest", name[len(prefix) :].decode("ascii", "replace"))
        except ConfigError:
            return None


def _scope(scope: str) -> str:
    return f"@s:{{{require_digest('scope', scope)}}}"


def _pairs(reply: Any) -> dict[bytes, Any]:
    """Return a map that came as one (RESP3) or as a list of keys and values (RESP2)."""
    if isinstance(reply, dict):
        return reply
    return dict(zip(reply[::2], reply[1::2], strict=False))


def _results(reply: Any) -> Iterator[tuple[bytes, dict[bytes, Any]]]:
    """Yield name and fields of each hash that was found."""
    if isinstance(reply, dict):
        for found in reply[b"results"]:
            yield found[b"id"], found.get(b"extra_attributes") or {}
        return
    names = reply[1:]
    while names:
        name, *names = names
        fields: dict[bytes, Any] = {}
        if names and not isinstance(names[0], bytes):
            fields, names = _pairs(names[0] or []), names[1:]
        yield name, fields


def _differs(info: Mapping[bytes, Any], embedder: str, *, dim: int, algorithm: str, prefix: str) -> bool:
    """Say whether an index is not the one that would be made. What the server does not tell is right."""
    definition = _pairs(info[b"index_definition"])
    if [_text(one) for one in definition.get(b"prefixes", [])] != [prefix]:
        return True
    fields = {_text(attribute.get(b"attribute")): attribute for attribute in _attributes(info)}
    wanted = {
        "s": {b"type": "tag"},
        "c": {b"type": "tag"},
        field_of(embedder): {
            b"type": "vector",
            b"algorithm": algorithm,
            b"data_type": "float32",
            b"dim": str(dim),
            b"distance_metric": "cosine",
        },
    }
    if set(fields) != set(wanted):
        return True
    return any(
        what in fields[name] and _text(fields[name][what]).lower() != value
        for name, properties in wanted.items()
        for what, value in properties.items()
    )


def _attributes(info: Mapping[bytes, Any]) -> Iterator[dict[bytes, Any]]:
    for attribute in info.get(b"attributes", []):
        # A flag without a value may end the list: what comes in pairs is read.
        yield _pairs(attribute)


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
