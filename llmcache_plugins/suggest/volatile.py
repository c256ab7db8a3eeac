"""What no rule covers: the places where requests differ in one token and in nothing else.

Says what such tokens look like, never what they say.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from llmcache_plugins.suggest.sample import Asked, Texts

__all__ = ["Volatile", "volatile_tokens"]

_TOKEN = re.compile(r"\w+(?:[.,:/@+-]\w+)*|[^\w\s]")
_PARTS = re.compile(r"[0-9]+|[^\W\d_]+|.")
_MOST_TOKENS = 64
"""Of one request that are tried: more than differ between requests of one template."""
_MOST_PARTS = 12
_END = "\n"
"""Of a text: no token is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Volatile:
    """Tokens of one kind at one place that keep requests apart."""

    shape: str
    """What they look like: `digits`, `name`, `letters and digits` or `compound` (`ORD-12`, `12.50`)."""
    path: str
    """Where they stand, such as `messages[1].content`."""
    requests: int
    """How many distinct requests differ from another one only there."""
    hits: int
    """How many more would hit, at most, if such tokens did not count."""
    pattern: str
    """An expression for them, to start from; empty where it would match words that mean something."""


def volatile_tokens(asked: Sequence[Asked], texts: Sequence[Texts]) -> tuple[Volatile, ...]:
    """Return what keeps requests apart that have these texts now, what costs most first.

    Takes time in proportion to the sample: requests are not compared with each other, but by sums of what is
    left of them without one token.
    """
    found: dict[tuple[str, str], list[list[str]]] = defaultdict(list)
    for group in _alike(asked, texts):
        for place, tokens in _lone_differences(group):
            # Other words than names are the question.
            if (shape := _shape_of(tokens)) is not None:
                found[_path_at(place, group), shape].append(tokens)
    report = [_volatile(path, shape, groups) for (path, shape), groups in found.items()]
    return tuple(sorted(report, key=lambda one: (-one.hits, one.path, one.shape)))


class _Group(NamedTuple):
    """Requests that could differ in one token alone: equal in all that is no text, and of as many tokens."""

    paths: Texts
    texts: list[Texts]


def _alike(asked: Sequence[Asked], texts: Sequence[Texts]) -> list[_Group]:
    groups: dict[tuple[bytes, Texts, int], dict[Texts, None]] = defaultdict(dict)
    for one, said in zip(asked, texts, strict=True):
        if one.is_open:
            groups[one.frame, one.paths, len(_tokens(said))][said] = None
    return [_Group(paths, list(group)) for (_, paths, _), group in groups.items() if len(group) > 1]


def _tokens(texts: Texts) -> list[str]:
    tokens: list[str] = []
    for text in texts:
        tokens += _TOKEN.findall(text)
        tokens.append(_END)
    return tokens


def _path_at(place: int, group: _Group) -> str:
    before = _tokens(group.texts[0])[:place]
    return group.paths[before.count(_END)]


def _lone_differences(group: _Group) -> Iterable[tuple[int, list[str]]]:
    """Yield the tokens in which requests of a group differ and in nothing else, and their first place."""
    changing = _changing(group)
    rests: dict[tuple[int, tuple[int, ...]], set[str]] = defaultdict(set)
    for said in group.texts:
        tokens = _tokens(said)
        whole = sum(hash((place, tokens[place])) for place in changing)
        for token, places in _tried(tokens, changing):
            # A sum without some of its parts, in one step: the same for all that differ only there.
            rest = whole - sum(hash((place, token)) for place in places)
            rests[rest, places].add(token)
    for (_, places), differing in rests.items():
        if len(differing) > 1:
            yield places[0], list(differing)


def _changing(group: _Group) -> list[int]:
    """Return the places that are not the same everywhere."""
    first = _tokens(group.texts[0])
    changing: set[int] = set()
    for said in group.texts:
        pairs = zip(first, _tokens(said), strict=True)
        changing.update(place for place, (one, other) in enumerate(pairs) if one != other)
    return sorted(changing)


def _tried(tokens: list[str], changing: list[int]) -> list[tuple[str, tuple[int, ...]]]:
    """Return the tokens that may be what differs, each with all its places: a name is often said twice."""
    places: dict[str, list[int]] = defaultdict(list)
    for place in changing:
        if tokens[place] != _END:
            places[tokens[place]].append(place)
    return [(token, tuple(at)) for token, at in islice(places.items(), _MOST_TOKENS)]


def _volatile(path: str, shape: str, groups: list[list[str]]) -> Volatile:
    tokens = [token for group in groups for token in group]
    return Volatile(
        shape=shape,
        path=path,
        requests=len(tokens),
        hits=sum(len(group) - 1 for group in groups),
        pattern=_pattern_of(shape, tokens),
    )


def _shape_of(tokens: list[str]) -> str | None:
    shapes = set(map(_shape_of_one, tokens))
    return shapes.pop() if len(shapes) == 1 else None


def _shape_of_one(token: str) -> str | None:
    if token.isdigit():
        return "digits"
    if token.isalpha():
        return "name" if token[0].isupper() else None
    if not any(map(str.isdigit, token)):
        return None
    return "letters and digits" if token.isalnum() else "compound"


def _pattern_of(shape: str, tokens: list[str]) -> str:
    shortest, longest = min(map(len, tokens)), max(map(len, tokens))
    lengths = f"{{{shortest},{longest}}}" if shortest < longest else f"{{{shortest}}}"
    if shape == "digits":
        return rf"\b[0-9]{lengths}\b"
    if shape == "letters and digits":
        return rf"\b(?=[A-Za-z]*[0-9])[0-9A-Za-z]{lengths}\b"
    outlines = set(map(_outline, tokens))
    if shape == "compound" and len(outlines) == 1 and any("0-9" in outline for outline in outlines):
        return rf"\b{outlines.pop()}\b"
    return ""


def _outline(token: str) -> str:
    parts = _PARTS.findall(token)
    if len(parts) > _MOST_PARTS:
        return ""
    return "".join("[0-9]+" if p.isdigit() else r"[^\W\d_]+" if p.isalpha() else re.escape(p) for p in parts)
