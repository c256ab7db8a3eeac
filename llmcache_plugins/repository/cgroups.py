"""The memory limit of a process on this machine, as its control groups have it. Linux only.

In a container the RAM that a server reports is the host's; what it may use is less.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["memory_limit", "runs_here"]

_PROGRAMS = ("redis", "valkey")
# Which file has the limit, by the kind of hierarchy: version 2, version 1.
_FILES = {"": ("", "memory.max"), "memory": ("memory", "memory.limit_in_bytes")}
_NO_LIMIT = 2**60
"""Version 1 says so with a number near 2^63."""


def runs_here(pid: int, *, proc: Path = Path("/proc")) -> bool:
    """Say whether this is the id of a server here; that of a container's process is another one here."""
    try:
        return (proc / str(pid) / "comm").read_text().startswith(_PROGRAMS)
    except OSError:
        return False


def memory_limit(
    pid: int, *, proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")
) -> int | None:
    """Return the least limit (bytes) of the process's groups and of those above them; None without one."""
    try:
        lines = (proc / str(pid) / "cgroup").read_text().splitlines()
    except OSError:
        return None
    limits = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        hierarchy, name = _FILES.get(
            "memory" if "memory" in controllers.split(",") else controllers, ("", "")
        )
        if name:
            limits += _limits(groups / hierarchy, path, name)
    return min(limits, default=None)


def _limits(root: Path, path: str, name: str) -> list[int]:
    inner = Path(path.lstrip("/"))
    read = (_limit(root / group / name) for group in (inner, *inner.parents))
    return [limit for limit in read if limit is not None]


def _limit(file: Path) -> int | None:
    try:
        limit = int(file.read_text())
    except (OSError, ValueError):  # no such file, or "max"
        return None
    return limit if limit < _NO_LIMIT else None
