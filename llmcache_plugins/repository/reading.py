"""From stored bytes to a valid entry: the judgement every read passes.

An entry whose `checked` equals the bucket's epoch is valid as it stands. Any other is shown to the `check`
script, which compares it with the marks of its subjects and stamps or unlinks it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmcache_plugins import codec
from llmcache_plugins.errors import CorruptEntry, RepositoryUnavailable
from llmcache_plugins.keys import encode_name
from llmcache_plugins.models import Absent, Found
from llmcache_plugins.telemetry import Unreadable

if TYPE_CHECKING:
    from llmcache_plugins.keys import BucketKeys
    from llmcache_plugins.models import Provenance
    from llmcache_plugins.repository.link import Link
    from llmcache_plugins.repository.scripts import Argument
    from llmcache_plugins.telemetry import Telemetry

__all__ = ["NAMESPACE_SUBJECT", "Judge", "is_current", "model_subject", "subjects", "tag_subject"]

NAMESPACE_SUBJECT = "n"
_MOST_ROUNDS = 4


def subjects(digest: str, provenance: Provenance) -> list[str]:
    """Return what an invalidation may name to void an entry or flight of this digest."""
    named = [f"k:{digest}", NAMESPACE_SUBJECT]
    if provenance.model is not None:
        named.append(model_subject(provenance.model))
    return [*named, *map(tag_subject, provenance.tags)] if provenance.tags else named


def model_subject(model: str) -> str:
    """Return how marks name the answers to requests for a model."""
    return f"m:{encode_name(model)}"


def tag_subject(tag: str) -> str:
    """Return how marks name the answers with a tag."""
    return f"t:{encode_name(tag)}"


def is_current(value: bytes | None, epoch: bytes | None) -> bool:
    """Say whether a value can be judged without asking the server again."""
    return value is None or (epoch is not None and value[48:64] == epoch)


class Judge:
    """Judges stored values; `marks_ms` is how long a bucket's marks must at least live."""

    def __init__(self, *, telemetry: Telemetry, marks_ms: int) -> None:
        self._telemetry = telemetry
        self._marks_ms = marks_ms

    async def judge(
        self, link: Link, names: BucketKeys, value: bytes | None, epoch: bytes | None
    ) -> Found | Absent:
        """Say what a stored value is worth."""
        for _ in range(_MOST_ROUNDS):
            if is_current(value, epoch):
                return self.open(names, value)
            header = self._header(value)
            if value is None or header is None:
                return Absent()
            opened = self._open(names, value, header)
            if not isinstance(opened, Found):
                return opened
            reply = await self._check(link, names, header, opened.entry.provenance)
            if reply[0] == b"CHANGED":
                value, epoch = reply[1], reply[2]
                continue
            return opened if reply[0] == b"VALID" else Absent()
        raise RepositoryUnavailable("the entry changed faster than it could be judged")

    def open(self, names: BucketKeys, value: bytes | None) -> Found | Absent:
        """Say what a value is worth that `is_current`."""
        header = self._header(value)
        if value is None or header is None:
            return Absent()
        return self._open(names, value, header)

    def _header(self, value: bytes | None) -> codec.Header | None:
        if value is None:
            return None
        try:
            return codec.read_header(value)
        except CorruptEntry:
            self._telemetry.emit(Unreadable())
            return None

    def _open(self, names: BucketKeys, value: bytes, header: codec.Header) -> Found | Absent:
        try:
            entry = codec.read_body(value, digest=names.digest)
        except CorruptEntry:
            self._telemetry.emit(Unreadable())
            return Absent(seen=header.fence)
        return Found(entry=entry, fence=header.fence, stored_bytes=len(value))

    async def _check(
        self, link: Link, names: BucketKeys, header: codec.Header, provenance: Provenance
    ) -> Any:
        arguments: dict[str, Argument] = {
            "fence": header.fence,
            "birth": header.birth,
            "marks_ms": self._marks_ms,
            "root": names.root,
            "digest": names.digest,
        }
        return await link.run("check", names, arguments, subjects(names.digest, provenance))
