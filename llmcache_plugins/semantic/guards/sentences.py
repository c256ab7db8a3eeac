"""Texts of several sentences."""

from __future__ import annotations

import re
from typing import Final

_BETWEEN: Final = re.compile(r"(?<=[.?!])\s+")
_CLOSING: Final = " .?!"


def without_shared(one: str, other: str) -> tuple[str, str]:
    """Return what is left of two texts without the sentences that both have; "" and "" if they share none."""
    mine, yours = _BETWEEN.split(one.strip()), _BETWEEN.split(other.strip())
    shared = {_bare(sentence) for sentence in mine} & {_bare(sentence) for sentence in yours}
    if not shared:
        return "", ""
    left, right = (
        " ".join([sentence for sentence in sentences if _bare(sentence) not in shared])
        for sentences in (mine, yours)
    )
    return left, right


def _bare(sentence: str) -> str:
    return sentence.rstrip(_CLOSING).casefold()
