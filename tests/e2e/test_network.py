"""Cases of docs/reliability.md about networks that fail: a client in a network namespace, whose link goes down.

Needs root and the kernel's veth; skipped without. MULTIVERSE_TEST_LONG=1 waits for peers that vanished."""

import ctypes
import os
import shutil
import socket
import subprocess
import time

import pytest
from running import ENDLESS, LONG, metric, read_all, request_of, text_of, wait_until

# Of the range for benchmarks; other runs on this machine take others.
SERVER, CLIENT = (f"198.18.{os.getpid() % 256}.{host}" for host in (1, 2))


class Network:
    """Two ends of a cable; the clients' is in a namespace of its own."""

    def __init__(self):
        self.name = f"mv{os.getpid()}"
        self.near, self.far = f"{self.name}a", f"{self.name}b"

    def ip(self, *words, inside=False):
        subprocess.run(["ip", *(["-n", self.name] if inside else []), *words], check=True, capture_output=True)

    def make(self):
        self.ip("netns", "add", self.name)
        self.ip("link", "add", self.near, "type", "veth", "peer", "name", self.far, "netns", self.name)
        self.ip("address", "add", f"{SERVER}/30", "dev", self.near)
        self.ip("link", "set", self.near, "up")
        self.ip("address", "add", f"{CLIENT}/30", "dev", self.far, inside=True)
        self.plug(True)

    def plug(self, plugged):
        self.ip("link", "set", self.far, "up" if plugged else "down", inside=True)

    def connect(self, port):
        """A socket of the namespace; the thread is in there only while it is made."""
        libc = ctypes.CDLL(None, use_errno=True)
        with open("/proc/thread-self/ns/net") as own, open(f"/var/run/netns/{self.name}") as theirs:
            assert libc.setns(theirs.fileno(), 0) == 0, os.strerror(ctypes.get_errno())
            try:
                client = socket.socket()
            finally:
                assert libc.setns(own.fileno(), 0) == 0, os.strerror(ctypes.get_errno())
        client.settimeout(60)
        client.connect((SERVER, port))
        return client


@pytest.fixture
def network():
    if not shutil.which("ip"):
        pytest.skip("ip isn't installed")
    made = Network()
    try:
        try:
            made.make()
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespace can be made: {error.stderr.decode().strip()}")
        yield made
    finally:
        subprocess.run(["ip", "netns", "del", made.name], capture_output=True)


# F-2: a partition that heals
def test_a_stream_goes_on_after_a_partition(network, fresh_server):
    server = fresh_server("--host", SERVER)
    body = ENDLESS | {"stream": True, "seed": 3, "max_tokens": 600}
    with network.connect(server.port) as client:
        client.sendall(request_of(body))
        undisturbed = text_of(read_all(client))
    with network.connect(server.port) as client:
        client.sendall(request_of(body))
        received = client.recv(100)
        network.plug(False)
        time.sleep(20 if LONG else 1)
        network.plug(True)
        received += read_all(client)
    assert text_of(received) == undisturbed != ""


# C-3
@pytest.mark.skipif(not LONG, reason="takes a minute of waiting: MULTIVERSE_TEST_LONG=1")
def test_peers_that_vanish_are_let_go(network, fresh_server):
    server = fresh_server("--host", SERVER)
    idle, streaming = network.connect(server.port), network.connect(server.port)
    idle.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
    assert idle.recv(100).startswith(b"HTTP/1.1 200")
    streaming.sendall(request_of(ENDLESS | {"stream": True, "n": 8}))
    streaming.recv(100)
    network.plug(False)
    left = time.monotonic()
    # The scrape's own connection may stay.
    for seconds, what, gone in (
        (40, "stream", lambda: metric(server, "multiverse_requests_in_flight") == 0),
        (70, "idle connection", lambda: metric(server, "multiverse_http_connections") <= 1),
    ):
        assert wait_until(gone, seconds), what
        print(f"{what} let go after {time.monotonic() - left:.1f} s")
    assert metric(server, "multiverse_requests_aborted_total") == 1
