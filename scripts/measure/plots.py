"""Plots as SVG files, alike for alike data (no dates or random ids in them)."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
matplotlib.rcParams["svg.hashsalt"] = "multiverse"
matplotlib.rcParams["svg.fonttype"] = "none"
import matplotlib.pyplot as plt  # noqa: E402: the backend is chosen first


def figure(xlabel: str, ylabel: str, size: tuple[float, float] = (6.4, 4.0)):
    drawn, axes = plt.subplots(figsize=size, layout="constrained")
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.grid(alpha=0.3)
    return drawn, axes


def save(drawn, path: Path) -> None:
    drawn.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
    plt.close(drawn)


def with_interval(axes, x, shares: list[dict], **style) -> None:
    values = [s["value"] for s in shares]
    below = [s["value"] - s["low"] for s in shares]
    above = [s["high"] - s["value"] for s in shares]
    axes.errorbar(x, values, yerr=[below, above], marker="o", capsize=3, **style)


def evaluation(folder: Path, result: dict, records: list[dict]) -> list[tuple[str, str]]:
    """Files drawn into `folder`, with their titles."""
    variants = result["variants"]
    drawn, axes = figure("", "share right, 95 % interval")
    with_interval(axes, list(variants), [v["pass@1"] for v in variants.values()], linestyle="none")
    axes.set_ylim(0, 1.02)
    axes.tick_params(axis="x", rotation=20)
    save(drawn, folder / "accuracy.svg")

    answered = [r for r in records if "error" not in r and r["critical_path_tokens"]]
    drawn, axes = figure("critical path, tokens", "tokens of all branches")
    for name in variants:
        mine = [r for r in answered if r["variant"] == name]
        axes.scatter([r["critical_path_tokens"] for r in mine], [r["tokens"] for r in mine], s=12, label=name)
    most = max((r["critical_path_tokens"] for r in answered), default=1)
    axes.plot([0, most], [0, most], color="grey", linewidth=0.8)
    axes.legend()
    save(drawn, folder / "tokens.svg")

    drawn, axes = figure("tokens ÷ critical path", "latency ÷ tokens, ms")
    for name in variants:
        mine = [r for r in answered if r["variant"] == name and r["tokens"]]
        axes.scatter([r["tokens"] / r["critical_path_tokens"] for r in mine], [1000 * r["seconds"] / r["tokens"] for r in mine], s=12, label=name)
    axes.legend()
    save(drawn, folder / "latency.svg")
    return [("accuracy.svg", "Accuracy"), ("tokens.svg", "Tokens against critical path"), ("latency.svg", "Latency a token against parallelism")]
