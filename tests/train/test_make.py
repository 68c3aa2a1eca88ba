"""One command from sequential answers to a served model: a toy is curated for, trained for a few steps, served and asked."""

import json
import os
import subprocess

import openai

from tests.e2e.running import start_server
from tests.train import trees

TRAIN = trees.ROOT / "scripts" / "train"
PYTHON = trees.ROOT / "build" / "deps" / "venv" / "bin" / "python"


def test_from_sequential_answers_to_an_answer(tmp_path):
    base = tmp_path / "base"
    trees.write_toy_base(base, hidden_size=64, intermediate_size=96)
    subprocess.run([PYTHON, TRAIN / "example_answers", tmp_path / "answers" / "a.jsonl", "--count", "30"], check=True)
    command = [TRAIN / "make", tmp_path / "answers", "--base", base, "--out", tmp_path / "out", "--no-serve", "--",
               *"--random-init --steps 3 --row-tokens 1024 --rows 2 --rate 1e-3 --log-every 1 --no-bf16".split()]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "out" / "curated" / "report.json").read_text())
    assert report["items"] == 30 and report["accepted"] > 15
    assert "0 lines refused" in done.stdout  # all that was curated can be trained on
    losses = [json.loads(line)["loss"] for line in (tmp_path / "out" / "model" / "training_log.jsonl").read_text().splitlines()]
    assert len(losses) == 3 and losses[-1] < losses[0]

    server = start_server(tmp_path / "log", "--model", str(tmp_path / "out" / "model"))
    try:
        client = openai.OpenAI(base_url=server.url + "/v1", api_key="none")
        messages = [{"role": "user", "content": "Find 12*3. Think step by step before answering."}]
        reply = client.chat.completions.create(model=server.name, messages=messages, max_tokens=8, temperature=0)
    finally:
        assert server.stop() == 0
    assert reply.usage.completion_tokens > 0 and reply.choices[0].finish_reason in ("stop", "length")


def test_make_says_what_it_wants(tmp_path):
    done = subprocess.run([TRAIN / "make", tmp_path], capture_output=True, text=True)
    assert done.returncode == 2 and "scripts/train/make SOURCE --base MODEL --out DIR" in done.stderr
    (tmp_path / "in.jsonl").write_text('{"question": "q", "response": "no list here\\nAnswer: 4"}\n')
    done = subprocess.run([TRAIN / "make", tmp_path / "in.jsonl", "--base", trees.TINY, "--out", tmp_path / "out"], capture_output=True, text=True)
    assert done.returncode == 1 and "no answer could be structured" in done.stderr
