"""Cases of docs/reliability.md about networks that fail: a client in a network namespace, whose link goes down.

Needs root and the kernel's veth and tun; skipped without. MULTIVERSE_TEST_LONG=1 waits for peers that vanished."""

import ctypes
import fcntl
import heapq
import os
import random
import select
import shutil
import socket
import struct
import subprocess
import threading
import time

import pytest
from running import ENDLESS, LONG, get, metric, read_all, request_of, text_of, wait_until

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

    def close(self):
        subprocess.run(["ip", "netns", "del", self.name], capture_output=True)

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


class BadNetwork(Network):
    """Two ends of a line that delays, loses and doubles packets, as the kernel's netem would: it is this process."""

    def __init__(self, delay, loss, doubled, seed):
        super().__init__()
        self.delay, self.loss, self.doubled = delay, loss, doubled
        self.dice = random.Random(seed)
        self.ends, self.closing, self.carrier = [], threading.Event(), threading.Thread(target=self.carry)
        self.passed = self.lost = 0

    def tunnel(self, name):
        end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        self.ends.append(end)
        set_interface, tun_without_header = 0x400454CA, 0x1001
        fcntl.ioctl(end, set_interface, struct.pack("16sH22x", name.encode(), tun_without_header))

    def make(self):
        self.ip("netns", "add", self.name)
        self.tunnel(self.near)
        self.tunnel(self.far)
        self.ip("link", "set", self.far, "netns", self.name)
        for inside, end, address in ((False, self.near, SERVER), (True, self.far, CLIENT)):
            self.ip("address", "add", f"{address}/30", "dev", end, inside=inside)
            self.ip("link", "set", end, "up", inside=inside)
        self.carrier.start()

    def carry(self):
        due, number = [], 0
        while not self.closing.is_set():
            wait = min(0.05, max(0.0, due[0][0] - time.monotonic())) if due else 0.05
            for end in select.select(self.ends, [], [], wait)[0]:
                packet, other = os.read(end, 65536), self.ends[1 - self.ends.index(end)]
                copies = 0 if self.dice.random() < self.loss else 2 if self.dice.random() < self.doubled else 1
                self.lost += copies == 0
                for _ in range(copies):
                    number += 1
                    heapq.heappush(due, (time.monotonic() + self.delay, number, other, packet))
            while due and due[0][0] <= time.monotonic():
                _, _, other, packet = heapq.heappop(due)
                try:
                    os.write(other, packet)
                    self.passed += 1
                except OSError:  # down, or full: one more lost packet
                    self.lost += 1

    def close(self):
        self.closing.set()
        if self.carrier.ident is not None:
            self.carrier.join()
        for end in self.ends:
            os.close(end)
        super().close()


def made(network):
    if not shutil.which("ip"):
        pytest.skip("ip isn't installed")
    try:
        network.make()
    except (subprocess.CalledProcessError, OSError) as error:
        network.close()
        reason = error.stderr.decode().strip() if isinstance(error, subprocess.CalledProcessError) else error
        pytest.skip(f"no network namespace can be made: {reason}")
    return network


@pytest.fixture
def network():
    one = made(Network())
    yield one
    one.close()


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


# F-2: delay, loss, packets twice
def test_streams_and_cancels_get_through_a_bad_line(fresh_server):
    server = fresh_server("--host", "0.0.0.0")
    seed = 20261124
    body = ENDLESS | {"stream": True, "seed": 3, "max_tokens": 200}
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.settimeout(60)
        client.sendall(request_of(body))
        undisturbed = text_of(read_all(client))
    line = made(BadNetwork(delay=0.2 if LONG else 0.02, loss=0.05, doubled=0.01, seed=seed))
    try:
        begin = time.monotonic()
        clients = [line.connect(server.port) for _ in range(4)]
        for client in clients:
            client.sendall(request_of(body))
        for client in clients:
            assert text_of(read_all(client)) == undisturbed != ""
            client.close()
        with line.connect(server.port) as client:
            client.sendall(request_of(ENDLESS | {"stream": True, "n": 8}))
            client.recv(100)
        left = time.monotonic()
        # By way of this machine: a scrape should not wait for the bad line.
        assert wait_until(lambda: 'requests_in_flight{model_name="multiverse-tiny"} 0' in get(f"http://127.0.0.1:{server.port}/metrics")[1], 60)
        print(f"{line.passed} packets passed, {line.lost} lost, {left - begin:.1f} s for all; a cancel took {time.monotonic() - left:.1f} s (seed {seed})")
    finally:
        line.close()


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
