"""What LangChain's two key strings mean: one canonical request, the same for all their spellings.

Owns the reading of `prompt` and `llm_string`, as `BaseCache.lookup` gets them; which of their parts cannot
change an answer is in `normal`. Knows nothing of digests, and imports nothing of LangChain: what it reads is
text that LangChain wrote, and text is all it hands on.

    prompt      a chat: json.dumps of the messages, each {"lc", "type", "id": [.., class], "kwargs"};
                a completion: the prompt itself
    llm_string  json.dumps of the model's constructor + "---" + str(sorted(arguments of the call)), or
                str(sorted(settings and arguments)) for models that are not serialisable, completions too
                (langchain-core, language_models/chat_models.py `_get_llm_string`, llms.py `get_prompts`)

Two mistakes are possible here and they are not alike, as in `signature`. So a string is taken apart only if
writing it again gives the very same string. All else is a text, and texts differ where a character does.
"""

from __future__ import annotations

import ast
import json
import re
from functools import lru_cache
from typing import Any, Final

from llmcache_plugins.adapters.langchain.normal import (
    CONNECTIONS,
    DELIVERY,
    MACHINERY,
    normal_message,
    significant,
)

__all__ = [
    "NAMES_AN_OBJECT",
    "SERVER_SIDE_STATE",
    "UNDESCRIBED_SETTING",
    "bypass_reason",
    "request_of",
]

NAMES_AN_OBJECT: Final = "names an object of this process; use cached(model, cache)"
"""A class or an address: an equal name in another process, or after a deploy, may be another object."""

SERVER_SIDE_STATE: Final = "continues a state that the provider keeps"
"""What is answered then depends on what the provider was asked before; the messages do not tell."""

UNDESCRIBED_SETTING: Final = "has a setting that LangChain does not describe; use cached(model, cache)"
"""LangChain deletes the repr of objects among a model's settings: models with different ones look alike."""

# langchain-core, messages/base.py: `get_lc_namespace`, for subclasses of an application too.
_MESSAGES = ["langchain", "schema", "messages"]

# langchain-openai: the previous answer's id is sent in place of the messages. langchain-anthropic: code runs
# in the container of the previous answer. As JSON, as a dict's repr and as a pair.
_STATE = re.compile(r"""(?:use_previous_response_id|reuse_last_container)['"][:,] [Tt]rue""")
_OBJECT_MARKS = ("<class '", "<enum '", " at 0x")

_SEPARATOR = "---"
# `signature.canonical` refuses what is deeper than 128 and integers of more bits than this.
_DEEPEST = 100
_ATOMS = frozenset({str, float, bool, type(None)})
_MOST_BITS = 2048
# Reading a repr costs 0.4 us a character. But a model's description is the same for each call.
_LONGEST_READ = 64 * 1024
_MOST_KEPT = 64


class _Foreign(Exception):
    """Not written by LangChain, or by one that is not known here."""


# What Python's parsers raise for strings of strangers; the compiler says MemoryError for "too deep".
_UNREADABLE = (_Foreign, ValueError, TypeError, SyntaxError, RecursionError, MemoryError)


def request_of(prompt: str, llm_string: str) -> dict[str, object]:
    """Return the request that a cache is asked for, in a form for `CacheSignatureEngine.compute_signature`.

    Equal for everything that cannot change the answer. It contains the prompt, and headers in clear:
    never log it. Parts of it are shared between calls: do not change it.

    Never raises, for any two strings; `compute_signature` may still refuse a prompt with a lone surrogate.
    No I/O, may be called from any thread. A chat of three kilobytes takes about 100 microseconds.
    """
    if len(llm_string) > _LONGEST_READ:
        return {**_asked(prompt), "settings": llm_string}
    return {**_asked(prompt), **_of_whom(llm_string)}


def bypass_reason(llm_string: str) -> str | None:
    """Return why calls of such a model must not be cached, or None if they may be.

    One of this module's constants: it quotes nothing of the string. Never raises.
    """
    if any(mark in llm_string for mark in _OBJECT_MARKS):
        return NAMES_AN_OBJECT
    if _STATE.search(llm_string):
        return SERVER_SIDE_STATE
    if '"not_implemented"' in llm_string and _has_erased(llm_string):
        return UNDESCRIBED_SETTING
    return None


# --- The prompt ---------------------------------------------------------------------------------------------


def _asked(prompt: str) -> dict[str, object]:
    try:
        return {
            "messages": [normal_message(_class_of(entry), entry["kwargs"]) for entry in _messages(prompt)]
        }
    except _UNREADABLE:
        return {"prompt": prompt}


