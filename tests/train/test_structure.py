"""The training's positions and mask against the oracle, on generated solutions, nested ones too."""

import json
import random
import sys
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts" / "train"))

try:
    from tokenizers import Tokenizer

    import structure
    import tiny_chat
    import tiny_tasks
    from multiverse import structure as oracle
except ImportError as error:
    raise unittest.SkipTest(f"needs numpy and tokenizers: {error}") from error


class Structure(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.tokenizer = Tokenizer.from_file(str(ROOT / "models" / "multiverse-tiny" / "tokenizer.json"))
        cls.controls = c = structure.Controls.of(cls.tokenizer)
        label = frozenset(cls.tokenizer.encode("0123456789.:").ids)
        cls.ids = oracle.ControlTokens(
            c.parallel, c.end_parallel, c.goal, c.end_goal, c.path, c.end_path, c.conclusion, c.newline, label, frozenset([c.colon])
        )

    def check(self, text):
        tokens = self.tokenizer.encode(text).ids
        expected = oracle.reference(tokens, self.ids)
        got = structure.layout(tokens, self.controls)
        self.assertEqual(expected.malformed, [])
        self.assertEqual(got.position.tolist(), expected.position)
        self.assertEqual(got.forced.tolist(), expected.forced)
        visible = got.visible()
        for i, row in enumerate(expected.visible):
            self.assertEqual(visible[i, : i + 1].tolist(), row, f"row {i}")
            # The loss shifts by one: a sampled token's logits stand right before it.
            if i and not expected.forced[i]:
                self.assertEqual(expected.previous[i], i - 1)

    def test_solutions(self):
        rng = random.Random(5)
        for family in tiny_tasks.FAMILIES:
            problem = tiny_tasks.draw_problem(rng, family)
            self.check(tiny_chat.prompt(problem.question) + tiny_tasks.solution(problem, parallel=True))

    def test_two_turns(self):
        rng = random.Random(6)
        text = ""
        for family in ("nested", "letter"):
            problem = tiny_tasks.draw_problem(rng, family)
            text += tiny_chat.prompt(problem.question) + tiny_tasks.solution(problem, parallel=True) + "<|im_end|>\n"
        self.check(text)

    def test_refuses_malformed_text(self):
        for text in ("<Path>", "<Parallel>\n<Goal>\n</Goal>\n"):
            with self.assertRaises(ValueError):
                structure.layout(self.tokenizer.encode(text).ids, self.controls)


class Tasks(unittest.TestCase):
    def test_held_out_problems_are_never_drawn(self):
        rng = random.Random(8)
        held_out = {p.canonical for p in tiny_tasks.held_out_problems(60)}
        for family in tiny_tasks.FAMILIES:
            for _ in range(20):
                problem = tiny_tasks.draw_problem(rng, family)
                self.assertFalse(problem.held_out)
                self.assertNotIn(problem.canonical, held_out)

    def test_shipped_problems_are_those_held_out(self):
        shipped = (ROOT / "models" / "multiverse-tiny" / "heldout.jsonl").read_text().splitlines()
        self.assertGreaterEqual(len(shipped), 500)
        for line, problem in zip(shipped, tiny_tasks.held_out_problems(48)):
            expected = {"question": problem.question, "answer": problem.answer, "family": problem.family, "parts": problem.parts}
            self.assertEqual(json.loads(line), expected)


if __name__ == "__main__":
    unittest.main()
