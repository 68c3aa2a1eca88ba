"""Starts the real binary on the model that ships, on a port of the system's choice; asks it, and waits for what it does.

MULTIVERSE_TEST_LONG=1: tests that have one run their long form."""

import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BINARY = ROOT / "build/release/multiverse"
MODEL = ROOT / "models/multiverse-tiny"
LONG = os.environ.get("MULTIVERSE_TEST_LONG") == "1"
ENDLESS = {"prompt": "Compute", "max_tokens": 1900, "ignore_eos": True, "multiverse": {"mode": "off"}}
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


def get(url, key=None):
    """Status and body."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"} if key else {})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def post(url, body, **headers):
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json", **headers})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def wait_until(condition, seconds):
    """Whether it came true in that time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


def free_ports(count):
    """Different ones; nobody listens on them now."""
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def metric(server, name):
    """The sum over the family's samples."""
    page = get(f"{server.url}/metrics")[1]
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", page, re.M))


def request_of(body):
    text = json.dumps(body)
    return f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode()


def read_all(client):
    received = b""
    while b"\r\n0\r\n\r\n" not in received[-16:] and (piece := client.recv(65536)):
        received += piece
    return received


def text_of(stream):
    events = [json.loads(event) for event in re.findall(rb"^data: (\{.*\})\r?$", stream, re.M)]
    return "".join(choice["text"] for event in events for choice in event.get("choices", []))
