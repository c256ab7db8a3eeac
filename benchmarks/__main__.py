"""Run every benchmark, or those named: `python -m benchmarks reads`."""

import sys

from benchmarks import reads, writes

BENCHMARKS = {"reads": reads.main, "writes": writes.main}


def run(names: list[str]) -> int:
    """Run the named benchmarks; return an exit code."""
    if unknown := set(names) - set(BENCHMARKS):
        print(f"unknown: {', '.join(sorted(unknown))}; there are: {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    for name in names or BENCHMARKS:
        BENCHMARKS[name]()
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
