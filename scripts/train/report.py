"""The gates' table of an evaluation. A record is one answered problem:
{"family", "parts", "wording", "right", "tokens", "critical_path", "blocks", "malformed"}; "index" is the problem's number."""

import math

TARGETS = {"accuracy": 0.95, "parallelism": 2.0, "speed": 1.5}


def wilson(right, total, z=1.96):
    """95 % interval of a share."""
    if not total:
        return 0.0, 1.0
    share, extra = right / total, z * z / total
    centre, spread = share + extra / 2, z * math.sqrt(share * (1 - share) / total + extra / (4 * total))
    return max(0.0, (centre - spread) / (1 + extra)), min(1.0, (centre + spread) / (1 + extra))


def ratio(pairs):
    pairs = list(pairs)
    below = sum(b for _, b in pairs)
    return sum(a for a, _ in pairs) / below if below else None


def summary(records):
    by_wording = {}
    for record in records:
        by_wording.setdefault(record["wording"], {})[record["index"]] = record
    out = {"accuracy": {}, "families": {}}
    for wording, answered in by_wording.items():
        right = sum(r["right"] for r in answered.values())
        out["accuracy"][wording] = {"right": right, "total": len(answered), "interval": wilson(right, len(answered))}
        for record in answered.values():
            cell = out["families"].setdefault(record["family"], {}).setdefault(wording, {"right": 0, "total": 0})
            cell["right"] += record["right"]
            cell["total"] += 1
    parallel, sequential = by_wording.get("parallel", {}), by_wording.get("sequential", {})
    wide = [r for r in parallel.values() if r["parts"] >= 3]
    out["parallelism"] = ratio((r["tokens"], r["critical_path"]) for r in wide)
    blocks = [i for i, r in parallel.items() if r["blocks"] and i in sequential and sequential[i]["tokens"]]
    out["speed"] = ratio((sequential[i]["tokens"], parallel[i]["critical_path"]) for i in blocks)
    out["problems_with_three_parts"], out["problems_with_blocks"] = len(wide), len(blocks)
    out["malformed"] = sum(1 for r in records if r["malformed"])
    out["mean_tokens"] = {w: sum(r["tokens"] for r in a.values()) / len(a) for w, a in by_wording.items()}
    out["mean_critical_path"] = {w: sum(r["critical_path"] for r in a.values()) / len(a) for w, a in by_wording.items()}
    return out


def verdict(value, target):
    return "" if value is None else "  pass" if value >= target else "  BELOW"


def table(result):
    lines = [f"{'family':<12}" + "".join(f"{w:>24}" for w in result["accuracy"])]

    def cells(counts):
        for wording in result["accuracy"]:
            cell = counts.get(wording, {"right": 0, "total": 0})
            low, high = wilson(cell["right"], cell["total"])
            share = cell["right"] / cell["total"] if cell["total"] else 0
            yield f"{cell['right']:>5}/{cell['total']:<4}{share:6.1%} {low:.2f}-{high:.2f}".rjust(24)

    for family, counts in result["families"].items():
        lines.append(f"{family:<12}" + "".join(cells(counts)))
    lines.append(f"{'all':<12}" + "".join(cells(result["accuracy"])))
    lines.append("")
    for wording, cell in result["accuracy"].items():
        share = cell["right"] / cell["total"]
        low, high = cell["interval"]
        lines.append(f"right, {wording} wording: {share:.1%} (95 % interval {low:.1%}-{high:.1%}){verdict(share, TARGETS['accuracy'])}")
    for name, text, count in (
        ("parallelism", "tokens / critical path, problems of 3 parts or more", "problems_with_three_parts"),
        ("speed", "sequential tokens / parallel critical path, problems solved with blocks", "problems_with_blocks"),
    ):
        if result[name] is not None:
            lines.append(f"{text}: {result[name]:.2f} ({result[count]} problems){verdict(result[name], TARGETS[name])}")
    lines.append(f"answers with malformed structure: {result['malformed']}")
    for wording in result["accuracy"]:
        lines.append(
            f"mean tokens, {wording} wording: {result['mean_tokens'][wording]:.0f}, mean critical path {result['mean_critical_path'][wording]:.0f}"
        )
    return "\n".join(lines)
