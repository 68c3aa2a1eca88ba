"""An OpenAI-style endpoint that follows a script: right replies for each stage of the Curator, and every way to misbehave."""

import http.server
import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

# A problem whose reasoning has two parts that stand alone.
QUESTION = "What is 12*3 plus 7*8?"
PARTS = ("First I set up the sum of two products.", "12*3 is 10*3 and 2*3, which is 30 and 6, so 36.", "7*8 is 56, since 7*8 is 8 less than 64.",
         "The sum is 36 plus 56, which is 92.")  # fmt: skip
RESPONSE = "<think>\n" + "\n".join(PARTS) + "\n</think>\nThe final answer is 92."

TREE = "1: Set up\n2: Products\n2.1: Compute 12*3\n2.2: Compute 7*8\n3: Sum"
GROUPS = "parallel: 2.1, 2.2"
SKELETON = """[[1]]
<Parallel>
<Goal>
<Outline>
1: Compute 12*3
</Outline>
<Outline>
2: Compute 7*8
</Outline>
</Goal>
<Path>
1: [[2.1]]
</Path>
<Path>
2: [[2.2]]
</Path>
<Conclusion>
</Conclusion>
</Parallel>
[[3]]"""
LABELS = ("1", "2.1", "2.2", "3")
REFILL = "\n".join(f"### {label}\n{part}" for label, part in zip(LABELS, PARTS))


def filled():
    text = SKELETON
    for label, part in zip(LABELS, PARTS):
        text = text.replace(f"[[{label}]]", part)
    return text


FINAL = filled().replace("<Conclusion>\n", "<Conclusion>\n12*3 is 36 and 7*8 is 56.\n")
GOOD = {"1_summary": TREE, "2_parallel": GROUPS, "3_reformat": SKELETON, "4_refill": REFILL, "5_complete": FINAL}
STAGES = {"Summarise the reasoning": "1_summary", "Find the steps that could": "2_parallel", "Rewrite a tree": "3_reformat",
          "Give each step the part": "4_refill", "Finish it": "5_complete"}  # fmt: skip


def marked(text, item):
    """With the item's mark, so that every later prompt of the item has it too: in the first step's title and text."""
    return text.replace("1: Set up", f"1: Set up ({item})").replace("First", f"({item}) First")


@dataclass
class Reply:
    """One HTTP reply. `hang`: seconds before anything is sent; `cut`: the connection ends in the middle of the body."""

    text: str | None = None
    status: int = 200
    headers: dict = field(default_factory=dict)
    body: bytes | None = None
    finish: str = "stop"
    hang: float = 0
    cut: bool = False

    def encode(self) -> bytes:
        if self.body is not None:
            return self.body
        if self.status != 200:
            return json.dumps({"error": {"message": f"status {self.status}", "type": "x", "code": None}}).encode()
        choice = {"index": 0, "message": {"role": "assistant", "content": self.text}, "finish_reason": self.finish}
        return json.dumps({"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice],
                           "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}}).encode()  # fmt: skip


class Endpoint:
    """`script(stage, number, prompt)` gives the reply to the number-th request for that stage of that question, from 0; None: the right one."""

    def __init__(self, script: Callable[[str, int, str], Reply | None] = lambda *_: None):
        self.script, self.seen, self.counts, self.lock = script, [], {}, threading.Lock()
        self.now = self.most = 0
        endpoint = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):  # noqa: N802
                endpoint.answer(self)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, handler):
        request = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        prompt = request["messages"][0]["content"]
        stage = next(name for mark, name in STAGES.items() if mark in prompt)
        item = re.search(r"item-\d+", prompt)[0]
        with self.lock:
            number = self.counts.get((item, stage), 0)
            self.counts[item, stage] = number + 1
            self.seen.append((item, stage, number, prompt))
            self.now += 1
            self.most = max(self.most, self.now)
        try:
            self.send(handler, self.script(stage, number, prompt) or Reply(marked(GOOD[stage], item)))
        finally:
            with self.lock:
                self.now -= 1

    def send(self, handler, reply):
        time.sleep(reply.hang)
        data = reply.encode()
        try:
            handler.send_response(reply.status)
            for name, value in ({"Content-Type": "application/json"} | reply.headers).items():
                handler.send_header(name, value)
            handler.send_header("Content-Length", str(len(data)))
            handler.end_headers()
            handler.wfile.write(data[: len(data) // 2] if reply.cut else data)
        except OSError:
            pass  # the client gave up waiting
        handler.close_connection = True

    def close(self):
        self.server.shutdown()
        self.server.server_close()
