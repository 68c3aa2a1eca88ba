"""A proxy below a path prefix, in front of the real server: it serves the page and the small endpoints through, and answers
chat requests whose question is `script:NAME` itself, for states that a real model rarely reaches. An answer to `paced:QUESTION`
is the real server's, one event every few milliseconds however fast or slow the machine is: on two cores, which the engine's
threads fill, the browser's may wait 100 ms for one, which is longer than the tiny model takes for an answer."""

import json
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PREFIX = "/behind/a/proxy/"
HEAD = {"id": "chatcmpl-scripted", "object": "chat.completion.chunk", "created": 1, "model": "scripted"}
HOSTILE = """<img src=x onerror="document.title='owned'"><script>document.title='owned'</script>
# A heading <b>with tags</b>
Inline $x^2 + \\frac{1}{2}$ and `code <i>`, **bold**, but $5 and $6 stay.
$$
\\sum_{i=1}^{n} i = \\frac{n(n+1)}{2}
$$
$\\href{javascript:document.title='owned'}{click}$ and $\\unknowncommand{x}$
```python
print("<script>")
```
[link](javascript:alert(1)) </Path> end
"""

CODE = [  # what is in each fence
    ("python", 'def f(x):\n    """<img src=x onerror=document.title=\'owned\'>"""\n    return x + 1  # <b>bold</b>\n'),
    ("c++", "template <typename T>\nstruct Pair { T a, b; };  // two\nint main() { return Pair<int>{1, 2}.a; }\n"),
    ("json", '{"a": [1, true, null], "b": "<script>"}\n'),
    ("nolanguage", "words & more\n"),
    ("constructor", "no language either\n"),
    ("", "plain text\n"),
]


class Writer:
    """Events of one answer, with the counts that the server would send."""

    def __init__(self, send):
        self.send = send
        self.tokens, self.step = {"": 0}, {"": 0}

    def branch(self, event, branch, text="", label="", tokens=0, steps=0):
        parent = None if branch == "" else branch.rpartition("/")[0]
        if event == "fork":
            self.tokens[branch], self.step[branch] = 0, self.step[parent]
        self.tokens[branch] += tokens
        self.step[branch] += steps
        news = {"id": branch, "parent": parent, "label": label, "index": 0, "event": event, "text": text}
        self.send(HEAD | {"choices": [], "branch": news | {"tokens": self.tokens[branch], "step": self.step[branch]}})

    def token(self, branch, text):
        self.branch("token", branch, text, tokens=1, steps=1)

    def content(self, text):
        self.send(HEAD | {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]})

    def goal(self, labels):
        outlines = "".join(f"<Outline>\n{label}: part {label}\n</Outline>\n" for label in labels)
        self.branch("token", "", f"<Think>\n<Parallel>\n<Goal>\n{outlines}</Goal>\n", tokens=2, steps=2)

    def finish(self):
        self.send(HEAD | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})


def wide(write, stopped, paths=100, tokens=100):
    """100 paths of 100 tokens, all of them live at once."""
    labels = [str(i) for i in range(1, paths + 1)]
    write.goal(labels)
    for label in labels:
        write.branch("fork", f"1.{label}", label=label)
        write.branch("token", f"1.{label}", f"<Path>\n{label}:", tokens=3)
    for step in range(tokens):
        for label in labels:
            write.token(f"1.{label}", f" {step}*{label}={step * int(label)}" + ("\n" if step % 5 == 4 else ""))
        time.sleep(0.02)
    for label in labels:
        write.branch("token", f"1.{label}", "</Path>\n", tokens=2, steps=1)
        write.branch("end", f"1.{label}")
    write.branch("join", "")
    write.branch("token", "", "<Conclusion>\nall done\n</Conclusion>\n</Parallel>\n</Think>\nAnswer: 100", tokens=9, steps=7)
    write.content("Answer: 100")
    write.finish()


def nested(write, stopped):
    """Two paths, the second with two of its own; stays there until the client goes."""
    write.goal(["1", "2"])
    for label in "12":
        write.branch("fork", f"1.{label}", label=label)
        write.branch("token", f"1.{label}", f"<Path>\n{label}: the beginning of path {label}\n", tokens=9, steps=6)
    inner = "".join(f"<Outline>\n2.{i}: inner part {i}\n</Outline>\n" for i in (1, 2))
    write.branch("token", "1.2", f"<Parallel>\n<Goal>\n{inner}</Goal>\n", tokens=20, steps=19)
    for i in (1, 2):
        write.branch("fork", f"1.2/1.{i}", label=f"2.{i}")
        write.branch("token", f"1.2/1.{i}", f"<Path>\n2.{i}: words of the inner path {i}\n", tokens=9, steps=6)
    for step in range(10_000):
        write.token("1.1", f"line {step}\n")
        write.token("1.2/1.1", f"inner line {step}\n")
        if stopped.wait(0.05):
            return


