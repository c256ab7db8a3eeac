"""The file with one request that a verb is asked about: the body that the provider is sent, or a prompt."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from llmcache_plugins.cli.support import CannotRun

__all__ = ["read_request"]


def read_request(file: str) -> dict[str, Any] | str:
    """Read one request; `-` is stdin. Raises `CannotRun` for a file that has none."""
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CannotRun(f"{file}: cannot be read ({type(error).__name__})") from error
    try:
        request = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CannotRun(f"{file}: not a JSON document; put one request into it") from error
    if not isinstance(request, dict | str):
        raise CannotRun(f"{file}: a request is a JSON object or a string, not a {type(request).__name__}")
    return request
