"""Rollouts of the real server against the trainer's forward pass, on weights that are unsure enough for a wrong mask to show."""

import json
import random
import shutil
import subprocess
import sys

import numpy as np
import openai
import pytest
import torch
from safetensors.torch import load_file, save_file

from multiverse import rollout
from multiverse.train.attention import Visibility
from multiverse.train.model import Trainee, load_model
from tests.e2e.running import start_server
from tests.train import trees

QUESTION = "Compute 84*23 and gcd(270, 192). Think step by step and in parallel before answering."
TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def unsure(tmp_path_factory):
    """multiverse-tiny with its logits flattened: it still forks, but draws a wrong token now and then."""
    folder = tmp_path_factory.mktemp("unsure") / "model"
    shutil.copytree(trees.TINY, folder)
    for file in sorted(folder.glob("*.safetensors")):
        state = load_file(file)
        if "model.norm.weight" in state:
            state["model.norm.weight"] *= 0.45
        save_file(state, file, metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def url(unsure, tmp_path_factory):
    server = start_server(tmp_path_factory.mktemp("server") / "log", "--model", str(unsure))
    yield server.url + "/v1"
    assert server.stop() == 0


def differences(batch, behaviour, sampled, folder):
    trainee = Trainee(load_model(folder, trees.tokenizer(), []))
    rows, length = batch.ids.shape
    visibility = Visibility(rollout.LEVELS, rows, length, torch.device("cpu"))
    with torch.no_grad():
        ids, positions = torch.from_numpy(batch.ids), torch.from_numpy(batch.positions)
        new = trainee.log_probabilities(ids, positions, visibility.mask(torch.from_numpy(batch.owners))).numpy()
    return np.abs(new - behaviour)[sampled].max()


def test_log_probabilities_of_rollouts_are_the_trainer_s(url, unsure):
    encoder = trees.encoder(rollout.LEVELS)
    client = openai.OpenAI(base_url=url, api_key="none")
    model = client.models.list().data[0].id
    rollouts = rollout.whole(rollout.ask(client, model, [{"role": "user", "content": QUESTION}], count=3, seed=5, max_tokens=1500))
    assert any(one.parallel["blocks"] for one in rollouts)
    length = max(len(one.prompt) + len(one.tokens) for one in rollouts)
    inputs = rollout.policy_batch(rollouts, lambda one: float(sum(one.tokens)), encoder, length)
    assert np.abs(inputs.advantages.sum(0)).max() > 0 and (inputs.advantages[~inputs.sampled] == 0).all()
    assert inputs.behaviour[inputs.sampled].min() < -0.5  # unsure indeed
    largest = differences(inputs.batch, inputs.behaviour, inputs.sampled, unsure)
    print(f"{int(inputs.sampled.sum())} sampled tokens: largest difference {largest:.2g}; {[one.parallel for one in rollouts]}")
    assert largest <= TOLERANCE

    # The check can fail: the same tokens as plain causal text differ.
    plain = inputs.batch.positions.copy()
    plain[:] = np.arange(length)
    owners = inputs.batch.owners.copy()
    owners[1:] = -1
    wrong = differences(type(inputs.batch)(inputs.batch.ids, plain, inputs.batch.targets, owners), inputs.behaviour, inputs.sampled, unsure)
    assert wrong > 100 * TOLERANCE

    # Addresses are those of the server's events.
    forked = next(one for one in rollouts if one.parallel["blocks"])
    addresses = rollout.branch_of_each_token(forked, encoder)
    assert addresses[0] == "" and {"1.1", "1.2"} <= set(addresses) and len(set(addresses)) == 1 + forked.parallel["paths"]


def test_a_rollout_that_the_server_read_otherwise_is_refused():
    encoder = trees.encoder(rollout.LEVELS)
    tokens = encoder.encode_text(trees.block(random.Random(1), 3))
    forced = ~encoder.from_rollout([1], tokens).loss[1:]
    logprobs = [None if written else -0.5 for written in forced]
    counts = {"blocks": 1, "malformed": 0}
    rollout.read(rollout.Rollout([1], tokens, logprobs, "", "stop", counts), encoder)
    with pytest.raises(ValueError, match="the server wrote tokens"):
        rollout.read(rollout.Rollout([1], tokens, [-0.5] * len(tokens), "", "stop", counts), encoder)
    with pytest.raises(ValueError, match=r"'blocks': \(2, 1\)"):
        rollout.read(rollout.Rollout([1], tokens, logprobs, "", "stop", counts | {"blocks": 2}), encoder)


def test_the_example_runs_as_its_page_says(url, unsure, tmp_path):
    command = [sys.executable, str(trees.ROOT / "scripts/train/rl_example"), "--url", url, "--weights", str(unsure), "--samples", "2",
               "--json", str(tmp_path / "figures.json")]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((tmp_path / "figures.json").read_text())["largest"] <= TOLERANCE
