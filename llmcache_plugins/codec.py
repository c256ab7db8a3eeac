"""The stored form of an entry: a fixed header that scripts read, and a body that only we read.

    header   64 bytes of ASCII digits, four numbers of 16 digits each:
             format version, fence, birth, checked (see `repository/lua/`)
    body     1 byte: 0 = plain, 1 = zstd; then msgpack of the envelope

Whatever is stored under our keys by others, cut off or damaged is a `CorruptEntry`, never anything
else: no byte read here can construct a class or run code.
"""

from __future__ import annotations

import sys

import msgspec

from llmcache_plugins.config import MAX_STORABLE_BYTES
from llmcache_plugins.errors import CorruptEntry
from llmcache_plugins.models import Entry

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = [
    "FORMAT_VERSION",
    "HEADER_BYTES",
    "Header",
    "encode_body",
    "read_body",
    "read_header",
    "version_field",
]

FORMAT_VERSION = 2
"""Bump with any change that an older reader would misread; older entries become misses."""
DIGITS = 16
HEADER_BYTES = 4 * DIGITS

LAST_TIME = 8_000_000_000_000_000
"""A fence of the year 2223, as in `repository/lua/common.lua`: later ones are not ours."""

_LAST_TIME = str(LAST_TIME)
_VERSION = b"%016d" % FORMAT_VERSION
_PLAIN = b"\x00"
_ZSTD = b"\x01"
_LEVEL = 3


class _Envelope(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """The body. The digest's head is a second line against a reply that belongs to another question."""

    fingerprint: str
    entry: Entry


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Envelope)


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What scripts know of an entry: 16 digits each, microseconds on the server's clock."""

    version: str
    fence: str
    birth: str
    checked: str


def fingerprint(digest: str) -> str:
    """Return the part of a digest that its entry carries."""
    return digest[:16]


def encode_body(entry: Entry, *, digest: str, compress_from: int) -> bytes:
    """Return the body of an entry, compressed from `compress_from` bytes on."""
    packed = _encoder.encode(_Envelope(fingerprint=fingerprint(digest), entry=entry))
    if len(packed) < compress_from:
        return _PLAIN + packed
    return _ZSTD + zstd.compress(packed, level=_LEVEL)


def read_header(stored: bytes) -> Header:
    """Read the header of a stored value, of whatever version. Raises `CorruptEntry`."""
    head = stored[:HEADER_BYTES]
    if len(head) < HEADER_BYTES or not head.isdigit():
        raise CorruptEntry("no header of an entry")
    text = head.decode("ascii")
    if text[16:32] > _LAST_TIME:
        raise CorruptEntry("a fence that no server has ever given")
    return Header(version=text[:16], fence=text[16:32], birth=text[32:48], checked=text[48:64])


def version_field() -> str:
    """Return the first field of a header, as the commit script writes it."""
    return _VERSION.decode()


def read_body(stored: bytes, *, digest: str) -> Entry:
    """Read the entry of a stored value. Raises `CorruptEntry`."""
    if stored[:DIGITS] != _VERSION:
        raise CorruptEntry("an entry of another format version")
    try:
        envelope = _decoder.decode(_unpack(stored[HEADER_BYTES:]))
    except (msgspec.MsgspecError, zstd.ZstdError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptEntry("the body cannot be read") from error
    if envelope.fingerprint != fingerprint(digest):
        raise CorruptEntry("the entry belongs to another key")
    return envelope.entry


def _unpack(body: bytes) -> bytes:
    marker = body[:1]
    if marker == _PLAIN:
        return body[1:]
    if marker == _ZSTD:
        return _decompress(body[1:])
    raise CorruptEntry("unknown compression")


def _decompress(data: bytes) -> bytes:
    decompressor = zstd.ZstdDecompressor()
    # A few hostile bytes can claim gigabytes: stop at the bound instead of believing them.
    unpacked = decompressor.decompress(data, max_length=MAX_STORABLE_BYTES)
    if not decompressor.eof:
        raise CorruptEntry("the body is cut off or too large")
    return unpacked
