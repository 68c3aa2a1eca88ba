"""Tasks: what is asked, in which words, and what is right. A task is a file in tasks/; its problems come from a local file or,
by name, from a data set hub's row service."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import random
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(__file__).resolve().parent / "tasks"
KINDS = ("math", "choice", "exact")
LETTERS = "ABCDEFGHIJ"
ROWS_SERVICE = "https://datasets-server.huggingface.co/rows"
ROWS_AT_ONCE = 100  # the service's limit


class TaskError(Exception):
    """The task or its data can't be used; the message says what to do."""


@dataclass(frozen=True)
class Problem:
    id: str
    question: str  # as it stands in the prompt, without wording
    answer: str
    family: str = ""
    choices: int = 0  # of a multiple choice


@dataclass(frozen=True)
class Task:
    name: str
    title: str
    kind: str  # how answers are compared: one of KINDS
    template: str
    wordings: dict[str, str]  # name: what is appended to the question
    max_tokens: int
    fields: dict[str, list[str]]  # ours: the names that data have for it, the first found is taken
    file: Path | None = None
    hub: dict[str, str] = field(default_factory=dict)

    @staticmethod
    def load(name_or_path: str) -> Task:
        path = Path(name_or_path)
        if path.suffix != ".json":
            path = FOLDER / f"{name_or_path}.json"
        if not path.is_file():
            known = ", ".join(sorted(p.stem for p in FOLDER.glob("*.json")))
            raise TaskError(f"there is no task '{name_or_path}'; known: {known}, or the path of a task's .json file")
        data = json.loads(path.read_text(encoding="utf-8"))
        try:
            if data["kind"] not in KINDS:
                raise TaskError(f"{path}: kind is '{data['kind']}', not one of {', '.join(KINDS)}")
            return Task(
                path.stem, data["title"], data["kind"], data["template"], data["wordings"], data["max_tokens"],
                data["fields"], ROOT / data["file"] if "file" in data else None, data.get("hub", {}),
            )  # fmt: skip
        except KeyError as error:
            raise TaskError(f"{path}: the field {error} is missing") from error

    def problems(self, data: Path | None = None, seed: int = 0) -> list[Problem]:
        """In the order of the data. `seed` orders the choices of multiple choices."""
        source = data or self.file
        rows = read_rows(source) if source else hub_rows(self.hub, cache_folder())
        problems = [self._problem(row, index, seed) for index, row in enumerate(rows)]
        if not problems:
            raise TaskError(f"{source or self.hub.get('dataset')}: no problems")
        repeated = len(problems) - len({problem.id for problem in problems})
        if repeated:
            raise TaskError(f"{source or self.hub.get('dataset')}: {repeated} ids are there twice")
        return problems

    def prompt(self, problem: Problem, wording: str) -> str:
        return problem.question + self.wordings[wording]

    def _problem(self, row: dict, index: int, seed: int) -> Problem:
        question, answer = self._value(row, "question", index), self._value(row, "answer", index)
        id = str(self._value(row, "id", index, default=str(index)))
        choices, text = "", str(question)
        wrong = [str(row[name]) for name in self.fields.get("wrong", []) if row.get(name) not in (None, "")]
        if self.kind == "choice":
            if not wrong:
                raise TaskError(f"problem {id} has no wrong choices; expected the fields {', '.join(self.fields.get('wrong', []))}")
            order = [str(answer).strip(), *(one.strip() for one in wrong)]
            random.Random(f"{seed} {id}").shuffle(order)
            choices = "\n".join(f"({letter}) {one}" for letter, one in zip(LETTERS, order))
            answer = LETTERS[order.index(str(answer).strip())]
        text = self.template.format(question=text, choices=choices)
        return Problem(id, text, str(answer), str(self._value(row, "family", index, default="")), len(wrong) + 1 if wrong else 0)

    def _value(self, row: dict, name: str, index: int, default: str | None = None):
        for candidate in self.fields.get(name, []):
            if row.get(candidate) not in (None, ""):
                return row[candidate]
        if default is not None:
            return default
        raise TaskError(f"row {index} has none of {', '.join(self.fields.get(name, []))} for '{name}'; it has {', '.join(map(str, row))}")


