"""Our own server as a child process, on a port of the system's choice."""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BINARY = ROOT / "build/release/multiverse"
TINY = ROOT / "models/multiverse-tiny"
_READY = re.compile(r"serving (?P<name>\S+) on (?P<url>http://\S+) \(ready")


class ServerError(Exception):
    pass


class LocalServer:
    """Ready once constructed; a context manager that stops it. `log` takes its standard error. `command`: another server, which says
    that it is ready as ours does."""

    def __init__(self, log: Path, *options: str, model: Path = TINY, binary: Path = BINARY, command: list[str] | None = None):
        if command is None and not binary.exists():
            raise ServerError(f"{binary} is not built; scripts/build release multiverse builds it")
        log.parent.mkdir(parents=True, exist_ok=True)
        command = command or [str(binary), "serve", "--model", str(model), "--port", "0", *options]
        with open(log, "w") as errors:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        ready = _READY.search(self.process.stdout.readline())
        if not ready:
            self.process.kill()
            self.process.wait()
            raise ServerError(f"`{' '.join(command)}` did not become ready; {log} says:\n{log.read_text()[-2000:]}")
        self.name, self.url = ready["name"], ready["url"]

    def __enter__(self) -> LocalServer:
        return self

    def __exit__(self, *_) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
