"""What goes into an index is checked here, once for all of them."""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from llmcache_plugins.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "FLOAT32",
    "PRECISION",
    "as_similarity",
    "canonical_digest",
    "check_search",
    "unit_rows",
    "unit_vector",
]

FLOAT32 = np.dtype("<f4")
"""How a vector lies in Redis."""
PRECISION = 1e-6
"""What a cosine of float32 vectors can tell. Below it every index, and every order of summing, says something
else, and the same vector twice is not always 1."""
_DECIMALS = 6
_UNIT = 1e-3
"""How far the length of a stored vector may be from 1: rounding, and nothing else."""


def unit_vector(vector: object, *, dim: int) -> NDArray[np.float32]:
    """Return a vector as float32 of shape (dim,) and length 1.

    Raises `ConfigError` for another shape, for what is no number, and for one without a direction.
    """
    try:
        array = np.asarray(vector, dtype=np.float64)
    except (TypeError, ValueError):
        raise ConfigError(f"a vector is an array of {dim} numbers, not {type(vector).__name__}") from None
    if array.shape != (dim,):
        raise ConfigError(
            f"a vector of this embedder has the shape ({dim},), not {array.shape}: is it another model's?"
        )
    if not np.isfinite(array).all():
        raise ConfigError("a vector must not have NaN or infinity in it: the embedder failed")
    # By its largest first: squares of very large or small numbers are none any more.
    largest = float(np.abs(array).max(initial=0.0))
    if largest == 0.0:
        raise ConfigError("a vector of zeros has no direction: the embedder failed, or the text was empty")
    array = array / largest
    return np.asarray(array / np.linalg.norm(array), dtype=np.float32)


def unit_rows(vectors: list[bytes], *, dim: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return stored vectors as a matrix (n, dim), and which rows are vectors of ours: of length 1."""
    fits = np.array([len(vector) == dim * FLOAT32.itemsize for vector in vectors], dtype=np.bool_)
    blank = bytes(dim * FLOAT32.itemsize)
    joined = b"".join(vector if fit else blank for vector, fit in zip(vectors, fits, strict=True))
    matrix = np.frombuffer(joined, dtype=FLOAT32).reshape(len(vectors), dim).astype(np.float32, copy=False)
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.einsum("ij,ij->i", matrix, matrix)
        return matrix, np.asarray(np.abs(lengths - 1.0) <= _UNIT)


def as_similarity(cosine: float) -> float:
    """Return a cosine as all indexes say it: to six decimals, from -1 to 1."""
    return min(max(round(cosine, _DECIMALS), -1.0), 1.0)


def canonical_digest(canonical: str) -> str:
    """Return what stands for a canonical text in an index."""
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()


def check_search(*, k: Any, at_least: Any) -> None:
    """Raise `ConfigError` for a search that cannot be meant."""
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise ConfigError(f"k must be a whole number from 1, not {k!r}")
    if isinstance(at_least, bool) or not isinstance(at_least, int | float) or math.isnan(at_least):
        raise ConfigError(f"at_least must be a number, not {at_least!r}")
