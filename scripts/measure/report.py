"""An evaluation's report: summary as data, as Markdown, and plots."""

from __future__ import annotations

import json
import shlex
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

from measure.statistics import Share, majority, paired_difference, quantile, share


def command_line(name: str) -> str:
    return shlex.join([name, *sys.argv[1:]])


def summary(records: list[dict], about: dict, equal: Callable[[str, str], bool]) -> dict:
    """`equal`: whether two wrong answers are the same one, for majorities."""
    variants: dict[str, dict[str, list[dict]]] = {}
    for record in sorted(records, key=lambda r: r["sample"]):
        variants.setdefault(record["variant"], {}).setdefault(record["problem"], []).append(record)
    out = {"about": about, "variants": {name: _variant(problems, equal) for name, problems in variants.items()}}
    out["comparisons"] = _comparisons(variants)
    return out


def _variant(problems: dict[str, list[dict]], equal: Callable[[str, str], bool]) -> dict:
    answers = [record for records in problems.values() for record in records]
    answered = [record for record in answers if "error" not in record]
    samples = max(len(records) for records in problems.values())
    rights = [sum(r["right"] for r in records) / len(records) for records in problems.values()]
    out = {
        "problems": len(problems),
        "answers": len(answers),
        "refused": len(answers) - len(answered),
        "first_refusal": next((r["error"] for r in answers if "error" in r), None),
        "without_answer": sum(r["answer"] is None for r in answered),
        "cut_off": sum(r["finish_reason"] == "length" for r in answered),
        "malformed_answers": sum(r["malformed"] > 0 for r in answered),
        "with_blocks": sum(r["blocks"] > 0 for r in answered),
        "pass@1": vars(share(rights, samples)),
        "counted_by": sorted({r["counted_by"] for r in answered}),
    }
    if samples > 1:
        votes = [majority([r.get("answer") for r in records], [r["right"] for r in records], equal) for records in problems.values()]
        out[f"maj@{samples}"] = vars(share(votes))
    if answered:
        for name in ("tokens", "critical_path_tokens", "steps", "blocks", "max_width", "max_depth", "seconds"):
            values = [r[name] for r in answered]
            out[name] = {"mean": statistics.fmean(values), "median": quantile(values, 0.5), "max": max(values)}
        path = sum(r["critical_path_tokens"] for r in answered)
        out["parallelism"] = sum(r["tokens"] for r in answered) / path if path else None
        out["ms_per_token"] = quantile([1000 * r["seconds"] / r["tokens"] for r in answered if r["tokens"]], 0.5)
    families = sorted({r["family"] for r in answers if r["family"]})
    out["families"] = {f: {"right": sum(r["right"] for r in answers if r["family"] == f), "answers": sum(r["family"] == f for r in answers)} for f in families}
    return out


def _comparisons(variants: dict[str, dict[str, list[dict]]]) -> list[dict]:
    """Each variant against the first, over the problems that both have."""
    names = list(variants)
    out = []
    for name in names[1:]:
        a, b = variants[names[0]], variants[name]
        both = [p for p in a if p in b]
        mean = lambda records: statistics.fmean(r["right"] for r in records)  # noqa: E731
        difference = paired_difference([mean(a[p]) for p in both], [mean(b[p]) for p in both])
        tokens, path = (sum(r.get(key, 0) for p in both for r in which[p]) for which, key in ((b, "tokens"), (a, "critical_path_tokens")))
        out.append({"a": names[0], "b": name, "problems": len(both), "accuracy_difference": vars(difference),
                    "b_tokens_over_a_critical_path": tokens / path if path else None})  # fmt: skip
    return out


def write(folder: Path, result: dict, records: list[dict]) -> None:
    from measure import plots  # matplotlib takes a second to load

    (folder / "report.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    drawn = plots.evaluation(folder, result, records)
    text = markdown(result) + "".join(f"\n![{title}]({name})\n" for name, title in drawn)
    (folder / "report.md").write_text(text)


def markdown(result: dict) -> str:
    about, variants = result["about"], result["variants"]
    lines = [f"# {about['title']}: {about['model']}", "", f"{about['problems']} problems, {about['samples']} answers each, temperature "
             f"{about['temperature']}, seed {about['seed']}, {about['concurrency']} at once. Made by `{about['command']}`.", ""]  # fmt: skip
    lines += table(["", *variants], [(title, *(cell(variant) for variant in variants.values())) for title, cell in _rows(variants)])
    lines += ["", "Shares with 95 % intervals (Wilson; where a problem has several answers, at their effective number). Tokens ÷ critical "
              "path is over sums; latency depends on the machine and its load."]  # fmt: skip
    for one in result["comparisons"]:
        d = one["accuracy_difference"]
        ratio = one["b_tokens_over_a_critical_path"]
        lines += ["", f"{one['a']} against {one['b']}, {one['problems']} problems: accuracy {100 * d['value']:+.1f} points "
                  f"({100 * d['low']:+.1f} to {100 * d['high']:+.1f}, paired bootstrap)"
                  + (f"; tokens of the second ÷ critical path of the first: {ratio:.2f}" if ratio else "")]  # fmt: skip
    for name, variant in variants.items():
        if variant["first_refusal"]:
            lines += ["", f"{name}: {variant['refused']} requests refused, counted as wrong. The first: {variant['first_refusal']}"]
        if variant["counted_by"] and variant["counted_by"] != ["server"]:
            lines += ["", f"{name}: trees counted from texts ({', '.join(variant['counted_by'])}), not by the server."]
    families = sorted({f for variant in variants.values() for f in variant["families"]})
    if families:
        def cell(variant, family):
            counts = variant["families"].get(family)
            return f"{counts['right']}/{counts['answers']}" if counts else ""

        lines += ["", *table(["family", *variants], [(f, *(cell(v, f) for v in variants.values())) for f in families])]
    return "\n".join(lines) + "\n"


def _rows(variants: dict[str, dict]) -> list[tuple[str, Callable[[dict], str]]]:
    shares = [name for name in next(iter(variants.values())) if name == "pass@1" or name.startswith("maj@")]

    def mean(name: str, digits: int = 0) -> Callable[[dict], str]:
        return lambda v: f"{v[name]['mean']:,.{digits}f} (most {v[name]['max']:,.{digits}f})" if name in v else ""

    def plain(name: str) -> Callable[[dict], str]:
        return lambda v: f"{v[name]:,.2f}" if isinstance(v.get(name), float) else str(v.get(name, ""))

    return [
        *((f"{name}, 95 % interval", lambda v, name=name: str(Share(**v[name])) if name in v else "") for name in shares),
        ("answers", plain("answers")),
        ("no answer found", plain("without_answer")),
        ("cut off", plain("cut_off")),
        ("malformed structure", plain("malformed_answers")),
        ("with parallel blocks", plain("with_blocks")),
        ("tokens, mean", mean("tokens")),
        ("critical path, mean", mean("critical_path_tokens")),
        ("decode steps, mean", mean("steps")),
        ("tokens ÷ critical path", plain("parallelism")),
        ("blocks, mean", mean("blocks", 1)),
        ("width, mean", mean("max_width", 1)),
        ("depth, mean", mean("max_depth", 1)),
        ("latency, mean s", mean("seconds", 2)),
        ("latency ÷ tokens, median ms", plain("ms_per_token")),
    ]


def table(head: list[str], rows: list[tuple]) -> list[str]:
    return ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head), *("| " + " | ".join(map(str, row)) + " |" for row in rows)]
