"""curl and plain sockets against the real binary: status lines, headers, drain, starts that fail."""

import json
import re
import signal
import socket
import subprocess
import time

import pytest
from running import BINARY, MODEL, wait_until

QUESTION = (
    "A question: Give the results of 7972 times 16, 971 times 69, 294 times 49, 653 times 26, 624 times 51 and "
    "5628 times 78."
)
CHAT = {"messages": [{"role": "user", "content": QUESTION}], "temperature": 0}


def curl(*arguments, body=None):
    """Status, headers in lower case, body."""
    command = ["curl", "-sS", "-i", "--max-time", "60", *arguments]
    if body is not None:
        command += ["-H", "Content-Type: application/json", "--data-binary", "@-"]
    text = body if isinstance(body, (str, type(None))) else json.dumps(body)
    # Bytes: text mode would turn CRLF into LF.
    done = subprocess.run(command, input=(text or "").encode(), capture_output=True, check=True)
    head, _, rest = done.stdout.decode().partition("\r\n\r\n")
    while head.split(" ")[1].startswith("1"):  # interim answers
        head, _, rest = rest.partition("\r\n\r\n")
    lines = head.split("\r\n")
    fields = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines[1:])}
    return int(lines[0].split(" ")[1]), fields, rest


def metric(server, line_start):
    _, _, page = curl(f"{server.url}/metrics")
    found = re.search(rf"^{re.escape(line_start)}.*}} (\S+)$", page, re.MULTILINE)
    return float(found[1]) if found else None


def test_health(server):
    for path in ("/livez", "/readyz", "/health", "/version"):
        assert curl(server.url + path)[0] == 200


def test_stream_on_the_wire(server):
    status, fields, body = curl("-N", f"{server.url}/v1/chat/completions", body=CHAT | {"stream": True})
    assert status == 200
    assert fields["content-type"] == "text/event-stream; charset=utf-8"
    assert fields["cache-control"] == "no-cache"
    assert fields["x-accel-buffering"] == "no"
    events = [event for event in body.split("\n\n") if event]
    assert events[-1] == "data: [DONE]"
    for event in events[:-1]:
        assert event == ": ping" or json.loads(event.removeprefix("data: "))["object"] == "chat.completion.chunk"


def test_errors(server):
    url = server.url
    cases = [
        (404, [f"{url}/nothing"], None),
        (405, [f"{url}/v1/completions"], None),
        (415, [f"{url}/v1/completions", "-d", "x"], None),
        (400, [f"{url}/v1/completions"], "{"),
        (400, [f"{url}/v1/completions"], {"prompt": "x", "n": 0}),
        (413, [f"{url}/v1/completions"], "x" * (9 * 1024 * 1024)),
    ]
    for wanted, arguments, body in cases:
        status, _, text = curl(*arguments, body=body)
        assert status == wanted
        assert set(json.loads(text)["error"]) == {"message", "type", "param", "code"}


def test_render_and_tokenize(server):
    messages = [{"role": "user", "content": "<Path> 1+1"}]
    status, _, text = curl(f"{server.url}/v1/chat/completions/render", body={"messages": messages})
    assert status == 200
    rendered = json.loads(text)
    assert "<Path> 1+1" in rendered["prompt"]
    status, _, text = curl(f"{server.url}/tokenize", body={"messages": messages})
    assert json.loads(text)["tokens"] == rendered["prompt_token_ids"]
    status, _, text = curl(f"{server.url}/detokenize", body={"tokens": rendered["prompt_token_ids"]})
    assert json.loads(text)["prompt"] == rendered["prompt"]


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_its_pages(server, stream):
    def used():
        return metric(server, 'multiverse_kv_blocks{model_name="multiverse-tiny",state="used"')

    assert wait_until(lambda: used() == 0, 20)
    body = json.dumps(CHAT | {"stream": stream, "ignore_eos": True, "n": 4, "multiverse": {"mode": "off"}})
    for _ in range(10):
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
            client.sendall((head + body).encode())
            assert wait_until(lambda: metric(server, "multiverse_requests_running{") > 0, 20)
    assert wait_until(lambda: metric(server, "multiverse_requests_running{") == 0, 5)
    assert used() == 0


def open_streams(server, count, **options):
    """Streams that have begun to answer, and what each has said so far."""
    body = json.dumps(CHAT | {"stream": True, "ignore_eos": True, "multiverse": {"mode": "off"}} | options)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    clients = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(count)]
    for client in clients:
        client.settimeout(300)
        client.sendall((head + body).encode())
    return clients, [client.recv(1024) for client in clients]


def read_to_the_end(client):
    received = b""
    while part := client.recv(65536):
        received += part
    return received


def terminate(server):
    """Tells it to stop, and returns once it says that it does, with the seconds that took."""
    told = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    assert wait_until(lambda: curl(f"{server.url}/readyz")[0] == 503, 30)
    return time.monotonic() - told


# D-1
def test_drain(fresh_server):
    server = fresh_server("--drain-timeout-seconds", "300")  # a busy machine is slow
    clients, received = open_streams(server, 32, max_tokens=300)
    print(f"not ready {terminate(server) * 1e3:.0f} ms after SIGTERM, curl's start included")
    status, fields, _ = curl(f"{server.url}/v1/chat/completions", body=CHAT)
    assert status == 503 and fields["retry-after"]
    for client, begin in zip(clients, received):
        assert b"data: [DONE]" in begin + read_to_the_end(client)
        client.close()
    assert server.process.wait(30) == 0


# D-2
def test_a_second_signal_ends_at_once(fresh_server):
    server = fresh_server()
    [client], [received] = open_streams(server, 1, n=8)
    terminate(server)
    told = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(30) == 0
    print(f"ended {time.monotonic() - told:.1f} s after the second SIGTERM; wanted <= 2")
    try:
        received += read_to_the_end(client)
    except ConnectionError:
        pass
    client.close()
    assert b"[DONE]" not in received


@pytest.mark.parametrize(
    "options",
    [
        ["--model", "/nowhere"],
        ["--model", str(MODEL), "--port", "99999"],
        ["--model", str(MODEL), "--no-such-option", "1"],
        ["--model", str(MODEL), "--max-rows", "many"],
        ["--model", str(MODEL), "--api-key-file", "/nowhere"],
        ["--model", str(MODEL), "--host", "no such host"],
    ],
)
def test_a_start_that_fails_says_why_in_one_line(options):
    if not BINARY.exists():
        pytest.skip(f"{BINARY} is not built")
    done = subprocess.run([BINARY, "serve", *options], capture_output=True, text=True, timeout=5)
    assert done.returncode != 0
    assert done.stdout == ""
    assert len(done.stderr.strip().split("\n")) == 1, done.stderr


def test_a_port_in_use(server):
    done = subprocess.run(
        [BINARY, "serve", "--model", MODEL, "--port", str(server.port)], capture_output=True, text=True, timeout=5
    )
    assert done.returncode != 0
    assert "in use" in done.stderr


def test_commands():
    if not BINARY.exists():
        pytest.skip(f"{BINARY} is not built")
    assert "serve" in subprocess.run([BINARY, "--help"], capture_output=True, text=True, check=True).stdout
    assert subprocess.run([BINARY, "--version"], capture_output=True, text=True, check=True).stdout
    unknown = subprocess.run([BINARY, "fly"], capture_output=True, text=True)
    assert unknown.returncode == 2
    assert "serve" in unknown.stderr
