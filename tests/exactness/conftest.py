"""What the exactness tests share: a seed, checkpoints, the vocabulary."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.exactness.models import ARCHITECTURES, NPR, TINY, write_model, write_npr_tokenizer
from multiverse.labels import LabelRule, Vocabulary, may_fork_for


@pytest.fixture(scope="session")
def seed() -> int:
    """New every run; printed, and repeated by MULTIVERSE_TEST_SEED."""
    value = int(os.environ.get("MULTIVERSE_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 2**31)
    print(f"\nseed {value} (MULTIVERSE_TEST_SEED repeats it)")
    return value


@pytest.fixture(scope="session")
def rule() -> LabelRule:
    """The server's default limits, over the vocabulary that all test models have."""
    if not (TINY / "tokenizer.json").exists():
        pytest.skip(f"the test models take their tokenizer from {TINY}, which has none")
    return may_fork_for(Vocabulary.load(TINY / "tokenizer.json"))


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory, seed: int, rule: LabelRule) -> dict[str, Path]:
    """Model directories by name: the random ones, and the trained one where its weights are."""
    directory = tmp_path_factory.mktemp("checkpoints")
    found = {a.name: write_model(a, directory, seed + n) for n, a in enumerate(ARCHITECTURES)}
    qwen3 = next(a for a in ARCHITECTURES if a.name == "qwen3")
    found[NPR] = write_model(qwen3, directory, seed + 10, write_npr_tokenizer(directory), NPR)
    if any(TINY.glob("*.safetensors")):
        found["multiverse-tiny"] = TINY
    return found
