"""The journal of answers: torn lines, locks."""

import json

import pytest

from measure.journal import Journal, JournalError


def test_goes_on_after_a_torn_line(tmp_path):
    path = tmp_path / "deep" / "answers.jsonl"
    journal = Journal(path)
    journal.append({"n": 1, "text": "zwei\nZeilen ⏎\u2028."})
    journal.append({"n": 2})
    journal.close()
    whole = path.read_bytes()
    for cut in range(1, len(b'{"n": 3}\n')):  # as a kill may leave it
        path.write_bytes(whole + b'{"n": 3}\n'[:cut])
        journal = Journal(path)
        assert [r["n"] for r in journal.records] == [1, 2]
        journal.append({"n": 4})
        journal.close()
        assert [json.loads(line)["n"] for line in path.read_bytes().splitlines()] == [1, 2, 4]


def test_one_writer(tmp_path):
    journal = Journal(tmp_path / "a.jsonl")
    with pytest.raises(JournalError, match="another run is writing"):
        Journal(tmp_path / "a.jsonl")
    journal.close()
    Journal(tmp_path / "a.jsonl").close()


def test_damage_inside_is_named(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"n": 1}\nnonsense\n{"n": 2}\n')
    with pytest.raises(JournalError, match="line 2 is not JSON"):
        Journal(tmp_path / "a.jsonl")
