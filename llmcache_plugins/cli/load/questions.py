"""Files of requests: one OpenAI chat request body a line, checked before anything is started.

Owns the format and what is said about a line that is not of it. Knows nothing of providers or caches.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmcache_plugins.cli.lines import BadLine, documents, opened
from llmcache_plugins.cli.support import CannotRun

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from importlib.resources.abc import Traversable

__all__ = ["Request", "load_questions", "read_questions"]

Request = dict[str, Any]

_SHIPPED = "questions.jsonl"
_EXAMPLE = '{"messages": [{"role": "user", "content": "..."}]}'


def load_questions(path: Path | None, *, parameters: Collection[str] | None) -> list[Request]:
    """Return the requests of a file, or of the one that is shipped; see `read_questions`."""
    source = _shipped() if path is None else path
    with opened(source, of="requests") as lines:
        return read_questions(lines, name=str(source), parameters=parameters)


def read_questions(lines: Iterable[str], *, name: str, parameters: Collection[str] | None) -> list[Request]:
    """Return the requests of the lines, in their order; empty lines count for nothing.

    `parameters` are the names a request may have, None if any. Raises `CannotRun`, naming the file `name` and
    the line.
    """
    requests = []
    for found in documents(lines):
        if isinstance(found, BadLine):
            where = f"{name}, line {found.line}"
            raise CannotRun(f"{where}: {found.reason}; write one request a line, such as {_EXAMPLE}")
        number, body = found
        _check(body, where=f"{name}, line {number}", parameters=parameters)
        requests.append(body)
    if not requests:
        raise CannotRun(f"{name}: no requests; each line is a chat request body such as {_EXAMPLE}")
    return requests


def _shipped() -> Traversable:
    # In a wheel the file lies beside this module; in a checkout only in examples/.
    packed = resources.files("llmcache_plugins.cli").joinpath("data", _SHIPPED)
    return packed if packed.is_file() else Path(__file__).parents[3] / "examples" / _SHIPPED


def _check(body: Any, *, where: str, parameters: Collection[str] | None) -> None:
    if not isinstance(body, dict):
        raise CannotRun(f"{where}: not an object; write a chat request body such as {_EXAMPLE}")
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) for m in messages):
        raise CannotRun(f'{where}: no "messages"; a request needs a list of them, such as {_EXAMPLE}')
    for parameter in body:
        if parameters is not None and parameter not in parameters:
            raise CannotRun(
                f'{where}: the OpenAI SDK has no parameter "{parameter}"; put what only your provider knows'
                ' under "extra_body"'
            )
