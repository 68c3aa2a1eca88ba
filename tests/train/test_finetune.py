"""The training run as its user starts it: resumed equals uninterrupted, two processes equal one, new control tokens."""

import dataclasses
import json
import os
import random
import shutil
import socket
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from multiverse.train.loop import Running, Settings, train
from multiverse.train.model import initialise, load_tokenizer
from tests.train import trees

STEPS = 4
TWO_PROCESSES = trees.ROOT / "tests" / "train" / "two_processes.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A toy base model's folder and data."""
    path = tmp_path_factory.mktemp("finetune")
    trees.write_toy_base(path / "base", hidden_size=32, intermediate_size=48)
    rng = random.Random(1)
    lines = [json.dumps({"messages": trees.conversation(rng, parallel=n % 2 == 0)}) for n in range(40)]
    (path / "data.jsonl").write_text("\n".join(lines) + "\n")
    return path


def settings(folder, **changes):
    return Settings(base=str(folder / "base"), random_init=True, data=str(folder / "data.jsonl"), steps=STEPS, row_tokens=512, rows=2,
                    rate=1e-3, warmup=2, bf16=False, **changes)  # fmt: skip


def run(folder, out, changes=None, **running):
    said = []
    log = train(settings(folder, **(changes or {})), Running(log_every=1, **running), out, said.append)
    return log, "\n".join(said)


@pytest.fixture(scope="module")
def uninterrupted(folder):
    log, _ = run(folder, folder / "whole")
    assert [entry["step"] for entry in log] == list(range(1, STEPS + 1))
    assert log[-1]["loss"] < log[0]["loss"]
    assert log[0]["parallel_share"] < log[-1]["parallel_share"]
    return log


def weights(path):
    return load_file(path / "model.safetensors")


def test_a_resumed_run_equals_an_uninterrupted_one(folder, uninterrupted):
    out = folder / "resumed"
    run(folder, out, save_every=2, stop_after=3)
    (out / "checkpoints" / "step-3").mkdir()  # a checkpoint whose writing was interrupted
    log, text = run(folder, out, save_every=2, checkpointing=True)
    assert "goes on from step 2" in text
    assert [entry["loss"] for entry in log] == [entry["loss"] for entry in uninterrupted[2:]]
    ours, theirs = weights(out), weights(folder / "whole")
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert torch.equal(ours[name], value), name
    with pytest.raises(ValueError, match=r"was made with \{'seed': 1\}, this run has \{'seed': 5\}"):
        run(folder, out, {"seed": 5})


def test_two_processes_equal_one(folder, uninterrupted):
    """FSDP2 over gloo: the same losses and weights but for the order of sums, and a sharded checkpoint that both resume from."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(port)]
    out = folder / "sharded"
    given = json.dumps([dataclasses.asdict(settings(folder)), str(out)])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(trees.ROOT / "scripts")}
    done = subprocess.run([*torchrun, str(TWO_PROCESSES), given], capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    assert "goes on from step 2" in done.stdout
    log = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [entry["step"] for entry in log] == list(range(1, STEPS + 1))
    for ours, theirs in zip(log, uninterrupted, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
    ours, theirs = weights(out), weights(folder / "whole")
    assert ours.keys() == theirs.keys()
    largest = max((ours[name].float() - theirs[name].float()).abs().max().item() for name in theirs)
    print(f"largest difference of weights: {largest:.2g}")
    assert largest < 1e-4


def test_new_control_tokens_start_as_the_mean_of_their_spelling(folder):
    """A base model that has never heard of the dialect."""
    base = folder / "plain"
    shutil.copytree(folder / "base", base)
    data = json.loads((base / "tokenizer.json").read_text())
    data["added_tokens"] = [t for t in data["added_tokens"] if t["content"] not in trees.DIALECT.control_tokens]
    (base / "tokenizer.json").write_text(json.dumps(data))
    config = json.loads((base / "tokenizer_config.json").read_text())
    config["added_tokens_decoder"] = {k: v for k, v in config["added_tokens_decoder"].items() if v["content"] not in trees.DIALECT.control_tokens}
    (base / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer, added = load_tokenizer(base, trees.DIALECT)
    assert sorted(added) == sorted(trees.DIALECT.control_tokens)
    assert all(len(tokenizer.encode(token, add_special_tokens=False)) == 1 for token in added)
    model = trees.toy_model("qwen3")
    before = model.get_output_embeddings().weight.clone()
    initialise(model, tokenizer, ["<Goal>"])
    row = tokenizer.convert_tokens_to_ids("<Goal>")
    spelt = [i for part in ("<", "Goal", ">") for i in tokenizer.encode(part, add_special_tokens=False)]
    torch.testing.assert_close(model.get_output_embeddings().weight[row], before[spelt].mean(0))
    changed = (model.get_output_embeddings().weight != before).any(1)
    assert changed.nonzero().flatten().tolist() == [row]
