"""text.py's results as a Markdown table, JSON and a chart."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from common import Spread, ratios

OURS = "sparktasks"


@dataclass(frozen=True)
class Result:
    """A contender's setting, and its rows a second in each round."""

    setting: str
    rates: list[float]


def write(folder: Path, facts: Mapping[str, str], results: Mapping[str, Result], limits: Sequence[str]) -> None:
    """Print the table, and write it with the measurements and the chart; the best of ``limits`` is the limit."""
    limit = max(limits, key=lambda name: Spread.of(results[name].rates).median)
    table = _table(facts, results, limit)
    print(table)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "text.md").write_text(table, encoding="utf-8")
    measured = {name: {"setting": result.setting, "rows_per_second": result.rates} for name, result in results.items()}
    content = {"facts": dict(facts), "limit": limit, "results": measured}
    (folder / "text.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    _chart(folder / "text.png", results, limit)


def _table(facts: Mapping[str, str], results: Mapping[str, Result], limit: str) -> str:
    header = "\n".join(f"- {name}: {value}" for name, value in facts.items())
    rows = "\n".join(_row(name, results, limit) for name in sorted(results, key=lambda name: -_median(results[name])))
    return f"""# Text classification: rows a second

{header}
- The limit is {limit}, the fastest way of running onnxruntime without Spark. Ratios are taken within each round.

| | share of the limit | rows/s | {OURS} is faster by | setting |
|---|---|---|---|---|
{rows}
"""


def _row(name: str, results: Mapping[str, Result], limit: str) -> str:
    result = results[name]
    share = ratios(result.rates, results[limit].rates)
    faster = str(ratios(results[OURS].rates, result.rates)) if OURS in results and name != OURS else ""
    return f"| {name} | {share} | {Spread.of(result.rates)} | {faster} | {result.setting} |"


def _median(result: Result) -> float:
    return Spread.of(result.rates).median


def _chart(path: Path, results: Mapping[str, Result], limit: str) -> None:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise SystemExit("the chart needs matplotlib: pip install matplotlib") from error
    names = sorted(results, key=lambda name: _median(results[name]))
    spreads = [Spread.of(results[name].rates) for name in names]
    shares = [ratios(results[name].rates, results[limit].rates).median for name in names]
    figure = Figure(figsize=(9, 0.55 * len(names) + 1.2), layout="constrained")
    axes = figure.subplots()
    around = [[each.median - each.low for each in spreads], [each.high - each.median for each in spreads]]
    colors = ["#c4551b" if name == OURS else "#9aa5b1" for name in names]
    axes.barh(
        names, [each.median for each in spreads], xerr=around, color=colors, ecolor="#444444", capsize=3, height=0.65
    )
    for place, (each, share) in enumerate(zip(spreads, shares, strict=True)):
        axes.annotate(
            f"{each.median:,.0f}  ({share:.0%} of the limit)",
            (each.high, place),
            (6, 0),
            textcoords="offset points",
            va="center",
        )
    axes.set_xlim(right=1.4 * max(each.high for each in spreads))
    axes.set_xlabel("rows a second, median and range of the rounds")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
