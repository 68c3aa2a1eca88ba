"""The Curator against an endpoint that misbehaves in every way, through the command that its users start."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from multiverse.curate import checks, items, outline
from multiverse.curate.checks import CheckFailed
from multiverse.curate.run import Log
from multiverse.dialect import Dialect
from tests.curate.scripted import FINAL, GOOD, GROUPS, PARTS, QUESTION, REFILL, RESPONSE, SKELETON, TREE, Endpoint, Reply, marked

ROOT = Path(__file__).resolve().parents[2]
DIALECT = Dialect.load("multiverse")


@pytest.fixture
def endpoint():
    one = Endpoint()
    yield one
    one.close()


def write_items(path, count):
    """Items that differ by a mark at the start of the reasoning."""
    lines = [{"id": f"item-{n}", "question": QUESTION, "response": marked(RESPONSE, f"item-{n}")} for n in range(count)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def curate(endpoint, source, out, *options):
    command = [sys.executable, str(ROOT / "scripts" / "curate"), str(source), "--out", str(out), "--url", endpoint.url, "--model", "m", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def only_good(tmp_path, endpoint, *options, count=1):
    done = curate(endpoint, write_items(tmp_path / "in.jsonl", count), tmp_path / "out", *options)
    assert done.returncode == 0, done.stderr
    return json.loads((tmp_path / "out" / "report.json").read_text())


def test_five_stages_make_a_training_file(tmp_path, endpoint):
    report = only_good(tmp_path, endpoint, "--prices", "2", "10")
    assert (report["accepted"], report["requests"], report["prompt_tokens"], report["completion_tokens"]) == (1, 5, 500, 50)
    assert report["cost"] == pytest.approx((500 * 2 + 50 * 10) / 1e6)
    assert [stage for _, stage, _, _ in endpoint.seen] == list(GOOD)
    parallel, sequential = lines(tmp_path / "out" / "data.jsonl")
    assert parallel["messages"][0]["content"] == QUESTION + items.PARALLEL_WORDING
    assert parallel["messages"][1]["content"] == f"<Think>\n{marked(FINAL, 'item-0')}\n</Think>\nThe final answer is 92."
    assert sequential["messages"][0]["content"] == QUESTION + items.SEQUENTIAL_WORDING
    assert "(item-0) First" in sequential["messages"][1]["content"]
    (record,) = lines(tmp_path / "out" / "accepted.jsonl")
    assert set(record["trail"]["tries"].values()) == {1} and record["trail"]["prompts"] == "v1" and record["trail"]["similarity"] > 0.8


BROKEN_BODY = Reply(body=b'{"choices": [{"mess', status=200)
MISBEHAVIOUR = {
    "wrong tree": ("1_summary", Reply("There are many steps."), "fewer than two steps"),
    "child before parent": ("1_summary", Reply("1: a\n2.1: b\n2: c"), "before its parent"),
    "unknown step": ("2_parallel", Reply("parallel: 2.1, 2.9"), "no step 2.9"),
    "no siblings": ("2_parallel", Reply("parallel: 1, 2.1"), "one parent"),
    "neither": ("2_parallel", Reply("I think 2.1 and 2.2."), "neither a line"),
    "lost placeholder": ("3_reformat", Reply(SKELETON.replace("[[3]]", "")), "the placeholders are"),
    "wrong grammar": ("3_reformat", Reply(SKELETON.replace("</Path>\n<Path>\n2:", "2:")), "not well formed"),
    "no block": ("3_reformat", Reply("[[1]]\n[[2.1]]\n[[2.2]]\n[[3]]"), "no <Parallel> block"),
    "half an answer": ("4_refill", Reply(REFILL[: len(REFILL) // 2]), "missing or empty"),
    "cut at the length": ("4_refill", Reply(REFILL, finish="length"), "cut at its greatest length"),
    "another text": ("4_refill", Reply("### 1\nx\n### 2.1\ny\n### 2.2\nz\n### 3\nw"), "edit similarity"),
    "tags in the refill": ("4_refill", Reply(REFILL.replace(PARTS[1], "<Path>")), "has tags"),
    "a sibling is mentioned": ("5_complete", Reply(FINAL.replace("7*8 is 56, since", "As path 1 shows, 7*8 is 56, since")), "mentions a sibling"),
    "a path is lost": ("5_complete", Reply(FINAL.replace("</Path>\n<Path>\n2:", "")), "not well formed"),
    "empty conclusion": ("5_complete", Reply(FINAL.replace("12*3 is 36 and 7*8 is 56.\n", "")), "empty <Conclusion>"),
    "control token in a path": ("5_complete", Reply(FINAL.replace("so 36.", "so 36. </Goal>")), "not well formed"),
    "empty reply": ("1_summary", Reply(""), "is empty"),
    "null content": ("1_summary", Reply(None), "is empty"),
    "no choices": ("1_summary", Reply(body=b'{"choices": []}'), "no choices"),
    "no JSON": ("1_summary", BROKEN_BODY, "no reply that can be read"),
    "refused prompt": ("4_refill", Reply(status=400), "HTTP 400"),
}  # fmt: skip


def test_every_misbehaviour_is_told_and_asked_again(tmp_path, endpoint):
    """One item for each: its first reply is bad, the second right. All are accepted, and the second prompt says what was wrong."""
    names = list(MISBEHAVIOUR)

    def script(stage, number, prompt):
        mark = prompt.partition("(item-")[2].partition(")")[0]
        at, reply, _ = MISBEHAVIOUR[names[int(mark)]]
        return reply if stage == at and number == 0 else None

    endpoint.script = script
    report = only_good(tmp_path, endpoint, "--concurrency", "8", count=len(names))
    assert report["accepted"] == len(names) and endpoint.most > 1
    for n, name in enumerate(names):
        stage, _, words = MISBEHAVIOUR[name]
        again = [prompt for item, at, number, prompt in endpoint.seen if (item, at, number) == (f"item-{n}", stage, 1)]
        assert len(again) == 1 and "An earlier reply was refused" in again[0] and words in again[0], name


@pytest.mark.parametrize("name", [n for n, (stage, *_) in MISBEHAVIOUR.items() if stage == "3_reformat"] + ["half an answer"])
def test_tries_are_bounded_and_the_rejected_are_kept(tmp_path, endpoint, name):
    at, bad, words = MISBEHAVIOUR[name]
    endpoint.script = lambda stage, number, prompt: bad if stage == at else None
    report = only_good(tmp_path, endpoint, "--tries", "2")
    assert report["accepted"] == 0 and report["rejected"] == {at: 1}
    (record,) = lines(tmp_path / "out" / "rejected.jsonl")
    assert record["id"] == "item-0" and record["stage"] == at and words in record["reason"] and len(record["tries"]) == 2
    assert (tmp_path / "out" / "data.jsonl").read_text() == ""


def test_nothing_to_run_in_parallel_is_a_reason(tmp_path, endpoint):
    endpoint.script = lambda stage, number, prompt: Reply("none") if stage == "2_parallel" else None
    assert only_good(tmp_path, endpoint)["rejected"] == {"2_parallel": 1}


def test_overload_time_outs_and_broken_connections_are_tried_again(tmp_path, endpoint):
    trouble = [Reply(status=429, headers={"Retry-After": "0.1"}), Reply(status=503, headers={"Retry-After": "0.1"}), Reply(GOOD["1_summary"], cut=True),
               Reply(GOOD["1_summary"], hang=2)]  # fmt: skip
    endpoint.script = lambda stage, number, prompt: trouble[number] if stage == "1_summary" and number < len(trouble) else None
    report = only_good(tmp_path, endpoint, "--timeout", "0.7")
    assert report["accepted"] == 1 and report["http"]["429"] == 1 and report["http"]["503"] == 1
    assert len([1 for _, stage, _, _ in endpoint.seen if stage == "1_summary"]) == 5


def test_what_no_retry_helps_is_left_for_a_later_run(tmp_path, endpoint):
    down = True
    endpoint.script = lambda stage, number, prompt: Reply(status=500) if down and stage == "3_reformat" else None
    report = only_good(tmp_path, endpoint, "--retries", "0")
    assert (report["accepted"], report["rejected"]) == (0, {}) and "HTTP 500" in report["left_for_later"]["item-0"]
    down = False
    report = only_good(tmp_path, endpoint)
    assert report["accepted"] == 1
    assert report["from_cache"] == 2 and report["requests"] == 3  # stages that were done are not paid for twice


def test_a_wrong_key_ends_the_run(tmp_path, endpoint):
    endpoint.script = lambda *_: Reply(status=401)
    done = curate(endpoint, write_items(tmp_path / "in.jsonl", 5), tmp_path / "out", "--concurrency", "1")
    assert done.returncode == 1 and "curate: " in done.stderr and "401" in done.stderr and "Traceback" not in done.stderr
    assert len(endpoint.seen) == 1


def test_a_killed_run_goes_on_and_a_cached_one_repeats_itself(tmp_path, endpoint):
    source = write_items(tmp_path / "in.jsonl", 3)
    assert curate(endpoint, source, tmp_path / "out").returncode == 0
    data = (tmp_path / "out" / "data.jsonl").read_bytes()
    accepted = tmp_path / "out" / "accepted.jsonl"
    text = accepted.read_bytes()
    first_line = text[: text.index(b"\n") + 1]
    accepted.write_bytes(first_line + text[len(first_line) : len(first_line) + 40])  # killed while writing the second item
    before = len(endpoint.seen)
    assert curate(endpoint, source, tmp_path / "out").returncode == 0
    assert len(endpoint.seen) == before  # all from the cache
    assert (tmp_path / "out" / "data.jsonl").read_bytes() == data


def test_what_cannot_be_read_is_rejected_with_its_reason(tmp_path, endpoint):
    source = tmp_path / "in"
    source.mkdir()
    (source / "a.jsonl").write_text('not json\n[]\n{"question": "q"}\n{"question": "q", "response": "I do not know."}\n')
    write_items(source / "b.jsonl", 1)
    assert curate(endpoint, source, tmp_path / "out").returncode == 0
    reasons = {record["id"]: record["reason"] for record in lines(tmp_path / "out" / "rejected.jsonl")}
    assert "Expecting value" in reasons["a:1"] and "no JSON object" in reasons["a:2"]
    assert "none of the fields response" in reasons["a:3"] and "states no answer" in reasons["a:4"]
    assert len(lines(tmp_path / "out" / "accepted.jsonl")) == 1


# The checks alone


def test_answers_are_read_as_written():
    read = items.stated_answer
    assert read("so \\boxed{\\frac{1}{2}}.") == read("The final answer is $\\frac{1}{2}$.") == "\\frac{1}{2}"
    assert read("Answer: 4\nAnswer: 5") == "5" and read("nothing here") is None
    with pytest.raises(CheckFailed, match="the answer became '5', it was '4'"):
        checks.check_answer("Answer: 5", "4")


@pytest.mark.parametrize("path", ["see path 2 for it", "by the previous path", "part 2 gave 7", "as the other paths do"])
def test_mentions_of_siblings_are_found(path):
    with pytest.raises(CheckFailed, match="path 1 mentions a sibling"):
        checks.check_no_siblings(FINAL.replace("12*3 is 10*3", path + " 12*3 is 10*3", 1), DIALECT)


def test_similarity_is_an_edit_ratio():
    assert checks.similarity("a b  c", "a b\nc") == 1.0
    assert checks.similarity("abcd", "abxd") == 0.75


def test_groups_and_trees():
    steps = outline.parse_tree(TREE)
    assert outline.leaves(steps) == ["1", "2.1", "2.2", "3"]
    assert outline.parse_groups(GROUPS, steps) == [["2.1", "2.2"]]
    for bad in ("parallel: 1, 3", "parallel: 1", "parallel: 1, 2\nparallel: 2, 3"):
        with pytest.raises(CheckFailed):
            outline.parse_groups(bad, steps)


def test_a_log_drops_a_half_written_line(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"id": 1}\n{"id": 2')
    assert Log(path).records == [{"id": 1}] and path.read_text() == '{"id": 1}\n'
