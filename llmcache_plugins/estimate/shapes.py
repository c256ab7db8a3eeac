"""From a line of a log, decoded, to a call: the shapes that are recognised, and columns that are named.

Recognised are, by what a line has: our own (`request`, `timestamp`, ...), LiteLLM's standard logging payload,
pairs of an OpenAI request and its response, the lines of OpenAI's batch files, and bare requests. Owns what
counts for nothing: calls that failed, and calls that another cache has answered.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from llmcache_plugins.answers.openai_wire import facts_of
from llmcache_plugins.answers.texts import text_length
from llmcache_plugins.errors import ConfigError
from llmcache_plugins.estimate.calls import LeftOut, LoggedCall, Unreadable, kind_of
from llmcache_plugins.estimate.moments import moment_of, span_of
from llmcache_plugins.models import AnswerFacts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmcache_plugins.models import Usage

__all__ = ["COLUMNS", "Shapes"]

Document = dict[str, Any]

COLUMNS: Final = (
    "timestamp",
    "request",
    "latency",
    "usage",
    "response",
    "model",
    "cost",
    "finish_reason",
    "input_tokens",
    "output_tokens",
)
"""What may be mapped."""

_TIMES = ("timestamp", "created_at", "time", "ts", "startTime", "start_time")
_SPANS = (
    ("latency", 1.0),
    ("latency_s", 1.0),
    ("latency_ms", 1e3),
    ("duration", 1.0),
    ("duration_ms", 1e3),
    ("response_time", 1.0),
)
_MARKS = frozenset({"messages", "prompt", "input"})
"""A body has one of these."""
_NOT_CACHED = re.compile(r"image|moderation|speech|transcription|rerank|video|batch|file|realtime|ocr|search")
"""Types of LiteLLM's calls that are not cached, or whose whole question is not in its log."""
_REDACTED = "redacted-by-litellm"


class Shapes:
    """Reads lines. `columns` maps names of `COLUMNS` to dotted paths, and wins over what is recognised.

    Raises `ConfigError` for a name that is none.
    """

    def __init__(self, columns: Mapping[str, str] | None = None) -> None:
        for name, path in (columns or {}).items():
            if name not in COLUMNS or not path:
                known = ", ".join(COLUMNS)
                raise ConfigError(f"a column is mapped as NAME=PATH, NAME one of {known}; not {name}={path}")
        self._columns = {name: path.split(".") for name, path in (columns or {}).items()}
        self.guesses: Counter[str] = Counter()
        """What was guessed, and in how many lines."""

    def read(self, document: object, *, size: int = 0) -> LoggedCall | LeftOut:
        """Return the call of a line, `size` bytes long. Raises `Unreadable`."""
        if isinstance(document, str):
            return LoggedCall(request=document, kind=kind_of(document), size=size)
        if not isinstance(document, dict):
            raise Unreadable("not an object")
        line = self._mapped(document)
        if (reason := _left_out(line)) is not None:
            return LeftOut(reason)
        request, endpoint = _request_of(line)
        response = _response_of(line)
        facts = facts_of(response)
        return LoggedCall(
            request=request,
            kind=kind_of(request, endpoint=endpoint),
            at=self._time_of(line, response),
            seconds=_seconds_of(line),
            facts=AnswerFacts(
                model=facts.model or _text(line.get("model")),
                usage=_usage_of(line) or facts.usage,
                finish_reasons=facts.finish_reasons or _finish_reasons(line),
                empty_of_choices=facts.empty_of_choices,
            ),
            cost=_cost_of(line),
            answer_characters=None if response is None else text_length(response),
            size=size,
        )

    def _mapped(self, document: Document) -> Document:
        if not self._columns:
            return document
        # What stands elsewhere under such a name is something else.
        kept = {name: value for name, value in document.items() if name not in self._columns}
        found = {name: _at(document, path) for name, path in self._columns.items()}
        if "usage" in self._columns or found.get("input_tokens") is not None:
            kept.pop("prompt_tokens", None)
            kept.pop("completion_tokens", None)
        if "timestamp" in self._columns:
            kept = {name: value for name, value in kept.items() if name not in _TIMES}
        if "latency" in self._columns:
            spans = {name for name, _ in _SPANS}
            kept = {name: value for name, value in kept.items() if name not in spans}
        return kept | {name: value for name, value in found.items() if value is not None}

    def _time_of(self, line: Document, response: Document | None) -> float | None:
        said = next((line[name] for name in _TIMES if line.get(name) is not None), None)
        if said is None and response is not None:
            said = response.get("created", response.get("created_at"))
            if said is not None:
                self.guesses["the time is that of the answer"] += 1
        if said is None:
            return None
        moment, guess = moment_of(said)
        if guess:
            self.guesses[guess] += 1
        return moment