def _messages(prompt: str) -> list[Any]:
    if not prompt.startswith("["):
        raise _Foreign
    entries = _DECODER.decode(prompt)
    # Other spaces, a key twice: not written by LangChain. It may be what a completion model is asked, where
    # each character counts.
    if json.dumps(entries) != prompt or not _is_plain(entries):
        raise _Foreign
    return list(entries)


def _class_of(entry: Any) -> str:
    if not isinstance(entry, dict) or entry.keys() != {"lc", "type", "id", "kwargs"}:
        raise _Foreign
    path = entry["id"]
    if entry["lc"] != 1 or entry["type"] != "constructor" or not isinstance(entry["kwargs"], dict):
        raise _Foreign
    if not isinstance(path, list) or path[:-1] != _MESSAGES or not isinstance(path[-1], str):
        raise _Foreign
    return path[-1]


# --- The model ----------------------------------------------------------------------------------------------


@lru_cache(maxsize=_MOST_KEPT)
def _of_whom(llm_string: str) -> dict[str, object]:
    try:
        constructor, arguments = _halves(llm_string)
    except _UNREADABLE:
        return {"settings": _settings(llm_string)}
    return {"model": _model(constructor), "arguments": _settings(arguments)}


def _halves(llm_string: str) -> tuple[dict[str, Any], str]:
    """Return the constructor of a serialisable model, and the text of the call's arguments."""
    if not llm_string.startswith("{"):
        raise _Foreign
    # Read and not split: the separator may be in a string, too.
    constructor, end = _DECODER.raw_decode(llm_string)
    if not llm_string.startswith(_SEPARATOR, end) or not _is_plain(constructor):
        raise _Foreign
    if json.dumps(constructor, sort_keys=True) != llm_string[:end]:
        raise _Foreign
    if constructor.get("type") != "constructor" or not isinstance(constructor.get("kwargs"), dict):
        raise _Foreign
    return constructor, llm_string[end + len(_SEPARATOR) :]


def _model(constructor: dict[str, Any]) -> dict[str, Any]:
    # The name is written twice, as a field and as that of the Runnable.
    model = {key: value for key, value in constructor.items() if key != "name"}
    model["kwargs"] = significant(constructor["kwargs"], DELIVERY | MACHINERY)
    return model


def _settings(text: str) -> dict[str, Any] | str:
    """Return what `str(sorted(settings.items()))` was made from, or the text itself."""
    try:
        return _of_repr(text)
    except _UNREADABLE:
        return text


def _of_repr(text: str) -> dict[str, Any]:
    # Only what looks like a list of pairs is worth the parser, which may warn of the text of strangers.
    if not (text.startswith("[(") and text.endswith(")]")):
        raise _Foreign
    pairs = ast.literal_eval(text)
    if repr(pairs) != text or not _is_plain(pairs):
        raise _Foreign
    settings = {name: value for name, value in pairs if isinstance(name, str)}
    if len(settings) != len(pairs):
        raise _Foreign
    return significant(settings, DELIVERY)


def _has_erased(llm_string: str) -> bool:
    """Say whether a setting is an object of which LangChain wrote only the class."""
    try:
        constructor, _ = _halves(llm_string)
    except _UNREADABLE:
        return False
    harmless = DELIVERY | MACHINERY | CONNECTIONS
    waiting = [value for name, value in constructor["kwargs"].items() if name not in harmless]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if value.get("type") == "not_implemented" and value.get("lc") == 1 and not value.get("repr"):
                return True
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
    return False


# --- Both ---------------------------------------------------------------------------------------------------


def _no_number(name: str) -> float:
    raise _Foreign(name)


# json.loads would read NaN and Infinity, which no canonical form has.
_DECODER = json.JSONDecoder(parse_constant=_no_number)


def _is_plain(value: Any) -> bool:
    """Say whether what a parser made has a canonical form: JSON's types, neither too deep nor too large."""
    level = [value]
    for _ in range(_DEEPEST):
        deeper: list[Any] = []
        for item in level:
            kind = type(item)
            if kind is dict and _has_plain_keys(item):
                deeper.extend(item.values())
            elif kind is list or kind is tuple:
                deeper.extend(item)
            elif not _is_plain_atom(item, kind):
                return False
        if not deeper:
            return True
        level = deeper
    return False


def _is_plain_atom(item: Any, kind: type[Any]) -> bool:
    if kind is int:
        bits: int = item.bit_length()
        return bits <= _MOST_BITS
    return kind in _ATOMS


def _has_plain_keys(value: dict[Any, Any]) -> bool:
    # Integers, as in `logit_bias`, become strings: not beside strings that they might be.
    kinds = set(map(type, value))
    return kinds <= {str} or kinds == {int}
