"""How fast a log is read, and in how much memory: `llmcache estimate` on logs of its own making.

With `--log FILE` it only writes such a log. It is a support desk's: questions that repeat by a Zipf law, some
in bursts, some with a request's number or the time in the prompt, some in other words. Nothing in it is real;
its tokens are those of prompts with documents in them, which are left out.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.tables import print_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SIZES = (100_000, 1_000_000)
_BEGIN = 1_795_000_000.0
_ACTIONS = (
    *("reset my password", "change my address", "cancel my order", "return a parcel", "download an invoice"),
    *("add a user", "close my account", "update my card", "export my data", "track a delivery"),
    *("apply a voucher", "change my plan", "invite a colleague", "turn on two-factor login"),
    *("merge two accounts", "pause a subscription", "get a refund", "set up single sign-on"),
    *("rename a project", "restore a backup"),
)
_PLACES = ("in the app", "on the website", "for my team", "from abroad", "without a login", "by Friday", "")
_ASKING = ("How do I {}?", "How can I {}?", "Could you please tell me how I can {}", "I want to {}. How?")
_SYSTEM = "You are the support desk of a shop. Answer in five sentences."
_MODELS = ("gpt-4o", "gpt-4o", "gpt-4o-mini")


def a_log(lines: int, *, days: float, seed: int = 7) -> Iterator[dict[str, Any]]:
    """Yield so many lines, over so many days, in the order of time."""
    rng = random.Random(seed)
    questions = max(lines // 6, 20)
    weights = [1 / (rank + 1) for rank in range(questions)]
    drawn = rng.choices(range(questions), weights, k=lines)
    pace = days * 86_400 / lines
    moment, burst = _BEGIN, 0
    for place in range(lines):
        if burst:
            burst -= 1
            drawn[place] = drawn[place - 1]
            moment += rng.uniform(0.02, 0.3)
        else:
            moment += rng.expovariate(1 / pace)
            burst = rng.randrange(2, 6) if rng.random() < 0.03 else 0
        yield _line(rng, drawn[place], moment)


def _line(rng: random.Random, question: int, moment: float) -> dict[str, Any]:
    own = random.Random(question)
    action, where = own.choice(_ACTIONS), own.choice(_PLACES)
    number = "" if question < len(_ACTIONS) else f" It is about article {question}."
    asking = rng.choice(_ASKING) if rng.random() < 0.25 else _ASKING[0]
    text = asking.format(f"{action} {where}".strip()) + number
    if question % 3 == 0:
        text += f" (request {uuid.UUID(int=rng.getrandbits(128), version=4)})"
    system = _SYSTEM
    if question % 5 == 0:
        system += f" It is {datetime.fromtimestamp(moment, UTC).isoformat(timespec='seconds')}."
    spent, produced = 22 + len(text) // 4 + own.randrange(1_000, 6_000), own.randrange(60, 400)
    return {
        "timestamp": round(moment, 3),
        "request": {
            "model": own.choice(_MODELS),
            "messages": [{"role": "system", "content": system}, {"role": "user", "content": text}],
            "temperature": 0.2,
        },
        "latency": round(rng.lognormvariate(0.9, 0.4), 2),
        "usage": {"prompt_tokens": spent, "completion_tokens": produced},
    }


def write(path: Path, lines: int, *, days: float) -> None:
    """Write such a log."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(line) + "\n" for line in a_log(lines, days=days))


_CODE = """
import json, re, resource, sys, time
from llmcache_plugins.cli import main
began = time.perf_counter()
try:
    main()
finally:
    seconds, busy = time.perf_counter() - began, time.process_time()
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    try:
        # There the other begins with what the process has had that starts this one.
        most = 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
    except OSError:
        pass
    print(json.dumps([seconds, busy, most]), file=sys.stderr)
"""


def measure(path: Path) -> tuple[tuple[float, float, int], dict[str, Any]]:
    """Return what the command takes, and what it says: seconds, those of the processor, most bytes."""
    command = [sys.executable, "-c", _CODE, "estimate", str(path), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, busy, most = json.loads(done.stderr.splitlines()[-1])
    return (seconds, busy, most), json.loads(done.stdout)


def main(words: Sequence[str] = ()) -> None:
    """Print a table, or write a log."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks estimate", description=__doc__)
    parser.add_argument("--lines", type=int, action="append", help=f"default: {SIZES}")
    parser.add_argument("--days", type=float, default=14.0, help="the log's")
    parser.add_argument("--log", type=Path, help="write a log to this file, and measure nothing")
    options = parser.parse_args(words)
    sizes = options.lines or SIZES
    if options.log:
        write(options.log, sizes[0], days=options.days)
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for lines in sizes:
            path = Path(folder) / "log.jsonl"
            write(path, lines, days=options.days)
            (seconds, busy, most), said = measure(path)
            rows.append(
                [
                    f"{lines:,}",
                    f"{path.stat().st_size / 1e6:.0f} MB",
                    f"{seconds:.1f} s",
                    f"{busy:.1f} s",
                    f"{lines / seconds:,.0f}",
                    f"{most / 1e6:.0f} MB",
                    f"{said['avoided']['calls']:,}",
                ]
            )
    print_table(
        "llmcache estimate",
        ["lines", "file", "time", "of the processor", "lines/s", "peak memory", "calls avoided"],
        rows,
    )