def read_rows(path: Path) -> list[dict]:
    """Rows of a .jsonl, .json (a list, or {"rows": […]}) or .csv file."""
    if not path.is_file():
        raise TaskError(f"there is no file {path}")
    text = path.read_text(encoding="utf-8")
    try:
        if path.suffix == ".csv":
            return list(csv.DictReader(text.splitlines(keepends=True)))
        if path.suffix == ".json":
            data = json.loads(text)
            return data["rows"] if isinstance(data, dict) else data
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    except (ValueError, KeyError) as error:
        raise TaskError(f"{path} can't be read as {path.suffix or 'JSON lines'}: {error}") from error


def cache_folder() -> Path:
    return ROOT / "build" / "datasets"


def hub_rows(hub: dict[str, str], cache: Path, service: str = ROWS_SERVICE, sleep: Callable[[float], None] = time.sleep) -> list[dict]:
    """All rows of a data set's split, kept in `cache`. HF_TOKEN is sent where it is set (some data sets want it)."""
    kept = cache / f"{hub['dataset'].replace('/', '--')}-{hub['config']}-{hub['split']}.jsonl"
    if kept.is_file():
        return read_rows(kept)
    rows: list[dict] = []
    while True:
        query = {"dataset": hub["dataset"], "config": hub["config"], "split": hub["split"], "offset": len(rows), "length": ROWS_AT_ONCE}
        page = _fetch(f"{service}?{urllib.parse.urlencode(query)}", hub["dataset"], sleep)
        rows += [entry["row"] for entry in page["rows"]]
        if len(rows) >= page["num_rows_total"]:
            break
        if not page["rows"]:
            raise TaskError(f"{hub['dataset']}: the hub sent {len(rows)} of {page['num_rows_total']} rows and no more")
    cache.mkdir(parents=True, exist_ok=True)
    partial = kept.with_suffix(".partial")
    partial.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    partial.rename(kept)
    return rows


def _fetch(url: str, dataset: str, sleep: Callable[[float], None], tries: int = 4) -> dict:
    headers = {"Authorization": f"Bearer {os.environ['HF_TOKEN']}"} if os.environ.get("HF_TOKEN") else {}
    advice = "give the problems as a local file with --data FILE (.jsonl, .json or .csv)"
    for attempt in range(tries):
        try:
            with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            if error.code not in (429, 500, 502, 503) or attempt + 1 == tries:
                need = "; the data set may need you to accept its terms and set HF_TOKEN" if error.code in (401, 403, 404) else ""
                raise TaskError(f"the hub answered {error.code} for {dataset}{need}; or {advice}") from error
        except (OSError, ValueError) as error:
            if attempt + 1 == tries:
                raise TaskError(f"the hub can't be reached for {dataset} ({error}); {advice}") from error
        sleep(2.0**attempt)
    raise AssertionError("not reached")


def sample_seed(seed: int, problem: str, sample: int) -> int:
    """The seed that a request carries: the same for every wording and budget, so that they are compared on equal terms."""
    return int.from_bytes(hashlib.sha256(f"{seed} {problem} {sample}".encode()).digest()[:6], "big")


def chosen(problems: Iterable[Problem], limit: int | None) -> list[Problem]:
    """The first `limit` problems, spread over families where there are some: data often come sorted by family."""
    problems = list(problems)
    if limit is None or limit >= len(problems):
        return problems
    families: dict[str, list[Problem]] = {}
    for problem in problems:
        families.setdefault(problem.family, []).append(problem)
    taken: set[str] = set()
    turn = 0
    while len(taken) < limit:
        for members in families.values():
            if turn < len(members) and len(taken) < limit:
                taken.add(members[turn].id)
        turn += 1
    return [problem for problem in problems if problem.id in taken]
