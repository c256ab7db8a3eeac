"""The canonical form of a value: one JSON tree for all its spellings, or a refusal that names the place.

Owns what ordinary Python values mean as JSON. Knows nothing of requests, parameters or providers.
"""

from __future__ import annotations

import enum
import json
import math
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, Self, TypeAlias

__all__ = ["Refused", "Tree", "collision", "join", "name_of", "named", "path_of", "plain", "tree_of"]

Tree: TypeAlias = "bool | int | float | str | list[Tree] | dict[str, Tree] | None"

# Python's own stack ends at a depth nobody can foresee (it depends on the caller), ours must not. No provider
# accepts a schema half as deep. It is also how a cycle is noticed.
_DEEPEST = 128
# The interpreter refuses to print integers of more digits than a setting allows (at least 640): this is less.
_MOST_BITS = 2048
# In messages: enough to find the place, not enough to print a prompt that was used as a key.
_LONGEST_NAME = 60
_LONGEST_PATH = 40


def tree_of(value: Any, depth: int) -> Tree:
    """Return the canonical form of a value. Exact types first: nearly every value has one of them."""
    cls = type(value)
    if cls is str:
        text: str = value
        return text if text.isascii() else _text(text)
    if cls is dict:
        return _mapping(value, depth)
    if cls is list or cls is tuple:
        return _sequence(value, depth)
    # bool before int: True is not 1.
    if value is None or cls is bool:
        atom: bool | None = value
        return atom
    if cls is int:
        return _integer(value)
    if cls is float:
        return _number(value)
    _not_deeper(depth)
    return tree_of(plain(value), depth + 1)


def _mapping(value: dict[Any, Any], depth: int) -> dict[str, Tree]:
    _not_deeper(depth)
    tree: dict[str, Tree] = {}
    for key, item in value.items():
        name = key if type(key) is str and key.isascii() else name_of(key)
        if name in tree:
            raise collision(name)
        try:
            tree[name] = tree_of(item, depth + 1)
        except Refused as refused:
            raise refused.under(name) from None
    return tree


def _sequence(value: list[Any] | tuple[Any, ...], depth: int) -> list[Tree]:
    _not_deeper(depth)
    tree: list[Tree] = []
    try:
        for item in value:
            tree.append(tree_of(item, depth + 1))  # noqa: PERF401 - its length is the place of a refused item
    except Refused as refused:
        raise refused.under(len(tree)) from None
    return tree


def _not_deeper(depth: int) -> None:
    if depth > _DEEPEST:
        raise Refused(f"is nested deeper than {_DEEPEST} levels, or contains itself")


def _text(value: str) -> str:
    if value.isascii():
        return value
    normal = unicodedata.normalize("NFC", value)
    try:
        normal.encode()
    except UnicodeEncodeError:
        raise Refused("a str with a lone surrogate has no UTF-8 form") from None
    return normal


def _integer(value: int) -> int:
    if value.bit_length() > _MOST_BITS:
        raise Refused(f"an int of more than {_MOST_BITS} bits")
    return value


def _number(value: float) -> int | float:
    # JSON knows one kind of number, and encoders disagree about "1.0" and "-0.0".
    if value.is_integer():
        return int(value)
    if math.isfinite(value):
        return value
    raise Refused("a float that is NaN or infinite has no JSON form")


def name_of(key: Any) -> str:
    """Return the string that JSON makes of a key."""
    cls = type(key)
    if issubclass(cls, str):
        return _text(str.__str__(key))
    if issubclass(cls, int) and cls is not bool:
        return str(_integer(int.__int__(key)))
    # json.dumps would write a float, a bool and None as well, in ways that other languages do not.
    raise Refused(f"has a key of type {type(key).__qualname__}; keys are strings or integers")


