"""Programs under Python's development mode, where every warning is an error: whether they end in silence.

Owns the options and what does not count as a complaint. Knows nothing of what the programs do.
"""

from __future__ import annotations

DEVMODE = ("-X", "dev", "-W", "error")


def complaints_of(stderr: str) -> list[str]:
    """Return the lines of stderr, but for what asyncio's debug mode says of a busy machine."""
    return [line for line in stderr.splitlines() if not (line.startswith("Executing <") and " took " in line)]
