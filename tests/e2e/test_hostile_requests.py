"""Bytes that no well-behaved client sends, to the real binary: each gets its answer in OpenAI's shape, at once, and the
server goes on. The parser's own cases are in tests/http and tests/api."""

import gzip
import json
import os
import re
import socket

import pytest
from running import get, wait_until

BODY = {"prompt": "a", "max_tokens": 1}
TEXTS = "/v1/completions"


def request(body, fields="Connection: close\r\n", content_type="application/json", version="1.1", host="Host: x\r\n"):
    if isinstance(body, dict):
        body = json.dumps(body)
    data = body if isinstance(body, bytes) else body.encode()
    head = f"POST {TEXTS} HTTP/{version}\r\n{host}Content-Type: {content_type}\r\n{fields}Content-Length: {len(data)}\r\n\r\n"
    return head.encode() + data


def line(text, fields="Host: x\r\nConnection: close\r\n"):
    return f"{text}\r\n{fields}\r\n".encode()


CASES = {
    "NUL in the body": (400, request(b'{"prompt":"a\0b"}')),
    "NUL, escaped": (200, request('{"prompt":"a\\u0000b","max_tokens":1}')),
    "10,000 levels": (400, request('{"prompt":' + "[" * 10_000 + "]" * 10_000 + "}")),
    "10,000 levels, open": (400, request("[" * 10_000)),
    "100,000 biases": (400, request(BODY | {"logit_bias": {str(token): 1 for token in range(100_000)}})),
    "1,025 biases": (400, request(BODY | {"logit_bias": {str(token): 1 for token in range(1025)}})),
    "no body": (400, request("")),
    "an array": (400, request("[]")),
    "null": (400, request("null")),
    "UTF-16": (400, request(json.dumps(BODY).encode("utf-16"))),
    "Latin-1": (400, request('{"prompt":"é"}'.encode("latin-1"))),
    "NaN": (400, request('{"prompt":"a","temperature":NaN}')),
    "1e999": (400, request('{"prompt":"a","temperature":1e999}')),
    "100,000 digits": (400, request('{"prompt":"a","max_tokens":' + "9" * 100_000 + "}")),
    "a lone surrogate": (400, request('{"prompt":"\\ud800"}')),
    "a key twice": (400, request('{"prompt":"a","prompt":"b"}')),
    "more after the object": (400, request('{"prompt":"a"} {}')),
    "a model that breaks lines": (404, request(BODY | {"model": "\r\nX-Evil: 1"})),
    "fields that break lines": (200, request(BODY | {"x\r\nX-Evil: 1": 1, "é": 2})),
    "text/plain": (415, request(BODY, content_type="text/plain")),
    "application/jsonx": (415, request(BODY, content_type="application/jsonx")),
    "a form": (415, request("prompt=a", content_type="application/x-www-form-urlencoded")),
    "two content types": (415, request(BODY, fields="Content-Type: text/plain\r\n")),
    "gzip": (415, request(gzip.compress(json.dumps(BODY).encode()), fields="Content-Encoding: gzip\r\n")),
    "no Host": (400, request(BODY, host="")),
    "two Hosts": (400, request(BODY, host="Host: x\r\nHost: y\r\n")),
    "letters beyond ASCII in a field": (400, request(BODY, fields="X-Name: é\r\n")),
    "and in a field's name": (400, request(BODY, fields="X-Né: e\r\n")),
    "two request ids": (200, request(BODY, fields="X-Request-Id: a\r\nX-Request-Id: b\r\nConnection: close\r\n")),
    "a page from elsewhere": (403, request(BODY, fields="Origin: http://evil.example\r\n")),
    "its preflight": (405, line(f"OPTIONS {TEXTS} HTTP/1.1", "Host: x\r\nOrigin: http://evil.example\r\nAccess-Control-Request-Method: POST\r\nConnection: close\r\n")),
    "OPTIONS *": (404, line("OPTIONS * HTTP/1.1")),
    "PUT": (405, line(f"PUT {TEXTS} HTTP/1.1")),
    "TRACE": (405, line(f"TRACE {TEXTS} HTTP/1.1")),
    "CONNECT": (404, line("CONNECT x:1 HTTP/1.1")),
    "a made-up method": (501, line("BREW /pot HTTP/1.1")),
    "a method in small letters": (501, line("get /livez HTTP/1.1")),
    "HTTP/2": (501, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "HTTP/3.0": (505, line("GET /livez HTTP/3.0")),
    "a TLS greeting": (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"a" * 100 + b"\r\n\r\n"),
    "HTTP/1.0": (200, request(BODY, version="1.0", host="")),
    "Expect": (100, request(BODY, fields="Expect: 100-continue\r\nConnection: close\r\n")),
    "another Expect": (417, request(BODY, fields="Expect: a-miracle\r\n")),
    "NUL in the path": (400, line("GET /live\0z HTTP/1.1")),
    "a websocket": (200, line("GET /v1/models HTTP/1.1", "Host: x\r\nUpgrade: websocket\r\nConnection: Upgrade, close\r\n")),
    "half a body": (400, request(BODY)[:-5]),
    "half a chunk": (400, line(f"POST {TEXTS} HTTP/1.1", "Host: x\r\nTransfer-Encoding: chunked\r\n") + b"9\r\n{"),
}  # fmt: skip


def talk(server, sent, half=False):
    """All that comes back until the server closes. `half`: the client won't say the rest."""
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.settimeout(20)
        client.sendall(sent)
        if half:
            client.shutdown(socket.SHUT_WR)
        received = b""
        while piece := client.recv(65536):
            received += piece
    return received


@pytest.mark.parametrize("name", CASES)
def test_it_gets_its_answer(server, name):
    wanted, sent = CASES[name]
    received = talk(server, sent, half=name.startswith("half"))
    head, _, body = received.partition(b"\r\n\r\n")
    assert re.match(rb"HTTP/1\.1 (\d+) ", head)[1] == str(wanted).encode(), received
    assert b"\nx-evil" not in head.lower() and b"allow-origin" not in head.lower()
    if wanted >= 400:
        error = json.loads(body)["error"]
        assert set(error) == {"message", "type", "param", "code"} and error["message"] and error["type"]
        assert b"Content-Type: application/json\r\n" in head + b"\r\n"


def test_a_head_alone_has_no_body(server):
    for path, status in (("/livez", b"200"), (TEXTS, b"405"), ("/nothing", b"404")):
        head, _, body = talk(server, line(f"HEAD {path} HTTP/1.1")).partition(b"\r\n\r\n")
        assert head.split(b" ")[1] == status and body == b"", (path, head, body)


def test_pipelined_requests_are_answered_in_order(server):
    received = talk(
        server,
        request(BODY, fields="")
        + line("GET /livez HTTP/1.1", "Host: x\r\n")
        + request(b"{", fields="")
        + line("GET /version HTTP/1.1"),
    )
    assert re.findall(rb"HTTP/1\.1 (\d+) ", received) == [b"200", b"200", b"400", b"200"]


def test_half_requests_leave_nothing_behind(server):
    folder = f"/proc/{server.process.pid}/fd"
    before = len(os.listdir(folder))
    whole = request(BODY | {"max_tokens": 50})
    for cut in range(1, len(whole), 3):
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(whole[:cut])
    assert wait_until(lambda: len(os.listdir(folder)) <= before, 20)
    assert get(f"{server.url}/readyz")[0] == 200
