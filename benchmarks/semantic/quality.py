"""How well a similar question is told from the same one: thresholds, guards, a verifier, and others' caches.

`--data` names a folder with `dev_pairs.jsonl.gz` (a, b, same), `traps_dev.jsonl` (a, b, same, kind) and
`dev_stream.jsonl.gz` (query, label: equal labels have one answer). Nothing of the texts is printed.

A stream is answered in order: what is asked for the first time is looked for among what missed before it, and
stored if it misses. Texts asked again word for word are left out: they need no semantics.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import time
import timeit
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.semantic.data import read_pairs, read_stream
from benchmarks.semantic.labelled import print_pairs
from benchmarks.semantic.streams import Offline, print_bands, print_caches, print_thresholds
from benchmarks.semantic.texts import Texts
from benchmarks.tables import print_table
from llmcache_plugins.semantic.guards import Guards, profile_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.semantic.data import Pair


def main(argv: Sequence[str]) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks semantic", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with the three files")
    parser.add_argument(
        "--embedder",
        default="llmcache_plugins.semantic.embedders:MiniLMEmbedder",
        help="module:callable that makes an embedder",
    )
    options = parser.parse_args(argv)
    module, _, name = options.embedder.partition(":")
    make_embedder = getattr(importlib.import_module(module), name)
    pairs, stream = read_pairs(options.data), read_stream(options.data)
    both = (text for pair in pairs for text in (pair.one, pair.other))
    texts = asyncio.run(Texts.embed([*both, *stream], make_embedder()))
    print_pairs(pairs, texts)
    offline = Offline.of(stream, texts)
    print_thresholds(offline)
    print_bands(offline)
    print_caches(offline, make_embedder)
    _print_speed(pairs)


def _print_speed(pairs: Sequence[Pair]) -> None:
    guards = Guards()
    sources = list(dict.fromkeys(text for pair in pairs for text in (pair.one, pair.other)))[:2000]
    both = [(profile_of(pair.one), profile_of(pair.other)) for pair in pairs[:2000]]
    parse = _fastest(lambda: [profile_of(text) for text in sources]) / len(sources)
    judge = _fastest(lambda: [guards.judge(one, other) for one, other in both]) / len(both)
    print_table(
        "Guards, microseconds of the processor",
        ["", "us"],
        [["a text", f"{parse * 1e6:.1f}"], ["a pair", f"{judge * 1e6:.1f}"]],
    )


def _fastest(call: Callable[[], object], runs: int = 7) -> float:
    # As timeit does it: without the garbage collector, which would walk through all the vectors above.
    return min(timeit.repeat(call, timer=time.thread_time, number=1, repeat=runs))
