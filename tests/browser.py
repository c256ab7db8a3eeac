"""A real browser that looks at a file: what it makes of it, what it complains of, and what it asks for.

Owns how Chromium is found and started, and how its screenshot is read. Knows nothing of what is looked at.
"""

from __future__ import annotations

import json
import re
import shutil
import struct
import subprocess
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections import Counter
    from pathlib import Path

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--force-device-scale-factor=1",
    # It has questions of its own to its maker: nobody is to be asked.
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--enable-logging=stderr",
)
_ITS_OWN = "not an origin"
"""The initiator of requests that are the browser's and no page's."""


@dataclass(frozen=True)
class Look:
    """What there was to see."""

    dom: str
    console: list[str]
    """What the page has said, errors and refusals among it."""
    asked_for: list[str]
    """Addresses that the page has asked for, beside itself."""
    screenshot: Path


def browser() -> str:
    """Return the path of a browser; skip the test, saying so, where there is none."""
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(_NAMES)} is on PATH (apt-get install chromium)")
    return found


def look_at(page: Path, folder: Path, *, dark: bool = False, size: str = "640,1600") -> Look:
    """Open a file, and say what came of it."""
    net_log, screenshot = folder / "net.json", folder / f"{page.stem}.png"
    base = [browser(), *_FLAGS, f"--window-size={size}", *(["--force-dark-mode"] if dark else [])]
    dumped = _run([*base, f"--log-net-log={net_log}", "--dump-dom"], page, folder / "profile-1")
    _run([*base, f"--screenshot={screenshot}"], page, folder / "profile-2")
    said = re.findall(r":CONSOLE[^]]*\] (.*)", dumped.stderr)
    return Look(dom=dumped.stdout, console=said, asked_for=_asked_for(net_log), screenshot=screenshot)


def _run(command: list[str], page: Path, profile: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*command, f"--user-data-dir={profile}", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )


def _asked_for(net_log: Path) -> list[str]:
    events: list[dict[str, Any]] = json.loads(net_log.read_text("utf-8"))["events"]
    asked = [event.get("params", {}) for event in events]
    return [one["url"] for one in asked if "url" in one and one.get("initiator", _ITS_OWN) != _ITS_OWN]


def colours_of(png: Path) -> Counter[tuple[int, int, int]]:
    """Return how many pixels of a screenshot have which colour: PNG (RFC 2083), 8 bits, not interlaced."""
    from collections import Counter

    data = png.read_bytes()
    width, height, depth, kind = struct.unpack(">IIBB", data[16:26])
    assert (depth, kind) in ((8, 2), (8, 6))
    step = 3 if kind == 2 else 4
    raw = zlib.decompress(b"".join(_chunks(data, b"IDAT")))
    counted: Counter[tuple[int, int, int]] = Counter()
    above = bytearray(width * step)
    for row in range(height):
        begin = row * (width * step + 1)
        above = _unfiltered(raw[begin], raw[begin + 1 : begin + 1 + width * step], above, step)
        counted.update(zip(above[0::step], above[1::step], above[2::step], strict=True))
    return counted


def _chunks(data: bytes, wanted: bytes) -> list[bytes]:
    found, place = [], 8
    while place < len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        if data[place + 4 : place + 8] == wanted:
            found.append(data[place + 8 : place + 8 + length])
        place += length + 12
    return found


def _unfiltered(kind: int, line: bytes, above: bytearray, step: int) -> bytearray:
    done = bytearray(line)
    if kind == 0:
        return done
    for place in range(len(done)):
        left = done[place - step] if place >= step else 0
        up = above[place]
        corner = above[place - step] if place >= step else 0
        nearest = min((left, up, corner), key=lambda one: abs(left + up - corner - one))
        done[place] = (done[place] + (0, left, up, (left + up) // 2, nearest)[kind]) & 255
    return done
