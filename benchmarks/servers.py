"""A server of the benchmarks' own: the embedded one, in a directory that is thrown away."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from llmcache_plugins.repository.embedded import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def server_url() -> Iterator[str]:
    """Yield the `unix://` URL of a running server."""
    with tempfile.TemporaryDirectory() as directory:
        server = EmbeddedServer(Path(directory))
        server.ensure()
        try:
            yield f"unix://{server.socket_path}"
        finally:
            server.stop()
