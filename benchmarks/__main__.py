"""Run every benchmark, or those named: `python -m benchmarks reads`.

What follows the name of a single one goes to it: `python -m benchmarks stampede --callers 100`.
"""

import signal
import sys
from collections.abc import Callable, Sequence
from itertools import takewhile

from benchmarks import (
    crashes,
    durations,
    estimate,
    invalidation,
    langchain,
    litellm,
    reads,
    savings,
    signatures,
    stampede,
    streams,
    telemetry,
    vectors,
    warming,
    writes,
)
from benchmarks.semantic import quality

PLAIN: dict[str, Callable[[], None]] = {
    "reads": reads.main,
    "writes": writes.main,
    "streams": streams.main,
    "signatures": signatures.main,
    "telemetry": telemetry.main,
}
WITH_OPTIONS: dict[str, Callable[[Sequence[str]], None]] = {
    "stampede": stampede.main,
    "durations": durations.main,
    "crashes": crashes.main,
    "estimate": estimate.main,
    "invalidation": invalidation.main,
    "langchain": langchain.main,
    "litellm": litellm.main,
    "savings": savings.main,
    "vectors": vectors.main,
    "warming": warming.main,
}
WITH_DATA: dict[str, Callable[[Sequence[str]], None]] = {"semantic": quality.main}
"""Need data that is not in the repository: run only when named, with `--data`."""


def run(words: list[str]) -> int:
    """Run the named benchmarks; return an exit code."""
    names = list(takewhile(lambda word: not word.startswith("-"), words))
    options = words[len(names) :]
    known = [*PLAIN, *WITH_OPTIONS, *WITH_DATA]
    if unknown := set(names) - set(known):
        print(f"unknown: {', '.join(sorted(unknown))}; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    if options and (len(names) != 1 or names[0] in PLAIN):
        print(f"options go to one of: {', '.join([*WITH_OPTIONS, *WITH_DATA])}", file=sys.stderr)
        return 2
    for name in names or [*PLAIN, *WITH_OPTIONS]:
        if name in PLAIN:
            PLAIN[name]()
        else:
            (WITH_OPTIONS | WITH_DATA)[name](options)
    return 0


def _end(*_: object) -> None:
    sys.exit(128 + signal.SIGTERM)


if __name__ == "__main__":
    # Without this it would end without ending its servers and processes.
    signal.signal(signal.SIGTERM, _end)
    try:
        sys.exit(run(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
