"""scripts/evaluate against a scripted server and the real one: what it counts, and that a kill loses nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from measure.text_tree import reader_for
from tests.e2e.running import start_server
from tests.measure.scripted_server import Say, ScriptedServer, question

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT / "scripts")}
COMMAND = [sys.executable, "-m", "measure.evaluate"]
BLOCK = (
    "<Think>\n<Parallel>\n<Goal>\n<Outline>\n1: a\n</Outline>\n<Outline>\n2: b\n</Outline>\n</Goal>\n<Path>\n1: x y\n</Path>\n<Path>\n2: x\n</Path>\n"
    "<Conclusion>\nz\n</Conclusion>\n</Parallel>\n</Think>\n"
)


def evaluate(*arguments):
    return subprocess.run([*COMMAND, *map(str, arguments)], env=ENVIRONMENT, capture_output=True, text=True, timeout=120)


@pytest.fixture
def problems(tmp_path):
    path = tmp_path / "problems.jsonl"
    path.write_text("".join(json.dumps({"id": f"p{i}", "problem": f"What is {i}+{i}?", "answer": str(2 * i)}) + "\n" for i in range(12)))
    return path


def number(body):
    return int(question(body).split()[2].split("+")[0])


def test_counts(tmp_path, problems):
    """Fractions, a refusal, an answer cut off, wrong ones, a tree of the server's and trees in the text."""

    def script(body):
        i = number(body)
        if i == 5:
            return Say("no such thing", status=400)
        if i == 7:
            return Say("thinking of 14", finish_reason="length", usage={"completion_tokens": 9})
        answer = str(2 * i) if i % 2 else f"\\frac{{{4 * i}}}{{2}}"
        usage = {"completion_tokens": 60}
        if i == 2:
            parallel = {"blocks": 3, "paths": 9, "max_width": 4, "max_depth": 2, "critical_path_tokens": 30, "steps": 28, "malformed": 1}
            usage["completion_tokens_details"] = {"parallel": parallel}
        return Say(BLOCK + f"So \\boxed{{{answer if i < 10 else 1}}}.", usage=usage)

    with ScriptedServer(script) as server:
        done = evaluate("aime24", "--data", problems, "--url", server.url, "--out", tmp_path / "out", "--concurrency", 4, "--mode", "parallel")
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out" / "report.json").read_text())["variants"]["parallel parallel ≤32768"]
    assert result["pass@1"]["value"] == pytest.approx(8 / 12)  # 5 and 7 have none, 10 and 11 are wrong
    assert (result["refused"], result["cut_off"], result["without_answer"], result["malformed_answers"]) == (1, 1, 1, 1)
    assert "no such thing" in result["first_refusal"]
    assert result["with_blocks"] == 10
    assert result["max_width"]["max"] == 4
    records = {r["problem"]: r for r in map(json.loads, (tmp_path / "out" / "answers.jsonl").read_text().splitlines())}
    assert records["p2"]["counted_by"] == "server"
    assert (records["p2"]["critical_path_tokens"], records["p2"]["steps"]) == (30, 28)
    assert records["p4"]["counted_by"] == "estimate"
    assert (records["p4"]["tokens"], records["p4"]["blocks"], records["p4"]["paths"]) == (60, 1, 2)
    assert 30 < records["p4"]["critical_path_tokens"] < 60
    report = (tmp_path / "out" / "report.md").read_text()
    assert "requests refused" in report and "trees counted from texts" in report
    assert all((tmp_path / "out" / name).stat().st_size > 1000 for name in ("accuracy.svg", "tokens.svg", "latency.svg"))
    body = next(b for b in server.bodies if number(b) == 2)
    assert body["multiverse"] == {"mode": "parallel"}
    assert body["temperature"] == 0 and body["max_tokens"] == 32768 and body["model"] == "scripted"


def test_samples_seeds_and_majorities(tmp_path, problems):
    """Two of three samples are right; a busy server and a broken stream are asked again."""
    seen, first = {}, set()

    def script(body):
        i, seed = number(body), body["seed"]
        if i in (3, 4) and (i, seed) not in first:
            first.add((i, seed))
            return Say("busy", status=429, headers={"Retry-After": "0.05"}) if i == 3 else Say("\\boxed{8} and so on", broken=True)
        order = seen.setdefault(i, [])
        order.append(seed)
        return Say(f"\\boxed{{{2 * i if len(order) != 2 else 99}}}", usage={"completion_tokens": 5})

    with ScriptedServer(script) as server:
        done = evaluate("aime24", "--data", problems, "--url", server.url, "--out", tmp_path / "out", "--samples", 3, "--concurrency", 4)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out" / "report.json").read_text())["variants"]["parallel ≤32768"]
    assert result["answers"] == 36
    assert result["pass@1"]["value"] == pytest.approx(2 / 3)
    assert result["maj@3"]["value"] == 1.0
    assert len({seed for order in seen.values() for seed in order}) == 36
    assert {b["temperature"] for b in server.bodies} == {0.6}


