"""A request taken apart: its bare prompt, or its parameters, less what cannot change an answer.

Owns what of a provider's body counts, and the few places where an SDK's ways make two spellings one. Raises
`Refused`, with the place, for what has no canonical form.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmcache_plugins.signature.canonical import (
    Refused,
    Tree,
    collision,
    name_of,
    named,
    path_of,
    plain,
    tree_of,
)
from llmcache_plugins.signature.left_out import LEFT_OUT, LEFT_OUT_HEADERS
from llmcache_plugins.signature.normalized import BODY_MARKS

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["names_left_out", "parameter", "parts_of"]

_OPENAI_BASE = "https://api.openai.com/v1"
_CONVERSATIONS = ("messages", "input")
_EXTRAS = ("extra_body", "extra_headers", "extra_query")


def parts_of(request: object, scope: Mapping[str, object]) -> tuple[Tree, dict[str, Tree]]:
    """Split a request into its bare prompt, if it is one, and its parameters."""
    body = plain(request)
    facts = _parameters(_spelled(plain(scope)), LEFT_OUT) if scope else {}
    if isinstance(body, str):
        return tree_of(body, 0), _with_default_base(facts)
    if isinstance(body, dict):
        said = _spelled(body)
        return None, _with_default_base(facts | _parameters(said, _left_out_of(said)))
    raise Refused(f"a request is a mapping or a string, not {named(request)}")


def names_left_out(request: object) -> tuple[str, ...]:
    """Return the paths of what does not count."""
    body = plain(request)
    if not isinstance(body, dict):
        return ()
    said = _spelled(body)
    names = sorted(said.keys() & _left_out_of(said))
    headers = plain(said.get("extra_headers", {}))
    if isinstance(headers, dict):
        lower = {name: name_of(name).lower() for name in headers}
        names += [path_of(("extra_headers", n)) for n in sorted(lower) if lower[n] in LEFT_OUT_HEADERS]
    return tuple(names)


def _spelled(body: dict[Any, Any]) -> dict[str, Any]:
    """Return what a body says, None being nothing."""
    said: dict[str, Any] = {}
    for key, value in body.items():
        name = key if type(key) is str and key.isascii() else name_of(key)
        if name in said:
            raise collision(name)
        if value is not None:
            said[name] = value
    return said


def _left_out_of(said: dict[str, Any]) -> frozenset[str]:
    return frozenset() if BODY_MARKS.isdisjoint(said) else LEFT_OUT


def _parameters(said: dict[str, Any], left_out: frozenset[str]) -> dict[str, Tree]:
    tree = {name: parameter(name, value) for name, value in said.items() if name not in left_out}
    return _with_one_base(_without_empty_extras(_with_short_messages(tree)))


def parameter(name: str, value: Any) -> Tree:
    """Return the canonical form of one parameter."""
    try:
        return tree_of(_kept_headers(value) if name == "extra_headers" else value, 1)
    except Refused as refused:
        raise refused.under(name) from None


def _with_short_messages(tree: dict[str, Tree]) -> dict[str, Tree]:
    """Drop the fields of messages that are None: an SDK does not send them."""
    for name in _CONVERSATIONS:
        messages = tree.get(name)
        if isinstance(messages, list):
            tree[name] = [_without_none(message) for message in messages]
    return tree


def _without_none(message: Tree) -> Tree:
    if not isinstance(message, dict) or None not in message.values():
        return message
    return {name: value for name, value in message.items() if value is not None}


def _kept_headers(headers: Any) -> Any:
    said = plain(headers)
    if type(said) is not dict:
        return said
    kept: dict[str, Any] = {}
    for key, value in said.items():
        # RFC 9110, 5.1: the names of fields are case-insensitive.
        name = name_of(key).lower()
        if name in LEFT_OUT_HEADERS:
            continue
        if name in kept:
            raise collision(name)
        kept[name] = value
    return kept


def _without_empty_extras(tree: dict[str, Tree]) -> dict[str, Tree]:
    """Drop what adds nothing to a request."""
    for name in _EXTRAS:
        if tree.get(name) == {}:
            del tree[name]
    return tree


def _with_one_base(tree: dict[str, Tree]) -> dict[str, Tree]:
    """Give the address of the provider one name and spelling."""
    for name in ("api_base", "base_url"):
        address = tree.get(name)
        if isinstance(address, str):
            tree[name] = address.rstrip("/")
    base = tree.get("api_base")
    # Two different addresses both stay: which of them wins is the provider's affair.
    if "base_url" in tree and (base is None or (isinstance(base, str) and base == tree["base_url"])):
        tree["api_base"] = tree.pop("base_url")
    return tree


def _with_default_base(tree: dict[str, Tree]) -> dict[str, Tree]:
    """Drop OpenAI's own address: it is what no address means."""
    if tree.get("api_base") == _OPENAI_BASE and "base_url" not in tree:
        del tree["api_base"]
    return tree
