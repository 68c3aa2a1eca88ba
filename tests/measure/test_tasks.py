"""Loading tasks and their problems, from files and from a hub."""

import http.server
import json
import threading
import urllib.parse
from pathlib import Path

import pytest

from measure.tasks import FOLDER, Task, TaskError, chosen, hub_rows, sample_seed

RECORDED = Path(__file__).resolve().parents[3] / "shared" / "traces" / "aime24_problems.jsonl"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.json")), ids=lambda p: p.stem)
def test_every_task_loads(path):
    task = Task.load(path.stem)
    assert task.file or {"dataset", "config", "split"} <= set(task.hub)
    assert set(task.wordings) == {"parallel", "sequential"}
    task.template.format(question="q", choices="c")


def test_the_tiny_task():
    task = Task.load("tiny")
    problems = task.problems()
    assert len(problems) == 640
    assert task.prompt(problems[0], "parallel").endswith(" Think step by step and in parallel before answering.")
    some = chosen(problems, 32)
    assert len(some) == 32
    assert len({p.family for p in some}) == len({p.family for p in problems}) == 16


def test_unknown_names_say_what_is_known(tmp_path):
    with pytest.raises(TaskError, match="there is no task 'aime'; known: aime24, aime25, gpqa-diamond, math500, tiny"):
        Task.load("aime")
    (tmp_path / "t.json").write_text('{"title": "t", "kind": "essay"}')
    with pytest.raises(TaskError, match="kind is 'essay'"):
        Task.load(str(tmp_path / "t.json"))


@pytest.mark.parametrize(
    ("name", "text"),
    [("p.jsonl", '{"problem": "1+1?", "answer": 2}\n\n{"problem": "2+2?", "answer": 4}\n'),
     ("p.json", '[{"problem": "1+1?", "answer": 2}, {"problem": "2+2?", "answer": 4}]'),
     ("p.csv", "problem,answer\n1+1?,2\n2+2?,4\n")],
)  # fmt: skip
def test_local_files(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    problems = Task.load("aime24").problems(tmp_path / name)
    assert [(p.id, p.answer) for p in problems] == [("0", "2"), ("1", "4")]
    assert problems[0].question == "1+1?\nPut the final answer within \\boxed{}."


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "no problems"), ('{"answer": 2}', "row 0 has none of problem, question for 'question'; it has answer"), ("{", "can't be read as .jsonl"),
     ('{"id": 1, "problem": "a", "answer": 2}\n{"id": 1, "problem": "b", "answer": 2}', "1 ids are there twice")],
)  # fmt: skip
def test_bad_files(tmp_path, text, message):
    (tmp_path / "p.jsonl").write_text(text)
    with pytest.raises(TaskError, match=message):
        Task.load("aime24").problems(tmp_path / "p.jsonl")


def test_choices_are_shuffled_by_seed(tmp_path):
    wrong = {f"Incorrect Answer {n}": f"wrong {n}" for n in (1, 2, 3)}
    rows = [{"Record ID": str(i), "Question": f"q{i}", "Correct Answer": " right"} | wrong for i in range(40)]
    (tmp_path / "g.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = Task.load("gpqa-diamond")
    problems = task.problems(tmp_path / "g.jsonl", seed=1)
    assert {p.answer for p in problems} == set("ABCD")
    assert all(f"({p.answer}) right\n" in p.question and p.choices == 4 for p in problems)
    assert problems == task.problems(tmp_path / "g.jsonl", seed=1)
    assert problems != task.problems(tmp_path / "g.jsonl", seed=2)
    (tmp_path / "h.jsonl").write_text(json.dumps({"question": "q", "answer": "a"}))
    with pytest.raises(TaskError, match="no wrong choices"):
        task.problems(tmp_path / "h.jsonl")


@pytest.mark.skipif(not RECORDED.exists(), reason="recorded AIME problems are not beside this checkout")
def test_recorded_problems():
    problems = Task.load("aime24").problems(RECORDED)
    assert len(problems) == 30
    assert {p.answer for p in problems} >= {"204", "025"}


class Hub(http.server.BaseHTTPRequestHandler):
    """Rows 0 to 249 in pages of 100; busy at first."""

    asked: list[dict] = []

    def do_GET(self):  # noqa: N802
        query = {k: v[0] for k, v in urllib.parse.parse_qs(urllib.parse.urlparse(self.path).query).items()}
        self.asked.append(query)
        status, offset = (503 if len(self.asked) == 1 else 200), int(query["offset"])
        rows = [{"row_idx": i, "row": {"problem": f"p{i}", "answer": i}} for i in range(offset, min(250, offset + int(query["length"])))]
        if query["dataset"] == "closed/one":
            status = 401
        data = json.dumps({"rows": rows, "num_rows_total": 250}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


def test_hub(tmp_path):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    url, pauses = f"http://127.0.0.1:{server.server_address[1]}/rows", []
    hub = {"dataset": "some/set", "config": "default", "split": "test"}
    try:
        rows = hub_rows(hub, tmp_path, url, pauses.append)
        assert [row["answer"] for row in rows] == list(range(250))
        assert pauses == [1.0]
        asked = len(Hub.asked)
        assert hub_rows(hub, tmp_path, url) == rows
        assert len(Hub.asked) == asked  # from the cache
        with pytest.raises(TaskError, match="401 for closed/one; the data set may need you to accept its terms and set HF_TOKEN; or give"):
            hub_rows(hub | {"dataset": "closed/one"}, tmp_path, url)
    finally:
        server.shutdown()
        server.server_close()
    with pytest.raises(TaskError, match="can't be reached for some/other.*--data FILE"):
        hub_rows(hub | {"dataset": "some/other"}, tmp_path, url, pauses.append)


def test_seeds_differ_by_problem_and_sample():
    seeds = {sample_seed(s, p, k) for s in (0, 1) for p in ("a", "b") for k in range(3)}
    assert len(seeds) == 12
    assert all(0 <= seed < 2**48 for seed in seeds)
