"""A signature: what normalizers add to it, by the size of the request; and each rule on hostile texts.

Every figure is the fastest of several runs, in time of the processor: what else the machine had to do is not
of interest.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks.tables import print_table
from llmcache_plugins.normalize import Normalizers
from llmcache_plugins.normalize.builtin import BUILTIN
from llmcache_plugins.signature import CacheSignatureEngine

if TYPE_CHECKING:
    from collections.abc import Callable

KILOBYTE = 1_000
SIZES = (1, 10, 100, 1_000)
PROSE = (
    "The customer has written again, and asks when the order will arrive; it was paid for on the 2nd, he\n"
    "says, and the parcel left the house a week ago. Please answer in two friendly sentences, and name the\n"
    "next step.\n"
)
TOKENS = (
    "2024-01-02T03:04:05Z 550e8400-e29b-41d4-a716-446655440000 request_id=4bf92f3577b34da6 1704164645"
    " d41d8cd98f00b204e9800998ecf8427e john@example.com https://example.com/a?id=7&utm_source=mail  \n"
)
HOSTILE = {
    "uuid": "550e8400-e29b-41d4-a716-44665544000 ",
    "timestamp": "2024-01-01 0:00",
    "epoch": "1700000000.",
    "request_id": "req_aaaaaaaaaaaaaa",
    "hex": "deadbeef01deadbeef ",
    "email": "a@b.co ",
    "url": "http://a?utm_a=b ",
    "whitespace": "\t \n",
}


def main() -> None:
    """Print two tables."""
    _print_sizes("prose without a token", PROSE)
    _print_sizes("prose with seven tokens in each 500 characters", PROSE + TOKENS)
    print_table(
        "Texts that give each rule the most to do, milliseconds",
        ["rule", "100 KB", "1,000 KB", "ratio", "us per KB"],
        [_hostile_row(name) for name in BUILTIN],
    )


def _print_sizes(title: str, text: str) -> None:
    print_table(
        f"Signature of {title}, microseconds per KB",
        ["", *(f"{size:,} KB" for size in SIZES)],
        [
            ["without normalizers", *(_per_kilobyte(text, size, ()) for size in SIZES)],
            *([f"with {name}", *(_per_kilobyte(text, size, (name,)) for size in SIZES)] for name in BUILTIN),
            ["with all of them", *(_per_kilobyte(text, size, BUILTIN) for size in SIZES)],
        ],
    )


def _per_kilobyte(text: str, size: int, rules: tuple[str, ...]) -> str:
    engine = CacheSignatureEngine(normalizers=rules)
    request = _chat(_of_length(text, size * KILOBYTE))
    return f"{_fastest(lambda: engine.compute_signature(request)) * 1e6 / size:,.1f}"


def _hostile_row(name: str) -> list[str]:
    rules = Normalizers([name])
    small, large = (_fastest(partial(rules.apply, _hostile(name, size))) for size in (100, 1_000))
    return [name, f"{small * 1e3:,.1f}", f"{large * 1e3:,.1f}", f"{large / small:.1f}", f"{large * 1e3:,.0f}"]


def _hostile(name: str, size: int) -> str:
    return _of_length(HOSTILE[name], size * KILOBYTE - len(TOKENS)) + TOKENS


def _chat(text: str) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": text}]}


def _of_length(text: str, length: int) -> str:
    return (text * (length // len(text) + 1))[:length]


def _fastest(call: Callable[[], object]) -> float:
    """Return the processor's seconds of the fastest of as many calls as fit into a tenth of one, or five."""
    seconds: list[float] = []
    while len(seconds) < 5 or sum(seconds) < 0.1:
        began = time.thread_time()
        call()
        seconds.append(time.thread_time() - began)
    return min(seconds)
