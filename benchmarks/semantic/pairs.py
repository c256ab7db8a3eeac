"""The labelled questions of a folder as `llmcache calibrate` reads them, one pair a line.

    python -m benchmarks.semantic.pairs DIR | llmcache calibrate - --save TABLE

with TABLE llmcache_plugins/semantic/calibration/data/minilm.json makes the table that is shipped anew: after
a change of the guards, or of the default embedder.

Files of pairs (`*.jsonl`, `*.jsonl.gz`, lines {"a", "b", "same"}) are passed on. Of a stream (lines {"query",
"label"}, in order) each text that comes for the first time gives one pair: it and that earlier text whose
answer a cache without a threshold would serve. No two texts are paired twice.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llmcache_plugins.semantic.embedders import MiniLMEmbedder
from llmcache_plugins.semantic.embedding import Embedding
from llmcache_plugins.semantic.guards import Guards, profile_of
from llmcache_plugins.semantic.scoring import score

if TYPE_CHECKING:
    from collections.abc import Iterator

NEAREST = 10
"""Earlier texts that are looked at: as many as a lookup takes from its index."""


def records(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of all files, those with pairs first."""
    for path in sorted(folder.glob("*.jsonl*"), key=lambda path: ("stream" in path.name, path.name)):
        content = path.read_bytes()
        lines = gzip.decompress(content) if path.suffix == ".gz" else content
        yield from map(json.loads, filter(None, lines.decode().split("\n")))


async def served(stream: list[tuple[str, str]]) -> list[dict[str, Any]]:
    """Return each new text with the earlier one that would be served, and whether the labels are equal."""
    embedding, guards = Embedding(MiniLMEmbedder(), max_cached=10**6, max_queue=10**6), Guards()
    labels: dict[str, str] = {}
    for text, label in stream:
        if embedding.fits(text):
            labels.setdefault(text, label)
    texts = list(labels)
    await asyncio.gather(*(_vectors(text, embedding) for text in texts))
    raw = np.stack([await embedding.vector(text) for text in texts])
    gists = np.stack([await embedding.vector(_gist(text, embedding)) for text in texts])
    pairs = []
    for place, text in enumerate(texts[1:], start=1):
        near = np.maximum(raw[:place] @ raw[place], gists[:place] @ gists[place])
        candidates = [texts[other] for other in np.argsort(-near)[:NEAREST]]
        scores = [await score(text, other, embedding=embedding, guards=guards) for other in candidates]
        best = max(range(len(candidates)), key=lambda at: (scores[at], -at))
        # What the guards forbid altogether is a pair too: one that is not served.
        other = candidates[best if scores[best] > -math.inf else 0]
        pairs.append({"a": text, "b": other, "same": labels[text] == labels[other]})
    return pairs


async def _vectors(text: str, embedding: Embedding) -> None:
    await asyncio.gather(embedding.vector(text), embedding.vector(_gist(text, embedding)))


def _gist(text: str, embedding: Embedding) -> str:
    gist = profile_of(text).gist
    return gist if embedding.fits(gist) else text


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.semantic.pairs", description="Print labelled pairs.")
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    stream: list[tuple[str, str]] = []
    seen: set[frozenset[str]] = set()

    def write(pair: dict[str, Any]) -> None:
        texts = frozenset((pair["a"], pair["b"]))
        if texts not in seen:
            seen.add(texts)
            sys.stdout.write(json.dumps({name: pair[name] for name in ("a", "b", "same")}) + "\n")

    for record in records(folder):
        if "query" in record:
            stream.append((record["query"], record["label"]))
        else:
            write(record)
    if stream:
        for pair in asyncio.run(served(stream)):
            write(pair)


if __name__ == "__main__":
    main()
