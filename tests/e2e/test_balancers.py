"""Three replicas behind HAProxy and nginx with the files of deploy/: streams, health, drain, retries, cancels."""

import http.client
import json
import re
import shutil
import socket
import subprocess
import threading
import time

import pytest
from running import ROOT, free_ports, start_server, wait_until

FILES = {"haproxy": "deploy/haproxy/haproxy.cfg", "nginx": "deploy/nginx/nginx.conf"}
QUESTION = {"messages": [{"role": "user", "content": "Compute 84*23."}], "max_tokens": 24, "temperature": 0}
LONG = {"max_tokens": 700, "ignore_eos": True, "multiverse": {"mode": "off"}}


class Replicas:
    def __init__(self, folder):
        self.folder = folder
        self.ports = free_ports(3)
        self.servers = [self.start(number) for number in range(3)]

    def start(self, number):
        log = self.folder / f"replica{number}-{time.monotonic_ns()}"
        return start_server(log, "--port", str(self.ports[number]), "--threads", "1", "--drain-timeout-seconds", "20")

    def restart(self, number):
        assert self.servers[number].stop() == 0
        self.servers[number] = self.start(number)

    def metric(self, number, line_start):
        page = ask(self.ports[number], "GET", "/metrics")[1]
        found = re.search(rf"^{re.escape(line_start)}.*}} (\S+)$", page, re.M)
        return float(found[1]) if found else 0.0


@pytest.fixture(scope="module")
def replicas(tmp_path_factory):
    three = Replicas(tmp_path_factory.mktemp("replicas"))
    yield three
    for server in three.servers:
        assert server.stop() == 0


@pytest.fixture(scope="module", params=list(FILES))
def balancer(request, replicas, tmp_path_factory):
    """The port of a load balancer that runs the shipped file, its ports replaced by ours."""
    name = request.param
    if shutil.which(name) is None and shutil.which(f"/usr/sbin/{name}") is None:
        pytest.skip(f"{name} is not installed (Debian package {'nginx-light' if name == 'nginx' else name})")
    folder = tmp_path_factory.mktemp(name)
    folder.chmod(0o755)
    text = (ROOT / FILES[name]).read_text()
    (port,) = free_ports(1)
    for shipped, ours in [(8080, port), (8001, replicas.ports[0]), (8002, replicas.ports[1]), (8003, replicas.ports[2])]:
        assert f":{shipped}" in text
        text = text.replace(f":{shipped}", f":{ours}")
    file = folder / "config"
    file.write_text(text)
    program = f"/usr/sbin/{name}"
    if name == "haproxy":
        command, check = [program, "-db", "-f", str(file)], [program, "-c", "-f", str(file)]
    else:
        command = [program, "-p", str(folder), "-e", str(folder / "errors"), "-c", str(file)]
        command += ["-g", f"daemon off; pid {folder}/pid;"]
        check = [*command, "-t"]
    checked = subprocess.run(check, capture_output=True, text=True)
    assert checked.returncode == 0 and "WARNING" not in checked.stderr, checked.stderr
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        assert wait_until(lambda: status_of(port) == 200, 20), (folder / "log").read_text()
        yield port
    finally:
        process.terminate()
        process.wait(20)


