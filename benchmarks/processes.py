"""Processes of the benchmarks' own, each with a pipe.

They are spawned, and gone when their block ends, however it ends. A process that was stopped is killed too,
and one whose parent was killed ends by itself. Ctrl-C is the parent's business.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess

_END_SECONDS = 10.0


class ChildFailedError(Exception):
    """A process failed, died, or did not say anything in time."""


@dataclass(frozen=True, slots=True)
class _Failure:
    text: str


@dataclass(frozen=True, slots=True)
class Child:
    """A running process."""

    process: SpawnProcess
    connection: Connection

    @property
    def pid(self) -> int:
        """What the system knows it by."""
        return self.process.pid or 0

    def send(self, message: object) -> None:
        """Tell it something."""
        self.connection.send(message)

    def receive(self, *, timeout: float) -> Any:
        """Return its next message. Raises `ChildFailedError`."""
        if not self.connection.poll(timeout):
            raise ChildFailedError(f"process {self.pid} said nothing within {timeout:g} s")
        try:
            message = self.connection.recv()
        except (EOFError, ConnectionResetError):
            raise ChildFailedError(f"process {self.pid} has ended") from None
        if isinstance(message, _Failure):
            raise ChildFailedError(message.text)
        return message

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, and wait until a SIGSTOP or SIGKILL has had its effect."""
        os.kill(self.pid, number)
        if number == signal.SIGKILL:
            self.process.join(_END_SECONDS)
        elif number == signal.SIGSTOP:
            os.waitpid(self.pid, os.WUNTRACED)


@contextlib.contextmanager
def child(target: Callable[..., None], *arguments: object) -> Iterator[Child]:
    """Run `target(connection, *arguments)` in a process of its own; what it raises, `receive` raises."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_live, args=(theirs, target, arguments), daemon=True)
    with ours:
        with theirs:
            process.start()
        try:
            yield Child(process, ours)
        finally:
            # Not terminate(): a process that is stopped would never see it.
            process.kill()
            process.join(_END_SECONDS)


def sleep_until(moment: float) -> None:
    """Sleep until a time of `time.monotonic()`, which all processes of a machine share."""
    time.sleep(max(0.0, moment - time.monotonic()))


def _live(connection: Connection, target: Callable[..., None], arguments: tuple[object, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Everything here is on this machine; a proxy from the environment must not be asked for it.
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"
    try:
        target(connection, *arguments)
    except (EOFError, BrokenPipeError):
        return
    except BaseException as error:  # noqa: BLE001 - whatever it is, the parent says it
        connection.send(_Failure(f"{type(error).__name__}: {error}"))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
