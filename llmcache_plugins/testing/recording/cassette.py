"""The file of a cassette: answers by namespace and key, as readable JSON.

Owns its format: the same answers are the same bytes, whoever wrote them and when. There is no prompt in it,
and no header or credential of a request: of a request it has the key, a digest, and the name of the model.
The answers are as the provider gave them, decoded from the stored form; what would not come back byte for
byte is kept as base64.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import os
import tempfile
from typing import TYPE_CHECKING, Any

import msgspec

from llmcache_plugins.errors import CassetteError
from llmcache_plugins.models import UNKNOWN, AnswerFacts, EncodedAnswer, Provenance

try:
    import fcntl
except ImportError:  # Windows: of two processes that write one file at once, the last one's answers stay
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

__all__ = ["VERSION", "Place", "Recorded", "Tapes", "merge", "read", "write"]

VERSION = 1
"""Bump with any change that an older reader would misread."""

Place = tuple[str, str]
"""Namespace and digest of a request's key."""

_AGAIN = "record it again: pytest --llmcache=record --llmcache-rewrite"
_packer = msgspec.msgpack.Encoder()
_NOTHING = AnswerFacts()


class Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """One answer, as a repository keeps it."""

    answer: EncodedAnswer
    provenance: Provenance = UNKNOWN


Tapes = dict[Place, Recorded]


class _Row(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    namespace: str
    key: str
    kind: str
    model: str | None = None
    tags: tuple[str, ...] = ()
    facts: dict[str, Any] = {}
    answer: msgspec.Raw = msgspec.Raw()
    base64: str = ""


class _Tape(msgspec.Struct, frozen=True, kw_only=True):
    version: int
    answers: list[_Row]


class _Version(msgspec.Struct, frozen=True):
    version: int


# -- reading -------------------------------------------------------------------------------------------------


def read(path: Path) -> Tapes:
    """Return the answers in a cassette, none if there is no such file. Raises `CassetteError`."""
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise CassetteError(f"the cassette {path} cannot be read: {error.strerror}") from error
    try:
        version = msgspec.json.decode(data, type=_Version).version
        if version != VERSION:
            raise CassetteError(
                f"the cassette {path} has format {version}, this version of llmcache-plugins reads format"
                f" {VERSION}: install the one that wrote it, or {_AGAIN}"
            )
        rows = msgspec.json.decode(data, type=_Tape).answers
        return {(row.namespace, row.key): _recorded(row) for row in rows}
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise CassetteError(f"the cassette {path} is damaged ({error}); {_AGAIN}") from error


def _recorded(row: _Row) -> Recorded:
    try:
        stored = base64.b64decode(row.base64, validate=True)
    except binascii.Error as error:
        raise ValueError(f"the answer of {row.key[:16]} is no base64") from error
    payload = stored or _packer.encode(_value_of(row.answer))
    facts = msgspec.convert(row.facts, AnswerFacts)
    provenance = Provenance(model=row.model, tags=row.tags)
    return Recorded(answer=EncodedAnswer(kind=row.kind, payload=payload, facts=facts), provenance=provenance)


def _value_of(answer: msgspec.Raw) -> Any:
    # By the standard library: it keeps 1.0 apart from 1, and -0.0 from 0.
    return json.loads(bytes(answer))


# -- writing -------------------------------------------------------------------------------------------------


def write(path: Path, tapes: Mapping[Place, Recorded]) -> None:
    """Write a cassette as a whole; without answers there is no file. Raises `CassetteError`."""
    try:
        if not tapes:
            path.unlink(missing_ok=True)
            return
        text = _text_of(tapes)
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, text)
    except OSError as error:
        raise CassetteError(
            f"the cassette {path} cannot be written: {error.strerror}. Where the sources cannot be written,"
            " run pytest with --llmcache=strict or --llmcache=replay"
        ) from error


def merge(path: Path, tapes: Mapping[Place, Recorded], *, replace: bool) -> None:
    """Add answers to a cassette that other processes add to. `replace` those of the same requests, or not.

    Raises `CassetteError`.
    """
    with contextlib.suppress(OSError):  # said by those who need it
        path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path.parent):
        there = read(path)
        merged = {**there, **tapes} if replace else {**tapes, **there}
        if merged != there:
            write(path, merged)


def _text_of(tapes: Mapping[Place, Recorded]) -> str:
    rows = [_shown(_row_of(place, tapes[place]), "    ") for place in sorted(tapes)]
    listed = ",\n    ".join(rows)
    return f'{{\n  "version": {VERSION},\n  "answers": [\n    {listed}\n  ]\n}}\n'


def _row_of(place: Place, one: Recorded) -> dict[str, Any]:
    namespace, digest = place
    row: dict[str, Any] = {"namespace": namespace, "key": digest, "kind": one.answer.kind}
    if one.provenance.model is not None:
        row["model"] = one.provenance.model
    if one.provenance.tags:
        row["tags"] = list(one.provenance.tags)
    if facts := _facts_of(one.answer.facts):
        row["facts"] = facts
    try:
        row["answer"] = _readable(one.answer.payload)
    except ValueError:
        row["base64"] = base64.b64encode(one.answer.payload).decode("ascii")
    return row


def _facts_of(facts: AnswerFacts) -> dict[str, Any]:
    said = msgspec.to_builtins(facts)
    nothing = msgspec.to_builtins(_NOTHING)
    return {name: value for name, value in said.items() if value != nothing[name]}


def _readable(payload: bytes) -> Any:
    """Return a payload as JSON has it. Raises `ValueError` for what would not come back as these bytes."""
    try:
        value = msgspec.msgpack.decode(payload)
        again = _packer.encode(json.loads(json.dumps(value, ensure_ascii=False, allow_nan=False)))
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ValueError("no JSON") from error
    if again != payload:
        raise ValueError("other bytes")
    return value


def _shown(value: Any, margin: str) -> str:
    """Return indented JSON, in which a list of numbers is one line: a vector would be a thousand."""
    inner = margin + "  "
    if isinstance(value, dict) and value:
        items = [f"{_one_line(name)}: {_shown(item, inner)}" for name, item in value.items()]
        return _braced("{", items, "}", margin)
    if isinstance(value, list) and value and not all(isinstance(item, int | float) for item in value):
        return _braced("[", [_shown(item, inner) for item in value], "]", margin)
    return _one_line(value)


def _braced(opening: str, items: Iterable[str], closing: str, margin: str) -> str:
    listed = f",\n{margin}  ".join(items)
    return f"{opening}\n{margin}  {listed}\n{margin}{closing}"


def _one_line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _replace(path: Path, text: str) -> None:
    """Put a whole file in the place of another, so that no reader meets half of one."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem[:40]}-", suffix=".tmp")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        # As any file that is written here, not for one's own eyes only.
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Let one process at a time change what lies in a directory."""
    with contextlib.ExitStack() as held:
        if fcntl is not None:
            try:
                descriptor = os.open(directory, os.O_RDONLY)
            except OSError as error:
                raise CassetteError(f"the directory {directory} cannot be used: {error.strerror}") from error
            held.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