def ask(port, method, path, body=None, headers=None):
    """Status, body, headers; one connection each."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        head = {"Content-Type": "application/json", **(headers or {})}
        connection.request(method, path, json.dumps(body) if body is not None else None, head)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), answer.headers
    finally:
        connection.close()


def status_of(port):
    try:
        return ask(port, "GET", "/readyz")[0]
    except OSError:
        return 0


def chat(port, stream, **headers):
    return ask(port, "POST", "/v1/chat/completions", QUESTION | {"stream": stream}, headers)


def test_streams_are_passed_on_as_they_come(balancer):
    with socket.create_connection(("127.0.0.1", balancer)) as client:
        client.settimeout(30)
        body = json.dumps(QUESTION | LONG | {"stream": True, "n": 2})
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        begin = time.monotonic()
        client.sendall((head + body).encode())
        received, first = b"", None
        while b"data: [DONE]" not in received:
            piece = client.recv(65536)
            assert piece, received
            received += piece
            if first is None and b'"content"' in received:
                first = time.monotonic() - begin
    assert first < 0.5 * (time.monotonic() - begin)  # not held back until it was whole
    assert b"text/event-stream" in received


def test_affinity_and_least_load(balancer, replicas):
    def served():
        line = 'multiverse_http_requests_total{model_name="multiverse-tiny",route="/tokenize"'
        return [replicas.metric(number, line) for number in range(3)]

    def spread(headers):
        """How many of 12 requests each replica had. One after the other on one connection: a balancer that still counts
        an answered request as running gives the next one away, and does so where a new connection overtakes it."""
        before, counts = served(), []
        connection = http.client.HTTPConnection("127.0.0.1", balancer, timeout=60)
        for number in range(12):
            fields = {"Content-Type": "application/json", **headers(number)}
            connection.request("POST", "/tokenize", json.dumps({"prompt": "a"}), fields)
            answer = connection.getresponse()
            assert answer.read() and answer.status == 200
        connection.close()

        def all_counted():  # a replica counts a request once its answer is written
            counts[:] = [int(after - earlier) for after, earlier in zip(served(), before)]
            return sum(counts) >= 12

        assert wait_until(all_counted, 20)
        return counts

    assert sorted(spread(lambda _: {"X-Affinity-Key": "one"})) == [0, 0, 12]
    assert sum(spread(lambda number: {"X-Affinity-Key": f"key {number}"})) == 12
    without = spread(lambda _: {})
    assert sum(without) == 12 and min(without) > 0


def test_metrics_stay_inside(balancer):
    assert ask(balancer, "GET", "/metrics")[0] == 404


def test_a_client_that_leaves_ends_its_request_on_the_replica(balancer, replicas):
    def running():
        return sum(replicas.metric(number, "multiverse_requests_running{") for number in range(3))

    for stream in (True, False):
        body = json.dumps(QUESTION | LONG | {"stream": stream, "n": 8})
        with socket.create_connection(("127.0.0.1", balancer)) as client:
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
            client.sendall((head + body).encode())
            assert wait_until(lambda: running() > 0, 20)
        left = time.monotonic()
        assert wait_until(lambda: running() == 0, 20)
        print(f"ended {time.monotonic() - left:.1f} s after the client left; wanted <= 2")


def test_smuggling_gets_no_second_request_through(balancer):
    body = "0\r\n\r\nGET /readyz HTTP/1.1\r\nHost: x\r\n\r\n"
    for fields in ["Content-Length: 5\r\nTransfer-Encoding: chunked", "Content-Length: 5\r\nContent-Length: 6",
                   "Transfer-Encoding : chunked", "Transfer-Encoding: xchunked"]:
        with socket.create_connection(("127.0.0.1", balancer)) as client:
            client.settimeout(5)
            client.sendall(f"POST /tokenize HTTP/1.1\r\nHost: x\r\n{fields}\r\n\r\n{body}".encode())
            client.shutdown(socket.SHUT_WR)
            received = b""
            while piece := client.recv(65536):
                received += piece
        statuses = re.findall(rb"^HTTP/1\.[01] (\d+)", received, re.M)
        assert b"200" not in statuses[:1] and b'"ready"' not in received, (fields, received)


def test_rolling_restart_under_load_loses_no_request(balancer, replicas):
    """Clients that never try again, while each replica is told to stop and started anew."""
    stop, failures, done = threading.Event(), [], [0] * 6

    def client(number):
        while not stop.is_set():
            stream = number % 2 == 0
            try:
                status, text, _ = chat(balancer, stream)
                whole = text.endswith("data: [DONE]\n\n") if stream else '"finish_reason"' in text
                if status != 200 or not whole or '"error"' in text:
                    failures.append((status, text[-300:]))
            except (OSError, http.client.HTTPException) as error:
                failures.append(repr(error))
            done[number] += 1

    clients = [threading.Thread(target=client, args=(number,)) for number in range(len(done))]
    for thread in clients:
        thread.start()
    try:
        for number in range(3):
            before = sum(done)
            replicas.restart(number)
            assert wait_until(lambda: sum(done) >= before + 6, 20)
    finally:
        stop.set()
        for thread in clients:
            thread.join()
    assert not failures, (len(failures), failures[:3])
    assert min(done) > 0
