"""The five stages of one item. Each asks, checks the reply by program, and asks again with what was wrong, a bounded number of times."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from multiverse.curate import checks, outline
from multiverse.curate.checks import CheckFailed
from multiverse.curate.client import Endpoint, Unusable
from multiverse.curate.items import Item
from multiverse.dialect import Dialect

PROMPTS = Path(__file__).resolve().parent / "prompts"


@dataclass(frozen=True)
class Limits:
    tries: int = 3  # of each stage
    refill_similarity: float = 0.8  # of the refilled with the original reasoning
    final_similarity: float = 0.5  # the same after paths were made to stand alone


class Rejected(Exception):
    """The item ends here: the stage, the reason, and what each try was told."""

    def __init__(self, stage: str, reason: str, tries: list[str]):
        super().__init__(reason)
        self.stage, self.reason, self.tries = stage, reason, tries


@dataclass
class Trail:
    """How an item came to be."""

    prompts: str
    tries: dict[str, int] = field(default_factory=dict)  # by stage
    similarity: float = 0.0  # of the final text with the original reasoning


class Prompts:
    """The prompt files of one version. `{name}` in them is filled in; what is filled in is never looked at again."""

    def __init__(self, version: str):
        folder = PROMPTS / version
        if not folder.is_dir():
            raise ValueError(f"no prompts {version!r}; there are {', '.join(sorted(p.name for p in PROMPTS.iterdir()))}")
        self.version = version
        self.texts = {file.stem: file.read_text(encoding="utf-8") for file in folder.glob("*.txt")}

    def fill(self, stage: str, values: dict[str, str]) -> str:
        return re.sub(r"\{(\w+)\}", lambda m: values[m[1]], self.texts[stage])


class Curator:
    def __init__(self, endpoint: Endpoint, dialect: Dialect, prompts: Prompts, limits: Limits):
        self.endpoint, self.dialect, self.prompts, self.limits = endpoint, dialect, prompts, limits

    async def curate(self, item: Item) -> tuple[str, Trail]:
        """The structured reasoning. Raises Rejected; Unavailable and Refused come through from the endpoint."""
        d, limits, trail = self.dialect, self.limits, Trail(self.prompts.version)
        values = asdict(d) | {"question": item.question, "reasoning": item.reasoning}

        async def stage(name: str, read: Callable[[str], Any]) -> Any:
            return await self._stage(name, values, read, trail)

        steps = await stage("1_summary", outline.parse_tree)
        values["tree"] = "\n".join(f"{label}: {title}" for label, title in steps.items())
        groups = await stage("2_parallel", lambda text: outline.parse_groups(text, steps))
        if not groups:
            raise Rejected("2_parallel", "no steps can run in parallel", [])
        values["groups"] = "\n".join("parallel: " + ", ".join(group) for group in groups)

        def skeleton_of(text: str) -> str:
            outline.check_skeleton(text := _unfenced(text), steps, groups, d)
            return text

        skeleton = await stage("3_reformat", skeleton_of)
        values["leaves"] = ", ".join(outline.leaves(steps))

        def filled(text: str) -> str:
            parts = outline.parse_refill(_unfenced(text), steps, d)
            checks.check_similar("\n".join(parts.values()), item.reasoning, limits.refill_similarity)
            whole = outline.PLACEHOLDER.sub(lambda m: parts[m[1]], skeleton)
            checks.check_grammar(whole, d)
            return whole

        values["text"] = await stage("4_refill", filled)

        def complete(text: str) -> str:
            text = _unfenced(text)
            checks.check_grammar(text, d)
            if _shape(text, d) != _shape(values["text"], d):
                raise CheckFailed("the tags and labels are not those of the given text: keep them and their order")
            empty = re.search(rf"{re.escape(d.conclusion_open)}\s*{re.escape(d.conclusion_close)}", text)
            if empty:
                raise CheckFailed(f"there is an empty {d.conclusion_open}: write what the paths found")
            checks.check_no_siblings(text, d)
            checks.check_similar(checks.plain(text, d), item.reasoning, limits.final_similarity)
            return text

        final = await stage("5_complete", complete)
        checks.check_answer(item.final, item.answer)
        trail.similarity = round(checks.similarity(checks.plain(final, d), item.reasoning), 3)
        return final, trail

    async def _stage(self, name: str, values: dict[str, str], read: Callable[[str], Any], trail: Trail) -> Any:
        prompt, told = self.prompts.fill(name, values), []
        for number in range(self.limits.tries):
            trail.tries[name] = number + 1
            again = f"\n\nAn earlier reply was refused: {told[-1]}. Mind that." if told else ""
            try:
                return read(await self.endpoint.complete(prompt + again, seed=number))
            except (CheckFailed, Unusable) as error:
                told.append(str(error))
        raise Rejected(name, told[-1], told)


def _unfenced(text: str) -> str:
    """Without the code fence that models like to put around a text."""
    match = re.fullmatch(r"\s*```\w*\n(.*?)\n?```\s*", text, re.DOTALL)
    return (match[1] if match else text).strip()


def _shape(text: str, dialect: Dialect) -> list[str]:
    """Tags, with the labels after outlines and paths."""
    tags = "|".join(map(re.escape, dialect.control_tokens))
    return [tag + (label or "") for tag, label in re.findall(rf"({tags})(?:\s*(\d+(?:\.\d+)*:))?", text)]
