"""Runs a command with the URL of a real server behind it: `python tests/with_server.py COMMAND ...`.

For commands that run in an environment where no server is installed. Owns the server's life; ends as the
command ends.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from servers import valkey_server

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory, valkey_server(Path(directory)) as server:
        sys.exit(subprocess.run([*sys.argv[1:], server.url], check=False).returncode)
