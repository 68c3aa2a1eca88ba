"""The executor against transformers: log-probabilities of causal texts and of trees, on small random models."""

import json
import os
import pathlib
import random
import subprocess

import pytest
import torch
import transformers

from make_random_model import make, rewrite_as_transformers_4

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHECK = pathlib.Path(os.environ.get("MULTIVERSE_BUILD", ROOT / "build" / "release")) / "tests" / "executor_check"
PAGE = 16
TOLERANCE = 2e-4

# family, config keys of transformers 4, dtype of the file, shards
MODELS = [
    ("qwen2", False, "float32", False),
    ("qwen2", True, "bfloat16", True),
    ("qwen2-tied", False, "bfloat16", False),
    ("qwen3", False, "float32", True),
    ("qwen3", True, "float16", False),
    ("llama3", False, "float32", False),
    ("llama3", True, "bfloat16", False),
    ("llama-bias", False, "float32", False),
]


class Executor:
    def __init__(self, folder, *options):
        assert CHECK.exists(), f"{CHECK} is not built: cmake --build --preset release --target executor_check"
        self.process = subprocess.Popen(
            [CHECK, str(folder), "--kv-bytes", str(64 << 20), *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.info = json.loads(self.process.stdout.readline())

    def execute(self, plan):
        self.process.stdin.write(json.dumps(plan) + "\n")
        self.process.stdin.flush()
        result = json.loads(self.process.stdout.readline())
        assert "error" not in result, result
        return result["samples"]

    def close(self):
        self.process.stdin.close()
        assert self.process.wait(timeout=30) == 0


class Segment:
    """A run of tokens with its own pages, as the scheduler keeps them."""

    next_page = 0

    def __init__(self, tokens, first_position, parents):
        self.tokens, self.first_position, self.parents = tokens, first_position, parents
        count = (len(tokens) + PAGE - 1) // PAGE
        self.pages = list(range(Segment.next_page, Segment.next_page + count))
        Segment.next_page += count
        self.computed = 0


def plan_of(parts, vocab):
    """One step that computes `count` more tokens of each segment of `parts` and samples every row: all log-probabilities."""
    plan = {"rows": [], "pages": [], "items": [], "samples": []}
    for segment, count in parts:
        begin = len(plan["rows"])
        for index in range(segment.computed, segment.computed + count):
            plan["samples"].append({"row": len(plan["rows"]), "top_logprobs": vocab})
            plan["rows"].append(
                [segment.tokens[index], segment.first_position + index, segment.pages[index // PAGE], index % PAGE]
            )
        segment.computed += count
        end = len(plan["rows"])
        for seen in segment.parents + [segment]:
            total = segment.computed if seen is segment else len(seen.tokens)
            plan["items"].append([len(plan["pages"]), total, begin, end, seen is segment])
            plan["pages"] += seen.pages[: (total + PAGE - 1) // PAGE]
    return plan


def logprobs_of(samples, vocab):
    out = torch.full((len(samples), vocab), float("nan"))
    for i, sample in enumerate(samples):
        for token, logprob in sample["top"]:
            out[i, token] = logprob
    assert not out.isnan().any()
    return out


def expected(model, tokens, positions, visible):
    mask = torch.full((len(tokens), len(tokens)), torch.finfo(torch.float32).min)
    mask[torch.tensor(visible)] = 0
    with torch.no_grad():
        logits = model(
            input_ids=torch.tensor([tokens]), position_ids=torch.tensor([positions]), attention_mask=mask[None, None]
        ).logits[0]
    return torch.log_softmax(logits.float(), -1)


def report(name, got, want):
    error = (got - want).abs()
    where = divmod(int(error.argmax()), got.shape[1])
    print(f"{name}: max error {error.max():.2e} at row {where[0]}, token {where[1]}; tolerance {TOLERANCE:.0e}")
    assert error.max() <= TOLERANCE


@pytest.fixture(scope="module", params=MODELS, ids=lambda p: "-".join([p[0], "v4" if p[1] else "v5", p[2]]))
def pair(request, tmp_path_factory):
    family, old_keys, dtype, shards = request.param
    folder = tmp_path_factory.mktemp("model")
    seed = random.SystemRandom().randrange(1 << 30)
    print(f"seed {seed}")
    make(family, folder, False, dtype, seed, shards)
    # Read back rather than converted: a converted model would keep its rotary frequencies rounded to the file's type.
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    if old_keys:
        rewrite_as_transformers_4(folder)
    executor = Executor(folder)
    yield model, executor, random.Random(seed)
    executor.close()


def test_causal_text(pair):
    model, executor, rng = pair
    vocab = executor.info["vocab_size"]
    length = 333
    tokens = [rng.randrange(vocab) for _ in range(length)]
    segment = Segment(tokens, 0, [])
    rows = []
    for count in (100, 1, 1, 130, 37, 1, 63):  # a prompt in chunks, decode steps between them
        rows += executor.execute(plan_of([(segment, count)], vocab))
    visible = [[j <= i for j in range(length)] for i in range(length)]
    report("causal", logprobs_of(rows, vocab), expected(model, tokens, list(range(length)), visible))


def test_far_positions(pair):
    model, executor, rng = pair
    vocab = executor.info["vocab_size"]
    tokens = [rng.randrange(vocab) for _ in range(40)]
    first = executor.info["max_position"] - 40
    rows = executor.execute(plan_of([(Segment(tokens, first, []), 40)], vocab))
    visible = [[j <= i for j in range(40)] for i in range(40)]
    report("far", logprobs_of(rows, vocab), expected(model, tokens, list(range(first, first + 40)), visible))


def test_tree(pair):
    """A prompt, three paths of unequal length computed side by side, and a conclusion that sees them all."""
    model, executor, rng = pair
    vocab = executor.info["vocab_size"]
    draw = lambda count: [rng.randrange(vocab) for _ in range(count)]
    root = Segment(draw(53), 0, [])
    paths = [Segment(draw(count), 53, [root]) for count in (21, 5, 40)]
    conclusion = Segment(draw(18), 53 + 40, [root, *paths])

    results = {segment: [] for segment in (root, *paths, conclusion)}

    def step(*parts):
        samples = executor.execute(plan_of(parts, vocab))
        for segment, count in parts:
            results[segment] += samples[:count]
            samples = samples[count:]

    step((root, 53))
    step((paths[0], 3), (paths[1], 3), (paths[2], 3))
    for _ in range(2):
        step(*[(path, 1) for path in paths])
    step((paths[0], 16), (paths[2], 30))
    step((paths[2], 5), (conclusion, 2))  # the last path's end and the conclusion's header in one step
    step((conclusion, 16))

    order = [root, *paths, conclusion]
    owner = [segment for segment in order for _ in segment.tokens]
    positions = [segment.first_position + i for segment in order for i in range(len(segment.tokens))]
    visible = [
        [j <= i and (owner[j] is owner[i] or owner[j] in owner[i].parents) for j in range(len(owner))]
        for i in range(len(owner))
    ]
    tokens = [token for segment in order for token in segment.tokens]
    got = logprobs_of([sample for segment in order for sample in results[segment]], vocab)
    report("tree", got, expected(model, tokens, positions, visible))


def test_greedy_and_given(pair):
    model, executor, rng = pair
    vocab = executor.info["vocab_size"]
    tokens = [rng.randrange(vocab) for _ in range(20)]
    plan = plan_of([(Segment(tokens, 0, []), 20)], vocab)
    plan["samples"] = [{"row": 19, "top_logprobs": 3}, {"row": 19, "given": 7}, {"row": 4, "given": tokens[5]}]
    greedy, given, prompt = executor.execute(plan)
    want = expected(model, tokens, list(range(20)), [[j <= i for j in range(20)] for i in range(20)])
    assert greedy["token"] == int(want[19].argmax())
    assert [token for token, _ in greedy["top"]] == want[19].topk(3).indices.tolist()
    assert abs(given["logprob"] - float(want[19, 7])) <= TOLERANCE and given["token"] == 7
    assert abs(prompt["logprob"] - float(want[4, tokens[5]])) <= TOLERANCE
