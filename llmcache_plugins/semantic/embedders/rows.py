"""Rows of numbers from elsewhere: whether they are vectors, and their length. Knows no embedder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np

from llmcache_plugins.errors import EmbeddingFailed
from llmcache_plugins.models import Usage

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Rows", "as_rows", "fault_of", "normalized", "rows_of_answer", "usage_of_answer"]

Rows: TypeAlias = "np.ndarray[Any, np.dtype[np.float32]]"
"""float32, of shape (n, dim); or (dim,), where one vector is meant."""

_NO_LENGTH: Final = 1e-12
"""A vector shorter than this has no direction: what is left of it is rounding."""
_UNIT: Final = 1e-5
"""How far the length of a vector may be from 1."""


def as_rows(raw: Any, *, count: int, dim: int, name: str) -> Rows:
    """Return an array of shape (count, dim), contiguous. Raises `EmbeddingFailed` for anything else.

    Says nothing of single rows: NaN may be in them.
    """
    try:
        array = np.asarray(raw)
    except (TypeError, ValueError, OverflowError):
        array = np.empty(0, object)
    if array.dtype.kind not in "fiu":
        raise EmbeddingFailed(
            f"{name} returned no array of numbers, but a {type(raw).__name__} of other things"
        )
    with np.errstate(over="ignore"):
        rows = np.ascontiguousarray(array, dtype=np.float32)
    if rows.ndim != 2 or rows.shape[0] != count:
        raise EmbeddingFailed(f"{name} returned the shape {rows.shape}, not ({count}, {dim})")
    if rows.shape[1] != dim:
        raise EmbeddingFailed(
            f"{name} returned vectors of {rows.shape[1]} numbers where dim is {dim}: set dim to that"
        )
    return rows


def normalized(rows: Rows) -> Rows:
    """Return the rows with length 1; those that have no direction, or hold NaN or infinity, as they are."""
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    usable = np.isfinite(lengths) & (lengths > _NO_LENGTH)
    return (rows / np.where(usable, lengths, 1.0)).astype(np.float32)


def fault_of(row: Rows) -> str | None:
    """Say what is wrong with a row of `normalized`; completes "a vector that ..."."""
    if not np.isfinite(row).all():
        return "has NaN or infinity in it"
    if abs(float(np.linalg.norm(row)) - 1.0) > _UNIT:
        return "is all zeros"
    return None


def rows_of_answer(answer: Any, *, count: int, name: str) -> list[Any]:
    """Return the vectors of an answer in OpenAI's form, in the order of the texts.

    Raises `EmbeddingFailed` when it does not say which vector belongs to which text.
    """
    items = list(_items(answer))
    places = [_field(item, "index") for item in items]
    if all(place is None for place in places):
        places = list(range(len(items)))
    if len(items) != count or sorted(places, key=repr) != sorted(range(count), key=repr):
        raise EmbeddingFailed(
            f"{name} answered with {len(items)} vectors for {count} texts, or with indexes of none of them"
        )
    rows: list[Any] = [None] * count
    for place, item in zip(places, items, strict=True):
        rows[place] = _field(item, "embedding")
    return rows


def usage_of_answer(answer: Any) -> Usage | None:
    """Return the tokens that an answer in OpenAI's form was billed; None where it does not say."""
    tokens = _field(_field(answer, "usage"), "prompt_tokens")
    return Usage(input_tokens=tokens) if isinstance(tokens, int) and tokens > 0 else None


def _items(answer: Any) -> Iterable[Any]:
    data = _field(answer, "data")
    return data if isinstance(data, list) else ()


def _field(item: Any, name: str) -> Any:
    return item.get(name) if isinstance(item, dict) else getattr(item, name, None)