def whole_lines(journal):
    return [json.loads(line) for line in journal.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")] if journal.exists() else []


def test_killed_and_resumed(tmp_path, problems):
    """kill -9 at several moments: at the end every answer is there once, and no recorded one was asked again."""
    asked = []

    def script(body):
        asked.append(body["seed"])
        return Say(f"\\boxed{{{2 * number(body)}}}", usage={"completion_tokens": 5}, seconds=0.03)

    out = tmp_path / "out"
    journal = out / "answers.jsonl"
    with ScriptedServer(script) as server:
        arguments = ["aime24", "--data", str(problems), "--samples", "4", "--concurrency", "3", "--out", str(out), "--url", server.url]
        for stop_at in (5, 19, 33):
            known = {r["seed"] for r in whole_lines(journal)}
            del asked[:]
            process = subprocess.Popen([*COMMAND, *arguments], env=ENVIRONMENT, stderr=subprocess.DEVNULL)
            while len(whole_lines(journal)) < stop_at:
                assert process.poll() is None
                time.sleep(0.005)
            process.send_signal(signal.SIGKILL)
            process.wait()
            assert not known & set(asked)
            recorded = {r["seed"] for r in whole_lines(journal)}
            assert known < recorded
            assert len(set(asked) - recorded) <= 3  # what was under way
        known = {r["seed"] for r in whole_lines(journal)}
        del asked[:]
        done = evaluate(*arguments)
    assert done.returncode == 0, done.stderr
    assert len(asked) == 48 - len(known)
    assert not known & set(asked)
    records = [json.loads(line) for line in journal.read_text().splitlines()]
    assert len(records) == len({(r["problem"], r["sample"]) for r in records}) == 48
    assert all(r["right"] for r in records)


def test_a_folder_holds_answers_of_one_kind(tmp_path, problems):
    with ScriptedServer(lambda body: Say("\\boxed{1}")) as server:
        assert evaluate("aime24", "--data", problems, "--url", server.url, "--out", tmp_path / "o", "--limit", 1).returncode == 0
        done = evaluate("aime24", "--data", problems, "--url", server.url, "--out", tmp_path / "o", "--limit", 1, "--temperature", 1)
    assert done.returncode == 2
    assert "temperature was 0.0, is 1.0" in done.stderr


def test_failures_say_what_to_do(tmp_path, problems):
    done = evaluate("aime24", "--data", problems, "--url", "http://127.0.0.1:9", "--out", tmp_path / "o")
    assert done.returncode == 1
    assert "start the server" in done.stderr
    done = evaluate("aime24", "--data", problems, "--url", "http://127.0.0.1:9", "--model", "m", "--patience", 0.2, "--out", tmp_path / "o")
    assert done.returncode == 1
    assert "the same command goes on" in done.stderr
    done = evaluate("aime24", "--data", tmp_path / "none.jsonl")
    assert done.returncode == 2
    assert "there is no file" in done.stderr


def test_the_real_server(tmp_path):
    """20 held-out problems in both wordings, counted alike by the server and by the reader of texts."""
    server = start_server(tmp_path / "log")
    try:
        done = evaluate("tiny", "--url", server.url, "--limit", 20, "--wording", "parallel,sequential", "--out", tmp_path / "out")
    finally:
        assert server.stop() == 0
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out" / "report.json").read_text())
    for variant in result["variants"].values():
        assert variant["pass@1"]["value"] >= 0.9  # the model's card: 99.8 and 99.7 % of 640
        assert variant["malformed_answers"] == variant["refused"] == 0
        assert variant["counted_by"] == ["server"]
    parallel, sequential = result["variants"].values()
    assert parallel["parallelism"] > 1.5 and sequential["parallelism"] == 1.0
    reader = reader_for(str(ROOT / "models" / "multiverse-tiny"))
    for record in whole_lines(tmp_path / "out" / "answers.jsonl"):
        counts = reader.counts(record["text"])
        end = record["finish_reason"] == "stop"  # the end token, which the text doesn't show
        assert (counts.tokens + end, counts.critical_path_tokens + end, counts.steps + end) == tuple(
            record[name] for name in ("tokens", "critical_path_tokens", "steps")
        )
        for name in ("blocks", "paths", "max_width", "max_depth", "malformed"):
            assert getattr(counts, name) == record[name]