def _at(document: object, path: list[str]) -> Any:
    for step in path:
        if isinstance(document, dict):
            document = document.get(step)
        elif isinstance(document, list) and step.isdigit() and int(step) < len(document):
            document = document[int(step)]
        else:
            return None
    return document


def _left_out(line: Document) -> str | None:
    if line.get("cache_hit") is True:
        return "answered by another cache"
    response = line.get("response")
    code = response.get("status_code") if isinstance(response, dict) else line.get("status_code")
    is_refused = isinstance(code, int) and code >= 400
    if line.get("status") == "failure" or line.get("error") or is_refused:
        return "failed"
    if "startTime" in line and _NOT_CACHED.search(str(line.get("call_type"))):
        return "a type of call that is not cached, or not logged whole"
    return None


def _request_of(line: Document) -> tuple[Document | str, str]:
    """Return a request, and where it was sent."""
    if "startTime" in line and "messages" in line and "request" not in line:
        return _litellm_request(line), _text(line.get("call_type")) or ""
    endpoint = _text(line.get("url")) or _text(line.get("endpoint")) or ""
    request = line.get("request", line.get("body"))
    if request is None and not _MARKS.isdisjoint(line):
        request = line
    if isinstance(request, dict) and isinstance(request.get("body"), dict) and "model" not in request:
        endpoint = _text(request.get("url")) or endpoint
        request = request["body"]
    if isinstance(request, str) and request:
        return request, endpoint
    if not isinstance(request, dict):
        raise Unreadable("no request in it; --map request=PATH says where it is")
    if _MARKS.isdisjoint(request):
        raise Unreadable("its request has no messages, no input and no prompt")
    return request, endpoint


def _litellm_request(line: Document) -> Document:
    said = line["messages"]
    parameters = line.get("model_parameters")
    kind = _text(line.get("call_type")) or ""
    if isinstance(said, list) and any(isinstance(m, dict) and m.get("content") == _REDACTED for m in said):
        raise Unreadable("its messages are redacted: all would look alike")
    if not said or said == _REDACTED:
        raise Unreadable("it has no messages: LiteLLM was told not to log them")
    if "embedding" in kind or ("response" in kind and "completion" not in kind):
        name = "input"
    else:
        name = "prompt" if "text_completion" in kind else "messages"
    if name == "messages" and isinstance(said, str):
        said = [{"role": "user", "content": said}]
    return {**(parameters if isinstance(parameters, dict) else {}), "model": line.get("model"), name: said}


def _response_of(line: Document) -> Document | None:
    response = line.get("response")
    if isinstance(response, dict) and isinstance(response.get("body"), dict):
        response = response["body"]
    return response if isinstance(response, dict) else None


def _seconds_of(line: Document) -> float | None:
    start, end = line.get("startTime"), line.get("endTime")
    if start is not None and end is not None:
        return span_of(moment_of(end)[0] - moment_of(start)[0])
    for name, per_second in _SPANS:
        if line.get(name) is not None:
            return span_of(line[name], per_second=per_second)
    return None


def _usage_of(line: Document) -> Usage | None:
    for usage in (line.get("usage"), line):
        if isinstance(usage, dict) and (found := facts_of({"choices": [{}], "usage": usage}).usage):
            return found
    return None


def _finish_reasons(line: Document) -> tuple[str, ...]:
    reason = _text(line.get("finish_reason"))
    return () if reason is None else (reason,)


def _cost_of(line: Document) -> float | None:
    cost = line.get("cost", line.get("response_cost"))
    # LiteLLM says 0 of a model whose price it does not know.
    is_cost = isinstance(cost, int | float) and not isinstance(cost, bool) and 0 < cost < 1e6
    return float(cost) if is_cost and cost is not None else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
