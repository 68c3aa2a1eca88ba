"""An OpenAI-style server that says what a test tells it, and notes what it was asked."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Say:
    """One answer. `usage` None: a server that counts nothing."""

    text: str = ""
    usage: dict | None = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    finish_reason: str = "stop"
    seconds: float = 0.0  # before the first piece
    pieces: int = 3
    gap: float = 0.0  # seconds between pieces
    broken: bool = False  # the connection closes after the first piece


class ScriptedServer:
    """`script`: from a request's body to what is said. A context manager; `bodies` has every request."""

    def __init__(self, script: Callable[[dict], Say]):
        self.bodies: list[dict] = []
        self.paths: list[str] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):  # noqa: N802
                self._json(200, {"data": [{"id": "scripted"}]})

            def do_POST(self):  # noqa: N802
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.bodies.append(body)
                outer.paths.append(self.path)
                say = script(body)
                time.sleep(say.seconds)
                if say.status != 200:
                    self._json(say.status, {"error": {"message": say.text, "type": "t", "param": None, "code": None}}, say.headers)
                elif body.get("stream"):
                    self._stream(say)
                else:
                    message = {"message": {"role": "assistant", "content": say.text}, "text": say.text}
                    self._json(200, {"choices": [message | {"finish_reason": say.finish_reason}], "usage": say.usage})

            def _json(self, status, content, headers=None):
                data = json.dumps(content).encode()
                self.send_response(status)
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def _stream(self, say):
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.send_header("Connection", "close")
                self.end_headers()
                self.close_connection = True
                size = max(1, -(-len(say.text) // say.pieces))
                for start in range(0, len(say.text), size):
                    time.sleep(say.gap if start else 0)
                    part = say.text[start : start + size]
                    self._event({"choices": [{"index": 0, "delta": {"content": part}, "text": part, "finish_reason": None}]})
                    if say.broken:
                        return
                self._event({"choices": [{"index": 0, "delta": {}, "text": "", "finish_reason": say.finish_reason}]})
                if say.usage is not None:
                    self._event({"choices": [], "usage": say.usage})
                self.wfile.write(b"data: [DONE]\n\n")

            def _event(self, content):
                self.wfile.write(b"data: " + json.dumps(content).encode() + b"\n\n")
                self.wfile.flush()

            def log_message(self, *_):
                pass

            def handle(self):
                try:
                    super().handle()
                except (BrokenPipeError, ConnectionResetError):
                    pass  # the client was killed

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 256

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()


def question(body: dict) -> str:
    return body["messages"][-1]["content"]
