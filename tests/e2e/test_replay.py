"""`multiverse replay`: recorded answers through the engine, in steps, text and log-probabilities as they were."""

import json

import pytest
from running import BINARY, MODEL, ROOT
from test_commands import PAIRS, run

SHARED = ROOT.parent / "shared"
TRACES, TOKENIZER = SHARED / "traces/aime24.jsonl", SHARED / "tokenizers/multiverse-32b"
OUTLINES = "".join(f"<Outline>\n{n}: {a} times {b}\n</Outline>\n" for n, (a, b) in enumerate(PAIRS, 1))
PATHS = "".join(f"<Path>\n{n}: {a}*{b}\nR{n}={a * b}\n</Path>\n" for n, (a, b) in enumerate(PAIRS, 1))
ANSWER = (
    f"<Think>\n<Parallel>\n<Goal>\n{OUTLINES}</Goal>\n{PATHS}<Conclusion>\nall\n</Conclusion>\n</Parallel>\n</Think>\n"
)
# Broken in the usual ways: a stray end, a goal that doesn't fork, a path that is never closed.
BROKEN = ANSWER + "</Path>\n<Parallel>\n<Goal>\n</Goal>\n" + ANSWER.removesuffix(PATHS.split("</Path>")[-2] + "</Path>")

pytestmark = pytest.mark.skipif(not BINARY.exists(), reason=f"{BINARY} is not built")


def record(id, completion):
    return json.dumps({"id": id, "system": "Short.", "user": "Compute.", "completion": completion}) + "\n"


def replayed(*arguments, text=None, timeout=120):
    done = run("replay", "--json", *arguments, text=text, timeout=timeout)
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("weights", [["--model", MODEL], ["--model", MODEL, "--weights", "random"]], ids=["tiny", "random"])
def test_a_forced_answer_is_exact_in_parallel_and_serially(weights):
    whole, broken, cut = replayed(
        *weights, "-", text=record("whole", ANSWER) + record("broken", BROKEN) + record("cut", ANSWER[: ANSWER.index('R4=')])
    )
    assert (whole["blocks"], whole["paths"], whole["max_width"]) == (1, 6, 6)
    assert broken["paths"] > 6
    for answer in (whole, broken, cut):
        assert answer["lost_steps"] == 0
        assert answer["passes"] == answer["steps"] + answer["prefill_passes"] - 1
        assert answer["serial_steps"] > answer["steps"]
        # One path at a time: each path's first draw waits for the end of the path before.
        assert answer["serial_passes"] >= answer["serial_steps"]
        assert answer["compared"] == answer["serial_steps"], "every drawn token has a log-probability in both"
        assert answer["max_difference_to_prefill"] <= 1e-3
        assert answer["max_difference_to_serial"] <= 1e-3


def test_blocks_alone():
    blocks = replayed("--model", MODEL, "--blocks", "-", text=record("two", ANSWER + "Then again.\n" + ANSWER))
    assert [block["paths"] for block in blocks] == [6, 6]
    assert blocks[0]["tokens"] == blocks[1]["tokens"] < blocks[1]["prompt_tokens"]
    for block in blocks:
        assert block["lost_steps"] == 0
        assert block["max_difference_to_prefill"] <= 1e-3


def test_batches_of_the_most_parallel_blocks_resumed(tmp_path):
    """Two blocks of different width; the wider first. What is recorded is not run again, a half-written line is."""
    narrow = ANSWER.replace(OUTLINES, OUTLINES[: OUTLINES.index("<Outline>\n3:")]).replace(PATHS, PATHS[: PATHS.index("<Path>\n3:")])
    file, text = tmp_path / "r.jsonl", record("two", narrow + ANSWER)
    command = ["--blocks", "--batch", "1,2,9000", "--repeats", "2", "--resume", str(file), "-"]
    (one,) = [line for line in replayed("--most-parallel", "1", *command, text=text) if "batch" not in line]
    assert one["paths"] == 6
    kept = file.read_text()
    lines = [json.loads(line) for line in kept.splitlines()]
    assert [line.get("batch") for line in lines] == [None, 1, 2, 9000]
    assert lines[2]["fits"] and lines[2]["most_rows"] == 12 and lines[2]["steps"] == one["steps"]
    assert 0 < lines[2]["seconds"]["min"] <= lines[2]["seconds"]["median"] <= lines[2]["seconds"]["max"]
    assert not lines[3]["fits"] and lines[3]["pages_needed"] > lines[3]["pages"] and "seconds" not in lines[3]
    file.write_text(kept + '{"id": "two bl')
    rest = replayed("--most-parallel", "2", *command, text=text)
    assert [(line.get("paths"), line.get("batch")) for line in rest] == [(2, None), (None, 1), (None, 2), (None, 9000)]
    assert file.read_text().startswith(kept) and len(file.read_text().splitlines()) == 8
    assert replayed("--most-parallel", "2", *command, text=text) == []
    wrong = run("replay", "--batch", "few", "-", text=text)
    assert wrong.returncode == 2 and "--batch is 'few'" in wrong.stderr


def test_a_plain_text_and_the_figures_of_a_person(tmp_path):
    text = tmp_path / "answer.txt"
    text.write_text(ANSWER)
    done = run("replay", "--model", MODEL, text)
    assert done.returncode == 0, done.stderr
    assert f"{text}: 1 + " in done.stdout
    assert "0 lost" in done.stdout and "1 replayed, 0 failed: 0 steps lost" in done.stdout


def test_what_cannot_be_replayed_is_said():
    between = ANSWER.replace("</Path>\n<Path>\n2", "</Path>\nWait.\n<Path>\n2")
    done = run("replay", "--fake", "-", text=record("a", between))
    assert done.returncode == 1
    assert "a: token" in done.stderr and "stands after path 1.1 and before the block's next path" in done.stderr
    assert run("replay").returncode == 2
    done = run("replay", "--tolerance", "x", "-", text=record("a", ANSWER))
    assert done.returncode == 2 and "--tolerance is 'x'" in done.stderr
    assert "unknown option --what" in run("replay", "--what").stderr
    done = run("replay", "--model", MODEL, "--max-model-len", "100", "-", text=record("a", ANSWER))
    assert done.returncode == 1
    assert "the context or the cache is too small for it" in done.stderr


@pytest.mark.skipif(not TRACES.exists(), reason=f"{TRACES}: real outputs of Multiverse-32B are not part of the repository")
def test_all_recorded_answers_without_a_lost_step():
    answers = replayed("--fake", "--model", TOKENIZER, TRACES)
    wanted = [json.loads(line) for line in (SHARED / "traces/aime24_trees.jsonl").read_text().splitlines()]
    assert len(answers) == len(wanted) == 30
    for answer, tree in zip(answers, wanted):
        assert (answer["tokens"], answer["steps"]) == (tree["tokens"], tree["steps"])
        assert answer["passes"] == tree["steps"] + answer["prefill_passes"] - 1
        assert answer["paths"] == tree["paths"]
