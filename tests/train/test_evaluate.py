"""evaluate.py against a scripted server: what it counts, and how it ends."""

import http.server
import json
import subprocess
import sys
import tempfile
import threading
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "train" / "evaluate.py"
PROBLEMS = [
    {"question": "2+2?", "answer": "4", "family": "short", "parts": 1},
    {"question": "gcds?", "answer": "1, 2, 3", "family": "gcd", "parts": 3},
    {"question": "refused?", "answer": "0", "family": "gcd", "parts": 3},
]


class Server(http.server.BaseHTTPRequestHandler):
    """Right on everything in parallel, wrong on the short one sequentially, and refuses the third."""

    def do_POST(self):  # noqa: N802
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        question = body["messages"][0]["content"]
        parallel = question.endswith(" Think step by step and in parallel before answering.")
        if question.startswith("refused?"):
            return self.reply(400, {"error": {"message": "no"}})
        if question.startswith("2+2?"):
            answer, tokens, blocks, path = ("4" if parallel else "5"), 10, 0, 10
        else:
            answer, tokens, blocks, path = "1, 2, 3", (120 if parallel else 100), int(parallel), (50 if parallel else 100)
        details = {"parallel": {"blocks": blocks, "paths": 3 * blocks, "critical_path_tokens": path, "steps": path, "malformed": 0}}
        content = f"<Think>\n…\n</Think>\nAnswer: {answer}"
        self.reply(200, {
            "choices": [{"message": {"role": "assistant", "content": content}, "finish_reason": "stop"}],
            "usage": {"completion_tokens": tokens, "completion_tokens_details": details},
        })  # fmt: skip

    def reply(self, status, content):
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


class Evaluate(unittest.TestCase):
    def run_script(self, *arguments):
        return subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, timeout=60)

    def test_counts(self):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.shutdown)
        with tempfile.TemporaryDirectory() as folder:
            problems, out = Path(folder) / "problems.jsonl", Path(folder) / "out.json"
            problems.write_text("".join(json.dumps(p) + "\n" for p in PROBLEMS))
            url = f"http://127.0.0.1:{server.server_address[1]}"
            done = self.run_script("--url", url, "--problems", str(problems), "--json", str(out))
            self.assertEqual(done.returncode, 0, done.stderr)
            summary = json.loads(out.read_text())["summary"]
        self.assertEqual(summary["accuracy"]["parallel"]["right"], 2)
        self.assertEqual(summary["accuracy"]["sequential"]["right"], 1)
        self.assertEqual(summary["families"]["gcd"]["parallel"], {"right": 1, "total": 2})
        self.assertAlmostEqual(summary["parallelism"], 120 / 50)
        self.assertAlmostEqual(summary["speed"], 100 / 50)
        self.assertIn("requests refused: 2", done.stdout)

    def test_unreachable(self):
        done = self.run_script("--url", "http://127.0.0.1:9", "--limit", "1")
        self.assertEqual(done.returncode, 1)
        self.assertIn("unreachable", done.stderr)


if __name__ == "__main__":
    unittest.main()
