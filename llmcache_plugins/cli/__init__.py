"""The command `llmcache`. One module per verb, registered in `app`; this one is only the door."""

from __future__ import annotations

import sys

from llmcache_plugins.cli.support import Exit

__all__ = ["main"]


def main() -> None:
    """Run the command; never returns. Exit codes: 0 fine, 1 findings, 2 usage, 130 interrupted."""
    try:
        from llmcache_plugins.cli.app import app
    except ImportError as error:
        sys.stderr.write(f"llmcache: {error}\n")
        sys.exit(Exit.USAGE)
    app()
