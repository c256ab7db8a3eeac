"""What normalizers make of a request: which of its strings are text, and what is left of them.

Text is what a person or a program has written into a prompt. Roles, names, tools, schemas, arguments, ids,
parameters, and the data and addresses of images, sounds and files are none: two images must never become
equal because their data differ in something that looks like a token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from llmcache_plugins.normalize import Failed, has_reserved
from llmcache_plugins.signature.canonical import Refused, path_of, tree_of

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

    from llmcache_plugins.normalize import Normalizers

__all__ = ["BODY_MARKS", "Normalized", "Text", "normalize", "texts_of"]

BODY_MARKS: Final = frozenset({"input", "messages", "model", "prompt"})
"""A mapping with one of these is the body of a request to a provider."""

_PROMPTS = ("instructions", "prompt", "system")
_CONVERSATIONS = ("messages", "input")
_TEXT_PARTS = frozenset({None, "text", "input_text", "output_text"})
# In the messages of LangChain the fields are one floor deeper.
_LANGCHAIN_FIELDS = "kwargs"
# A chat of LangChain's that its adapter could not take apart: images and ids are in it, too.
_SERIALIZED = '[{"lc"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Normalized:
    """What one rule has stripped at one place of a request. Never the text."""

    rule: str
    path: str
    """The place, such as `messages[2].content`; empty for a bare prompt."""
    count: int
    skipped: str = ""
    """Why the rule was not run, if it was not: `too long` or `too slow`. Such a text only misses."""


class Text(NamedTuple):
    """A text of a request: where it lies, and what it says."""

    holder: Any
    step: str | int
    path: tuple[str | int, ...]

    @property
    def said(self) -> str:
        """The text itself."""
        text: str = self.holder[self.step]
        return text


def texts_of(document: list[Any], facts: Container[object] = ()) -> list[Text]:
    """Return the texts of a request in its canonical form `[.., prompt | null, {parameter: value}]`.

    Of a provider's body (see `BODY_MARKS`): `prompt`, `instructions`, `system`, `input`, and the contents of
    messages, without the parts that are no text. Of any other mapping the strings of several words, at any
    depth: a single word there may be the name of a document. The parameters among `facts` are none.
    """
    prompt, parameters = document[-2:]
    if isinstance(prompt, str):
        return [Text(document, len(document) - 2, ())]
    is_body = not BODY_MARKS.isdisjoint(parameters)
    texts = _texts_of_body(parameters) if is_body else _strings(parameters, ())
    return [text for text in texts if text.path[0] not in facts and (is_body or _has_words(text.said))]


def _has_words(text: str) -> bool:
    return len(text.split(maxsplit=1)) > 1


def _strings(value: Any, path: tuple[str | int, ...]) -> Iterator[Text]:
    steps: Any = value.items() if isinstance(value, dict) else enumerate(value)
    for step, item in steps:
        if isinstance(item, str):
            yield Text(value, step, (*path, step))
        elif isinstance(item, dict | list):
            yield from _strings(item, (*path, step))


def _texts_of_body(parameters: dict[str, Any]) -> Iterator[Text]:
    for name in _PROMPTS:
        yield from _content(parameters, name, (name,))
    for name in _CONVERSATIONS:
        conversation = parameters.get(name)
        if isinstance(conversation, list):
            for place, message in enumerate(conversation):
                yield from _message(conversation, message, place, (name, place))
        elif name == "input":
            yield from _content(parameters, name, (name,))


def _message(holder: list[Any], message: Any, place: int, path: tuple[str | int, ...]) -> Iterator[Text]:
    if isinstance(message, str):
        yield Text(holder, place, path)
    elif isinstance(message, dict):
        yield from _content(message, "content", (*path, "content"))
        if message.get("type") == "function_call_output":
            yield from _content(message, "output", (*path, "output"))
        fields = message.get(_LANGCHAIN_FIELDS)
        if isinstance(fields, dict):
            yield from _content(fields, "content", (*path, _LANGCHAIN_FIELDS, "content"))


def _content(holder: dict[str, Any], name: str, path: tuple[str | int, ...]) -> Iterator[Text]:
    content = holder.get(name)
    if isinstance(content, str):
        if not content.startswith(_SERIALIZED):
            yield Text(holder, name, path)
    elif isinstance(content, list):
        for place, part in enumerate(content):
            yield from _part(content, part, place, (*path, place))


def _part(holder: list[Any], part: Any, place: int, path: tuple[str | int, ...]) -> Iterator[Text]:
    if isinstance(part, str):
        yield Text(holder, place, path)
    elif isinstance(part, dict):
        kind = part.get("type")
        if kind == "tool_result":
            yield from _content(part, "content", (*path, "content"))
        elif isinstance(kind, str | None) and kind in _TEXT_PARTS and isinstance(part.get("text"), str):
            yield Text(part, "text", (*path, "text"))


def normalize(document: list[Any], texts: list[Text], rules: Normalizers) -> tuple[Normalized, ...]:
    """Put in place of each text what the rules leave of it, and say what they did.

    If a placeholder stands anywhere now, the rules' names join the document, as the placeholders' meaning. A
    request that has such a character already stays as it is: with names beside it, each placeholder was put
    there by a rule, and without them none was. So no two requests become equal unless the rules say so.

    Raises `Refused` when a function of the application fails.
    """
    if any(has_reserved(text.said) for text in texts):
        return ()
    report: list[Normalized] = []
    has_placeholders = False
    for text in texts:
        try:
            result = rules.apply(text.said)
            # A function may return anything that is a str.
            text.holder[text.step] = tree_of(result.text, 0) if rules.is_foreign else result.text
        except Failed as failed:
            raise _at(text, Refused(str(failed))) from None
        except Refused as refused:
            raise _at(text, refused) from None
        has_placeholders |= result.has_placeholders
        report += (
            Normalized(rule=one.rule, path=path_of(text.path), count=one.count, skipped=one.skipped)
            for one in result.stripped
        )
    if has_placeholders:
        document.append(list(rules.names))
    return tuple(report)


def _at(text: Text, refused: Refused) -> Refused:
    for step in reversed(text.path):
        refused.under(step)
    return refused