def npr(write, stopped):
    """The same shape in another dialect; Multiverse's words are text in it."""
    plans = "".join(f"<plan>\n{i}: plan {i}\n</plan>\n" for i in (1, 2))
    write.branch("token", "", f"first\n<guideline>\n{plans}</guideline>\n", tokens=20, steps=19)
    for i in (1, 2):
        write.branch("fork", f"1.{i}", label=str(i))
        write.branch("token", f"1.{i}", f"<step>\n{i}: result <Goal> {i}\n</step>\n", tokens=9, steps=6)
        write.branch("end", f"1.{i}")
    write.branch("join", "")
    write.branch("token", "", "<takeaway>\nboth\n</takeaway>\nso it is", tokens=9, steps=7)
    write.content("so it is")
    write.finish()


def hostile(write, stopped):
    write.branch("token", "", HOSTILE, tokens=50, steps=50)
    write.content(HOSTILE)
    write.finish()


def code(write, stopped):
    text = "".join(f"```{language}\n{source}```\n" for language, source in CODE)
    write.branch("token", "", text, tokens=50, steps=50)
    write.content(text)
    write.finish()


def long(write, stopped, rounds=100):
    """One branch, 100 tokens a round: words, formulas, code."""
    text = ""
    for number in range(rounds):
        words = [f"word{i} " for i in range(85)] + ["\n", "```python\n", "return ", f"{number}\n", "```\n"]
        words += [f"so $x_{i}^2 = {number}$\n\n" for i in range(5)] + ["."] * 5
        for word in words:
            write.token("", word)
        text += "".join(words)
        time.sleep(0.01)
    write.token("", "the end")
    write.content(text + "the end")
    write.finish()


def breaks(write, stopped):
    write.token("", "a beginning")
    write.send({"error": {"message": "the machine failed in the middle", "type": "server_error", "param": None, "code": None}})


SCRIPTS = {"wide": wide, "nested": nested, "npr": npr, "hostile": hostile, "code": code, "long": long, "breaks": breaks}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.forward(None)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == f"{PREFIX}v1/chat/completions":
            request = json.loads(body)
            question = request["messages"][-1]["content"]
            if question.startswith("paced:"):
                request["messages"][-1]["content"] = question.removeprefix("paced:")
                return self.stream(self.paced(json.dumps(request).encode()))
            script = question.partition("script:")[2]
            if script == "full":
                error = {"message": "the queue is full", "type": "server_error", "param": None, "code": "queue_full"}
                return self.answer(429, [("Retry-After", "7")], json.dumps({"error": error}).encode())
            if script:
                return self.stream(SCRIPTS[script])
        self.forward(body)

    def paced(self, body):
        request = urllib.request.Request(
            f"{self.server.upstream}/v1/chat/completions", body, {"Content-Type": "application/json"}
        )

        def script(write, stopped):
            with urllib.request.urlopen(request) as answer:
                for line in answer:
                    if line.startswith(b"data: {") and not stopped.wait(0.004):
                        write.send(json.loads(line[len(b"data: ") :]))

        return script

    def forward(self, body):
        instead = self.server.instead.pop(self.path.removeprefix(PREFIX), None)
        if instead:
            return self.answer(200, [("Content-Type", "text/javascript")], instead)
        if not self.path.startswith(PREFIX):
            return self.answer(404, [], b"outside the prefix")
        headers = {"Content-Type": "application/json"} if body else {}
        request = urllib.request.Request(f"{self.server.upstream}/{self.path[len(PREFIX):]}", body, headers)
        try:
            with urllib.request.urlopen(request) as answer:
                self.answer(answer.status, answer.headers.items(), answer.read())
        except urllib.error.HTTPError as error:
            self.answer(error.code, error.headers.items(), error.read())

    def answer(self, status, headers, body):
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def stream(self, script):
        self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        stopped = threading.Event()

        def send(event):
            try:
                self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
            except OSError:
                stopped.set()

        script(Writer(send), stopped)
        if stopped.is_set():
            self.server.cancelled += 1
        elif script is not breaks:
            self.wfile.write(b"data: [DONE]\n\n")


class ScriptedServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, upstream):
        super().__init__(("127.0.0.1", 0), Handler)
        self.upstream = upstream
        self.instead = {}  # by path: what to answer once, instead of the real server's file
        self.cancelled = 0  # streams whose client went away
        self.url = f"http://127.0.0.1:{self.server_port}{PREFIX}"
        threading.Thread(target=self.serve_forever, daemon=True).start()
