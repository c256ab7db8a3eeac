"""What an embedder is. Nothing here knows one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from llmcache_plugins.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmcache_plugins.models import Usage
    from llmcache_plugins.semantic.embedders.rows import Rows

__all__ = ["Billed", "Embedder", "checked"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Billed:
    """Vectors, as `embed` returns them, and what they have cost: `usage` of `model`; None if unknown."""

    rows: Rows
    model: str
    usage: Usage | None


@runtime_checkable
class Embedder(Protocol):
    """Texts in, vectors out. Its vectors are compared by their cosine.

    An embedder may have more, which is used where it is there:

    - `count_tokens(text) -> int`: exactly how many of `max_tokens` a text takes. Without it, a text of more
      than two bytes of UTF-8 for each token is taken for too long.
    - `can_read(text) -> bool`: False for a text of which it does not see everything.
    - `async load()`: makes the first `embed` as quick as the others; may be called often, from any loop.
    - `max_batch: int`: most texts of one `embed`, where a batch of more gains nothing.
    - `async embed_billed(texts) -> Billed`: asked instead of `embed`; what it has cost is taken off what the
      cache has saved.
    - `concurrency: int`: how many `embed` may run at once on one event loop; 1 where it is not there, the
      right number for one that keeps a core busy.
    """

    @property
    def name(self) -> str:
        """Its identity: model and version. Vectors and thresholds of one name are never used for another."""

    @property
    def dim(self) -> int:
        """How many numbers a vector has."""

    @property
    def max_tokens(self) -> int | None:
        """How many tokens of a text it reads: longer ones are not embedded. None = any number."""

    async def embed(self, texts: Sequence[str]) -> Rows:
        """Return the vectors of the texts, in their order: shape (n, dim), rows of unit length.

        Must not block the event loop. May raise anything: that costs a hit, never an answer.
        """


def checked(embedder: Any) -> Embedder:
    """Return the embedder. Raises `ConfigError` for what cannot be one, and says why."""
    kind = type(embedder).__name__
    if not isinstance(embedder, Embedder) or isinstance(embedder, type):
        raise ConfigError(f"an embedder has name, dim, max_tokens and async embed(texts), but {kind} has not")
    if not isinstance(embedder.name, str) or not embedder.name:
        raise ConfigError(f"the name of an embedder ({kind}) is a non-empty string, not {embedder.name!r}")
    if not _is_count(embedder.dim):
        raise ConfigError(
            f"the dim of an embedder ({embedder.name}) is a positive number, not {embedder.dim!r}"
        )
    for name in ("max_tokens", "max_batch", "concurrency"):
        value = getattr(embedder, name, None)
        if value is not None and not _is_count(value):
            raise ConfigError(
                f"the {name} of an embedder ({embedder.name}) is a positive number, not {value!r}"
            )
    return embedder


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
