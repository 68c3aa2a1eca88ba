"""What the shipped model is trained on: well-formed, never a held-out problem, and the same again for the same seed."""

import importlib.machinery
import importlib.util
import json
import random
import sys

from multiverse.train.samples import Encoder
from tests.train import trees

TRAIN = trees.ROOT / "scripts" / "train"
sys.path.insert(0, str(TRAIN))

import tiny_chat  # noqa: E402
import tiny_config  # noqa: E402
import tiny_tasks  # noqa: E402


def script(name="tiny"):
    loader = importlib.machinery.SourceFileLoader(f"{name}_script", str(TRAIN / name))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module


def test_conversations_of_every_family_can_be_trained_on():
    encoder = Encoder(trees.tokenizer(), trees.TINY / "tokenizer.json", trees.DIALECT, levels=2)
    rng = random.Random(5)
    for family in tiny_tasks.FAMILIES:
        problem = tiny_tasks.draw_problem(rng, family)
        forked, plain = (encoder.encode(tiny_chat.asked(problem.question, tiny_tasks.solution(problem, parallel))) for parallel in (True, False))
        assert not plain.parallel and forked.parallel == (family not in tiny_tasks.BLOCKLESS), family
    for _ in range(30):
        messages = tiny_chat.conversation(rng, list(tiny_tasks.FAMILIES), [1] * len(tiny_tasks.FAMILIES))
        assert encoder.encode(messages).loss.any()


def test_data_is_a_function_of_the_seed_and_the_part():
    tiny = script()
    tiny.PART = 20
    first = tiny.conversations(1, 0)
    assert first == tiny.conversations(1, 0) and first != tiny.conversations(1, 1) and first != tiny.conversations(2, 0)
    assert len(first.splitlines()) == 20 and json.loads(first.splitlines()[0])["messages"][-1]["role"] == "assistant"


def test_held_out_problems_are_never_drawn():
    rng = random.Random(8)
    held_out = {p.canonical for p in tiny_tasks.held_out_problems(60)}
    for family in tiny_tasks.FAMILIES:
        for _ in range(20):
            problem = tiny_tasks.draw_problem(rng, family)
            assert not problem.held_out and problem.canonical not in held_out


def test_shipped_files_are_those_that_the_script_writes(tmp_path):
    tiny = script()
    tiny.write_base(tmp_path / "base", trees.TINY, 48, {})
    shipped, written = ((folder / "heldout.jsonl").read_text().splitlines() for folder in (trees.TINY, tmp_path / "base"))
    assert len(shipped) >= 500 and shipped[:48] == written
    config = json.loads((trees.TINY / "config.json").read_text())
    ours = json.loads((tmp_path / "base" / "config.json").read_text())
    differing = {key: (ours[key], config[key]) for key in tiny_config.CONFIG if key in config and ours[key] != config[key]}
    assert not differing


def test_the_shipped_model_meets_its_gates():
    """As measured through the server by scripts/evaluate; the card says how."""
    summary = json.loads((trees.TINY / "evaluation.json").read_text())["summary"]
    assert all(cell["total"] == 640 for cell in summary["accuracy"].values())
    assert script("tiny_gates").missed(summary) == []


def test_gates_can_be_missed():
    gates = script("tiny_gates")

    def record(problem, variant, right, tokens, path):
        return {"problem": problem, "variant": variant, "family": "gcd", "right": right, "tokens": tokens, "critical_path_tokens": path,
                "blocks": int(variant == "parallel"), "malformed": 0}  # fmt: skip

    records = [record(str(n), variant, n > 1 or variant == "sequential", 300, 100 if variant == "parallel" else 300)
               for n in range(100) for variant in ("parallel", "sequential")]  # fmt: skip
    summary = gates.summarise(records, {str(n): 3 for n in range(100)})
    assert summary["accuracy"]["parallel"]["right"] == 98 and summary["parallelism"] == summary["speed"] == 3
    assert gates.missed(summary) == ["parallel less sequential: -0.020, at least -0.01 is wanted"]
    slow = gates.summarise([record["variant"] == "parallel" and record | {"critical_path_tokens": 200} or record for record in records],
                           {str(n): 3 for n in range(100)})  # fmt: skip
    assert [sentence.split(":")[0] for sentence in gates.missed(slow)] == ["parallel less sequential", "parallelism", "speed"]