def plain(value: Any) -> Any:
    """Return a value of any other type as one of a JSON type, if it clearly is one.

    The type is asked and not the value, for a mock or a proxy claims to be whatever it is asked for.
    """
    if type(value) in (dict, str):
        return value
    try:
        return _by_value(value, type(value))
    except Refused:
        raise
    except Exception as error:  # noqa: BLE001 - code of strangers runs here; what it raises is their business
        raise Refused(f"{named(value)} that cannot be read ({type(error).__name__})") from None


def _by_value(value: Any, cls: type[Any]) -> Any:
    # The base class's own methods: an enum's __str__ gives its name.
    if issubclass(cls, str):
        return str.__str__(value)
    if issubclass(cls, int):
        return int.__int__(value)
    if issubclass(cls, float):
        return float.__float__(value)
    if issubclass(cls, enum.Enum):
        return value.value
    if issubclass(cls, Mapping):
        return _as_dict(value)
    if issubclass(cls, (list, tuple)):
        return list(value)
    if hasattr(cls, "model_dump"):
        return _dumped(value, cls)
    # Dataclasses too: no SDK sends one, and which of its fields a provider reads is not to be seen here.
    raise Refused(f"{named(value)} has no canonical form")


def _as_dict(value: Mapping[Any, Any]) -> dict[Any, Any]:
    items = list(value.items())
    plain = dict(items)
    if len(plain) != len(items):
        # A multidict: which of the values counts is not to be seen here.
        raise Refused(f"{named(value)} that has a key twice")
    return plain


def _dumped(value: Any, cls: type[Any]) -> Any:
    """Return what a pydantic model, or what looks like one, stands for.

    The OpenAI SDK sends the fields that were set (and never those in `__api_exclude__`), other libraries send
    defaults as well. A default that is not None therefore counts: `UserMessage(content="hi")` and
    `SystemMessage(content="hi")` often differ in nothing else. A None that nobody set is not a field.
    """
    options: dict[str, Any] = {"mode": "json"}
    if hasattr(cls, "__pydantic_serializer__"):
        # pydantic's warnings quote the value, and so the prompt.
        options |= {"warnings": False, "exclude": getattr(value, "__api_exclude__", None)}
    return _without_unset_none(value.model_dump(**options), value.model_dump(exclude_unset=True, **options))


def _without_unset_none(full: Any, given: Any) -> Any:
    if type(full) is dict and type(given) is dict:
        return {
            key: _without_unset_none(value, given[key]) if key in given else value
            for key, value in full.items()
            if value is not None or key in given
        }
    if type(full) is list and type(given) is list and len(full) == len(given):
        return [_without_unset_none(*pair) for pair in zip(full, given, strict=True)]
    return full


class Refused(Exception):
    """A value without a canonical form. Each container it passes on its way up adds a step to its path.

    So that a path costs nothing where nothing is refused.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self._steps: list[str | int] = []

    def under(self, step: str | int) -> Self:
        """Add the place inside the next container."""
        self._steps.append(step)
        return self

    def path(self) -> str:
        """Return the place as `path_of` writes it."""
        return path_of(self._steps[::-1])


def collision(name: str) -> Refused:
    """Return the refusal of two keys that become one."""
    return Refused("two keys become this one").under(name)


def path_of(steps: Sequence[str | int]) -> str:
    """Return a place as Python would write it, such as `messages[2].content`."""
    spelled = ""
    for step in steps[:_LONGEST_PATH]:
        spelled = join(spelled, step)
    return f"{spelled}..." if len(steps) > _LONGEST_PATH else spelled


def join(path: str, step: str | int) -> str:
    """Return the path of what lies one step below a path, which is empty at the top."""
    return f"{path}{_step(step)}" if path else _step(step).removeprefix(".")


def _step(step: str | int) -> str:
    if isinstance(step, int):
        return f"[{step}]"
    if len(step) > _LONGEST_NAME:
        return f"[{json.dumps(step[:_LONGEST_NAME] + '...')}]"
    return f".{step}" if step.isidentifier() else f"[{json.dumps(step)}]"


def named(value: object) -> str:
    """Return what a message may say of a value: its type, never the value."""
    return f"a value of type {type(value).__qualname__}"
