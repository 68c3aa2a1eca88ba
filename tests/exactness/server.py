"""Starts the real server on a model and stops it again."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.exactness.client import Client
from tests.exactness.models import ROOT

BINARY = Path(os.environ.get("MULTIVERSE_BINARY", ROOT / "build" / "release" / "multiverse"))
START_SECONDS = 120.0
STOP_SECONDS = 30.0
_READY = re.compile(r"multiverse: serving .* on (http://\S+) \(ready in ")


@contextlib.contextmanager
def running_server(model_dir: Path, options: Sequence[str] = ()) -> Iterator[Client]:
    """A server on a free port. What it printed is part of the error where it doesn't come up or doesn't end well."""
    command = [str(BINARY), "serve", "--model", str(model_dir), "--port", "0", "--device", "cpu", "--dtype", "float32"]
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen([*command, *options], stdout=output, stderr=subprocess.STDOUT)
        try:
            yield Client(_wait_until_ready(process, output))
            if process.poll() is not None:
                raise AssertionError(f"the server ended by itself (status {process.returncode}):\n{_tail(output)}")
        finally:
            status = _stop(process)
        if status != 0:
            raise AssertionError(f"the server ended with status {status} after SIGTERM:\n{_tail(output)}")


def _wait_until_ready(process: subprocess.Popen, output) -> str:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if match := _READY.search(_read(output)):
            return match[1]
        if process.poll() is not None:
            raise AssertionError(f"the server did not start (status {process.returncode}):\n{_tail(output)}")
        time.sleep(0.05)
    raise AssertionError(f"the server was not ready after {START_SECONDS:.0f} s:\n{_tail(output)}")


def _stop(process: subprocess.Popen) -> int:
    if process.poll() is None:
        process.terminate()
    try:
        return process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _read(output) -> str:
    # The server writes through its own descriptor of the same open file: reading by offset leaves its place alone.
    return os.pread(output.fileno(), 1 << 20, 0).decode(errors="replace")


def _tail(output, lines: int = 40) -> str:
    return "\n".join(_read(output).splitlines()[-lines:])
