"""What the Curator reads and writes: items, their reasoning and answer, and the lines of its output files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from multiverse.dialect import Dialect

PARALLEL_WORDING = " Think step by step and in parallel before answering."
SEQUENTIAL_WORDING = " Think step by step before answering."

QUESTION_FIELDS, RESPONSE_FIELDS = ("question", "user", "problem", "prompt"), ("response", "completion", "solution")
_THOUGHT = re.compile(r"^\s*<think>\s*(.*?)\s*</think>\s*(.*)$", re.DOTALL | re.IGNORECASE)
_FINAL = re.compile(r"^\s*(?:\*\*\s*final answer\s*:?\s*\*\*|#+\s*final answer\b.*|final answer:?|answer:.*)", re.IGNORECASE | re.MULTILINE)
_STATED = (re.compile(r"(?:final answer is|answer is|^\s*\**answer\**:)\s*:?\s*(.+?)\s*$", re.IGNORECASE | re.MULTILINE),)


class ItemError(ValueError):
    """The item cannot be curated; the message says why."""


@dataclass(frozen=True)
class Item:
    id: str
    question: str
    reasoning: str  # without think tags
    final: str  # what is said after thinking
    answer: str  # as `stated_answer` gives it

    @staticmethod
    def read(record: dict, fallback_id: str) -> Item:
        question = _first_string(record, QUESTION_FIELDS)
        response = _first_string(record, RESPONSE_FIELDS)
        thought = _THOUGHT.match(response)
        if thought:
            reasoning, final = thought[1], thought[2]
        else:
            reasoning, final = _split(response.strip())
        answer = stated_answer(final) or stated_answer(reasoning)
        if not answer:
            raise ItemError("the response states no answer: \\boxed{…}, 'the final answer is …' or 'Answer: …'")
        if not stated_answer(final):
            reasoning, final = f"{reasoning.rstrip()}\n{final}", f"Answer: {answer}"
        return Item(str(record.get("id", fallback_id)), question, reasoning.strip(), final.strip(), answer)


def _first_string(record: dict, fields: tuple[str, ...]) -> str:
    for field in fields:
        if isinstance(record.get(field), str) and record[field].strip():
            return record[field]
    raise ItemError(f"the item has none of the fields {', '.join(fields)} as text")


def _split(response: str) -> tuple[str, str]:
    """Reasoning and final statement of a response without think tags: cut at a heading, else before the last line."""
    response = re.sub(r"</?think>", "", response, flags=re.IGNORECASE).strip()
    headings = list(_FINAL.finditer(response))
    if headings and headings[-1].start() > 0:
        return response[: headings[-1].start()], response[headings[-1].start() :]
    head, _, last = response.rpartition("\n")
    return (head, last) if head else (response, "")


def stated_answer(text: str) -> str | None:
    """The answer that a text states last, without decoration, for comparison."""
    boxed = _boxed(text)
    if boxed is not None:
        return _bare(boxed)
    stated = [match for pattern in _STATED for match in pattern.finditer(text)]
    return _bare(stated[-1][1]) if stated else None


def _boxed(text: str) -> str | None:
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    depth, at = 1, start + len("\\boxed{")
    for i in range(at, len(text)):
        depth += (text[i] == "{") - (text[i] == "}")
        if depth == 0:
            return text[at:i]
    return None


def _bare(answer: str) -> str:
    answer = re.sub(r"\\[()\[\]]", "", re.sub(r"\s+", " ", answer))  # \( \) \[ \]
    return answer.strip(" .*$`\"'")


def conversation(item: Item, thought: str, wording: str, dialect: Dialect) -> list[dict]:
    """The training conversation of an item: the question with its wording, and the answer."""
    answer = f"{dialect.think_open}\n{thought.strip()}\n{dialect.think_close}\n{item.final}"
    return [{"role": "user", "content": item.question.rstrip() + wording}, {"role": "assistant", "content": answer}]


def records(path: Path) -> Iterator[tuple[str, dict | ValueError]]:
    """(id to fall back on, record or what is wrong with it) of a .jsonl file or of all that a folder holds, in the order of names."""
    files = sorted(path.glob("**/*.jsonl")) if path.is_dir() else [path]
    if not files:
        raise ItemError(f"{path} holds no .jsonl file")
    for file in files:
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
                yield f"{file.stem}:{number}", record if isinstance(record, dict) else ItemError("the line is no JSON object")
            except json.JSONDecodeError as error:
                yield f"{file.stem}:{number}", error
