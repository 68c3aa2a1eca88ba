"""A small OpenAI-style server (/v1/completions, greedy) around Hugging Face transformers, as a peer for scripts/peers.

Requests that wait are computed as one batch where their prompts are equally long, as paths of a fork are. Keys and values of the last
prompt are kept, so that a prompt that begins like it is computed from there on."""

from __future__ import annotations

import argparse
import copy
import http.server
import json
import queue
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Waiting:
    prompt: list[int]
    max_tokens: int
    stops: list[int]
    done: threading.Event = field(default_factory=threading.Event)
    tokens: list[int] = field(default_factory=list)
    stopped: bool = False
    error: str | None = None


def common_prefix(rows: list[list[int]]) -> int:
    shortest = min(rows, key=len)
    return next((i for i, token in enumerate(shortest) if any(row[i] != token for row in rows)), len(shortest))


class Generator:
    """Owns the model; one thread computes."""

    def __init__(self, model_dir: Path, threads: int):
        import torch
        import transformers

        self._torch = torch
        torch.set_num_threads(threads)
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(model_dir)
        self._model = transformers.AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32).eval()
        self._queue: queue.Queue[Waiting] = queue.Queue()
        self._kept: tuple[list[int], Any] = ([], None)  # tokens and their keys and values
        threading.Thread(target=self._run, daemon=True).start()

    def submit(self, waiting: Waiting) -> None:
        self._queue.put(waiting)
        waiting.done.wait()

    def _run(self) -> None:
        from_before: list[Waiting] = []
        while True:
            batch = from_before or [self._queue.get()]
            try:
                while True:  # who comes within 2 ms is computed together
                    batch.append(self._queue.get(timeout=0.002))
            except queue.Empty:
                pass
            length = len(batch[0].prompt)
            now, from_before = [w for w in batch if len(w.prompt) == length], [w for w in batch if len(w.prompt) != length]
            try:
                with self._torch.inference_mode():
                    self._generate(now)
            except Exception as error:  # noqa: BLE001: the requests are told
                for waiting in now:
                    waiting.error = f"{type(error).__name__}: {error}"
            for waiting in now:
                waiting.done.set()

    def _prefix_cache(self, rows: list[list[int]]) -> tuple[int, Any]:
        """Keys and values of what all rows begin with, less their last token; computed from what is kept."""
        from transformers import DynamicCache

        shared = min(common_prefix(rows), len(rows[0]) - 1)
        tokens, cache = self._kept
        found = common_prefix([tokens, rows[0][:shared]]) if tokens else 0
        if found:
            cache.crop(found)
        else:
            cache = DynamicCache()
        if shared > found:
            cache = self._model(input_ids=self._torch.tensor([rows[0][found:shared]]), past_key_values=cache, use_cache=True).past_key_values
        self._kept = (rows[0][:shared], cache)
        return shared, cache

    def _generate(self, batch: list[Waiting]) -> None:
        torch, rows = self._torch, [w.prompt for w in batch]
        shared, kept = self._prefix_cache(rows)
        cache = copy.deepcopy(kept)
        if len(batch) > 1:
            cache.batch_repeat_interleave(len(batch))
        ids = torch.tensor([row[shared:] for row in rows])
        active = list(range(len(batch)))
        while active:
            out = self._model(input_ids=ids, past_key_values=cache, use_cache=True)
            cache, drawn = out.past_key_values, out.logits[:, -1].argmax(-1).tolist()
            left = []
            for place, index in enumerate(active):
                waiting, token = batch[index], drawn[place]
                waiting.tokens.append(token)
                waiting.stopped = token in waiting.stops
                if not waiting.stopped and len(waiting.tokens) < waiting.max_tokens:
                    left.append(place)
            if len(left) < len(active) and left:
                cache.batch_select_indices(torch.tensor(left))
            active = [active[place] for place in left]
            ids = torch.tensor([[drawn[place]] for place in left])
        if len(batch) == 1:  # the next prompt may go on from here
            self._kept = (rows[0] + batch[0].tokens[:-1], cache)


def serve(generator: Generator, name: str, eos: int | None) -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):  # noqa: N802
            self._send(200, {"data": [{"id": name}]})

        def do_POST(self):  # noqa: N802
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            encode = lambda text: generator.tokenizer.encode(text, add_special_tokens=False)  # noqa: E731
            stops = [ids[0] for text in body.get("stop") or [] if len(ids := encode(text)) == 1]
            waiting = Waiting(encode(body["prompt"]), body.get("max_tokens", 16), [*stops, *([] if eos is None else [eos])])
            generator.submit(waiting)
            if waiting.error:
                return self._send(500, {"error": {"message": waiting.error, "type": "server_error", "param": None, "code": None}})
            shown = waiting.tokens[:-1] if waiting.stopped else waiting.tokens
            choice = {"index": 0, "text": generator.tokenizer.decode(shown), "finish_reason": "stop" if waiting.stopped else "length"}
            usage = {"prompt_tokens": len(waiting.prompt), "completion_tokens": len(waiting.tokens)}
            return self._send(200, {"choices": [choice], "usage": usage})

        def _send(self, status: int, content: dict) -> None:
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    print(f"serving {name} on http://127.0.0.1:{server.server_address[1]} (ready", flush=True)
    server.serve_forever()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    generator = Generator(arguments.model, arguments.threads)
    serve(generator, arguments.model.name, generator.tokenizer.eos_token_id)
    return 0


if __name__ == "__main__":
    sys.exit(main())
