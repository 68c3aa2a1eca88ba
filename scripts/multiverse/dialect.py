"""A dialect file (configs/dialects): the names of a model family's control tokens, and the separator that the engine writes."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "configs" / "dialects"
NAMES = ("block_open", "block_close", "goal_open", "fork", "outline_open", "outline_close", "path_open", "path_close",
         "conclusion_open", "conclusion_close", "think_open", "think_close")  # fmt: skip
# Without block_open a goal_open opens a block too, without block_close a conclusion_close closes one too.
OPTIONAL = frozenset(("block_open", "block_close", "think_open", "think_close"))
NO_BOUND = 1 << 30

# A string, kept, or a comment, dropped: a "//" within a string is none.
_STRING_OR_COMMENT = re.compile(r'("(?:[^"\\]|\\.)*")|//[^\n]*')


@dataclass(frozen=True)
class Dialect:
    """The control tokens as their texts, by the dialect file's names for them; "" where it has none."""

    name: str
    separator: str
    goal_open: str
    fork: str
    outline_open: str
    outline_close: str
    path_open: str
    path_close: str
    conclusion_open: str
    conclusion_close: str
    block_open: str = ""
    block_close: str = ""
    think_open: str = ""
    think_close: str = ""
    max_depth: int = NO_BOUND  # of forks; 1 where blocks don't nest

    @staticmethod
    def load(name_or_path: str | Path) -> Dialect:
        """A name of configs/dialects, or a file. ValueError where the file lacks a token or has an unknown one."""
        path = Path(name_or_path)
        if path.suffix != ".json":
            path = FOLDER / f"{name_or_path}.json"
        if not path.is_file():
            known = ", ".join(sorted(p.stem for p in FOLDER.glob("*.json")))
            raise ValueError(f"no dialect file {path}; known by name: {known}")
        data = json.loads(_STRING_OR_COMMENT.sub(lambda m: m[1] or "", path.read_text(encoding="utf-8")))
        tokens = data["tokens"]
        missing, unknown = set(NAMES) - OPTIONAL - set(tokens), set(tokens) - set(NAMES)
        if missing or unknown:
            raise ValueError(f"{path}: missing tokens {sorted(missing)}, unknown {sorted(unknown)}")
        return Dialect(data["name"], data["separator"], max_depth=data.get("max_depth", NO_BOUND), **tokens)

    @property
    def control_tokens(self) -> tuple[str, ...]:
        return tuple(getattr(self, name) for name in NAMES if getattr(self, name))
