"""What of a request is compared by its meaning, and what must be equal.

Compared is the visible text of the last turn, if it is a user's: never the JSON around it. All the rest, with
what else that turn holds (images, files), must be equal to the letter: model, parameters, system prompt,
tools, response format, the conversation so far. Pure; knows the shapes of requests and nothing of vectors.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

__all__ = ["Question", "Skip", "question_of"]


class Skip(enum.StrEnum):
    """Why a request was not compared by its meaning. A closed set: for counters."""

    NO_QUESTION = "no_question"
    """Its last turn is no user's: a tool's result, a prefix of the answer; or its kind has no turns."""
    EMPTY = "empty"
    NOT_TEXT = "not_text"
    """An image alone, say, or several texts among images."""
    CONVERSATION = "conversation"
    """There is a conversation before it, and the layer takes first turns only."""
    TOO_LONG = "too_long"
    """More than the embedder reads."""
    LOADING = "loading"
    """The model is being loaded."""
    QUEUE = "queue"
    """Too many texts wait to be embedded."""
    LATE = "late"
    """It was not through within its budget."""
    FAILED = "failed"
    """The embedder or the index failed."""


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """A request taken apart. `rest` is the request without the text, to be signed as it is."""

    text: str
    rest: Any
    is_first_turn: bool


_USERS: Final = ("user", "human")
_TEXTS: Final = ("text", "input_text")
_TURN: Final = re.compile(
    r"^[\s#*]*(?:system|human|user|ai|assistant)[\s*]*(?::|$)|<\|im_start\|>|<\|start_header_id\|>|\[INST\]|<<SYS>>",
    re.IGNORECASE | re.MULTILINE,
)
_NO_TEXT: Final = re.compile(
    r"embed|moderation|rerank|dall-e|image|diffusion|flux|(?:^|[-/])(?:tts|sora|veo)\b|whisper|transcri|speech|video",
    re.IGNORECASE,
)
"""Models that answer with something else than text."""
_SYSTEMS: Final = ("system", "developer")


def question_of(request: object, *, takes_input: bool = True) -> Question | Skip:
    """Take a request apart: a string, a provider's body, or what LangChain asks. Changes nothing.

    Without `takes_input` a bare text in `input` is none: it may as well be one to embed or to moderate.
    """
    if isinstance(request, str):
        return _alone(request, rest="")
    if not isinstance(request, Mapping) or _is_of_another_kind(request.get("model")):
        return Skip.NO_QUESTION
    for name in ("messages", "input"):
        turns = request.get(name)
        if isinstance(turns, list | tuple):
            return _last_of(list(turns), lambda rest, name=name: {**request, name: rest})
    for name in ("prompt", "input") if takes_input else ("prompt",):
        text = request.get(name)
        if isinstance(text, str):
            return _alone(text, rest={**request, name: ""})
    return Skip.NO_QUESTION


def _alone(text: str, *, rest: Any) -> Question | Skip:
    # A conversation in one text: all of it would be compared, system prompt included.
    if _TURN.search(text):
        return Skip.NO_QUESTION
    return _asked(text, rest=rest, is_first_turn=True)


def _is_of_another_kind(model: object) -> bool:
    return isinstance(model, str) and _NO_TEXT.search(model) is not None


def _last_of(turns: list[Any], rest_of: Any) -> Question | Skip:
    last = turns[-1] if turns else None
    if not isinstance(last, Mapping) or last.get("role") not in _USERS:
        return Skip.NO_QUESTION
    holder = last["kwargs"] if isinstance(last.get("kwargs"), Mapping) else last
    taken = _taken_out(holder.get("content"))
    if isinstance(taken, Skip):
        return taken
    text, content = taken
    bare = {**holder, "content": content}
    turn = bare if holder is last else {**last, "kwargs": bare}
    return _asked(text, rest=rest_of([*turns[:-1], turn]), is_first_turn=not any(map(_is_said, turns[:-1])))


def _taken_out(content: object) -> tuple[str, Any] | Skip:
    """Return the text of a turn's content, and the content without it."""
    if isinstance(content, str):
        return content, ""
    if not isinstance(content, list | tuple):
        return Skip.NOT_TEXT
    texts: list[str] = []
    bare: list[Any] = []
    for part in content:
        if isinstance(part, str):
            texts.append(part)
            bare.append("")
        elif isinstance(part, Mapping) and part.get("type") in _TEXTS and isinstance(part.get("text"), str):
            texts.append(part["text"])
            bare.append({**part, "text": ""})
        else:
            bare.append(part)
    if not texts or (len(texts) > 1 and len(bare) > len(texts)):
        # Which text goes with which image is not in the texts.
        return Skip.NOT_TEXT
    return "\n".join(texts), bare


def _is_said(turn: object) -> bool:
    return not (isinstance(turn, Mapping) and turn.get("role") in _SYSTEMS)


def _asked(text: str, *, rest: Any, is_first_turn: bool) -> Question | Skip:
    if not text or text.isspace():
        return Skip.EMPTY
    return Question(text=text, rest=rest, is_first_turn=is_first_turn)
