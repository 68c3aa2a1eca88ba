"""The training's decoder against the oracle: a scripted model, so that what it "samples" is a known solution."""

import random
import sys
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts" / "train"))

try:
    import torch
    from tokenizers import Tokenizer

    import decode
    import structure
    import tiny_chat
    import tiny_tasks
    from model import Tiny
    from multiverse import structure as oracle
except ImportError as error:
    raise unittest.SkipTest(f"needs torch and tokenizers: {error}") from error

CONFIG = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "vocab_size": 512,
}  # fmt: skip


class Scripted(decode.Cache):
    """Runs the model, notes the logits, and hands out the solution's tokens instead."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.inner, self.logits = self.model, None
        self.model = self.note
        self.seen = {}  # (request, branch, index in the branch) -> logits of the next token
        self.cursor = {}

    def note(self, *arguments):
        self.logits = self.inner(*arguments)
        return self.logits

    def forward(self, requests):
        pending = [list(r.pending) for r in requests]
        super().forward(requests)
        out = []
        for row, entries in enumerate(pending):
            tokens = []
            for column, (*_, branch) in enumerate(entries):
                if branch is None:
                    tokens.append(0)
                    continue
                key = (row, branch.owners, sum(isinstance(t, int) for t in branch.tokens))
                self.seen[key] = self.logits[row, column]
                tokens.append(self.script[key])
            out.append(tokens)
        return out


class Decode(unittest.TestCase):
    def setUp(self):
        self.tokenizer = Tokenizer.from_file(str(ROOT / "models" / "multiverse-tiny" / "tokenizer.json"))
        self.controls = c = structure.Controls.of(self.tokenizer)
        label = frozenset(self.tokenizer.encode("0123456789.:").ids)
        self.ids = oracle.ControlTokens(
            c.parallel, c.end_parallel, c.goal, c.end_goal, c.path, c.end_path, c.conclusion, c.newline, label, frozenset([c.colon])
        )

    def test_decodes_what_the_oracle_reads(self):
        rng = random.Random(4)
        torch.manual_seed(1)
        model = Tiny(CONFIG).double().eval()
        for family in ("nested", "gcd", "short"):
            drawn = [tiny_tasks.draw_problem(rng, family) for _ in range(20)]
            problem = min(drawn, key=lambda p: len(tiny_tasks.solution(p, parallel=True)))  # the test takes a pass for each token
            prompt = self.tokenizer.encode(tiny_chat.prompt(problem.question)).ids
            reply = self.tokenizer.encode(tiny_tasks.solution(problem, parallel=True) + "<|im_end|>").ids
            whole = prompt + reply
            expected = oracle.reference(whole, self.ids)
            layout = structure.layout(whole, self.controls)

            # What each branch samples, by its owners and how many tokens it has so far.
            script, rows, count = {}, {}, {}
            for i in range(len(prompt), len(whole)):
                owners = tuple(int(level[i]) for level in layout.owner)
                key = (0, owners, count.get(owners, 0))
                count[owners] = count.get(owners, 0) + 1
                if not expected.forced[i]:
                    script[key], rows[key] = whole[i], i - 1

            caches = []

            def cache(*arguments, script=script, caches=caches):
                caches.append(Scripted(*arguments))
                caches[0].script = script
                return caches[0]

            original, decode.Cache = decode.Cache, cache
            try:
                (request,) = decode.decode(model, CONFIG, self.tokenizer, [prompt])
            finally:
                decode.Cache = original
            self.assertEqual(request.reply(), reply)
            depth = [step for i, step in enumerate(expected.token_step) if i >= len(prompt)]
            self.assertEqual(request.steps, max(depth) + 1 - len(prompt))
            self.assertEqual(request.used, len(reply))
            self.assertEqual(request.malformed, 0)

            mask = torch.from_numpy(layout.visible())[None, None]
            with torch.no_grad():
                attend = lambda q, k, v: torch.nn.functional.scaled_dot_product_attention(  # noqa: E731
                    q, k.repeat_interleave(2, 1), v.repeat_interleave(2, 1), attn_mask=mask
                )
                logits = model(torch.tensor([whole]), torch.from_numpy(layout.position)[None], attend)[0]
            for key, i in rows.items():
                torch.testing.assert_close(caches[0].seen[key], logits[i], atol=1e-6, rtol=1e-5)


if __name__ == "__main__":
    unittest.main()
