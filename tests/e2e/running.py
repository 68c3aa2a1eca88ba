"""Starts the real binary on the model that ships, on a port of the system's choice."""

import re
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BINARY = ROOT / "build/release/multiverse"
MODEL = ROOT / "models/multiverse-tiny"
READY = re.compile(r"^multiverse: serving (\S+) on (http://\S+:(\d+)) \(ready in [\d.]+ s\)$")


@dataclass
class Server:
    process: subprocess.Popen
    name: str
    url: str
    port: int
    log: Path

    def stop(self, timeout=30):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout)


def start_server(log, *options):
    """Returns once the server says that it is ready. `log` takes its standard error."""
    if not BINARY.exists():
        pytest.skip(f"{BINARY} is not built: cmake --preset release && cmake --build --preset release")
    command = [str(BINARY), "serve", "--model", str(MODEL), "--port", "0", *options]
    with open(log, "w") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
    line = process.stdout.readline()
    ready = READY.match(line.strip())
    if not ready:
        process.kill()
        raise AssertionError(f"no ready line but {line!r}; standard error:\n{log.read_text()}")
    return Server(process, ready[1], ready[2], int(ready[3]), log)
