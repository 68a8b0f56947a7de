"""The results of an evaluation as Markdown tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lmrrg.evaluation.operating_points import OPERATING_COLUMNS
from lmrrg.evaluation.results import beaten_by_a_constant
from lmrrg.evaluation.rows import MetricRow, groups_with_values, signed

_ARROWS = {"lower": " ↓", "higher": " ↑", "": ""}


def results_table(results: Mapping[str, Any]) -> str:
    """Return the results as Markdown: one row per metric, one column per system, with intervals."""
    stamp = results["stamp"]
    systems = results["systems"]
    beaten = beaten_by_a_constant(systems, stamp["backend"]["name"])
    lines = [
        *[f"**{sentence}**\n" for sentence in beaten],
        f"**{results['notice']}**",
        "",
        f"{stamp['studies']} studies of split {stamp['split']}, section {stamp['section']}, "
        f"backend {stamp['backend']['name']}, seed {stamp['seed']}; "
        "95% bootstrap intervals in brackets.",
    ]
    titles = [system["title"] for system in systems]
    for title, rows in groups_with_values(results):
        lines += _header(title, titles)
        lines += [_metric_line(row, systems) for row in rows]
    for title, reason in results.get("left_out", {}).items():
        lines += ["", f"Left out: {title}, because {reason}."]
    lines += _region_lines([system for system in systems if system.get("localisation")])
    for system in systems:
        lines += _operating_point_lines(system)
    if results.get("comparison"):
        lines += _comparison_lines(results)
    return "\n".join(lines) + "\n"


def _header(title: str, columns: Sequence[str]) -> list[str]:
    return ["", _line(title, columns), "|---" * (len(columns) + 1) + "|"]


def _line(title: str, cells: Sequence[str]) -> str:
    return f"| {title} | " + " | ".join(cells) + " |"


def _metric_line(row: MetricRow, systems: Sequence[Mapping[str, Any]]) -> str:
    cells = [_cell(row, system["metrics"].get(row.key)) for system in systems]
    return _line(row.title + _ARROWS[row.better], cells)


def _cell(row: MetricRow, entry: Mapping[str, float] | None) -> str:
    if entry is None:
        return "–"
    text = row.text(entry["value"])
    if "low" in entry:
        text += f" [{row.text(entry['low'])}, {row.text(entry['high'])}]"
    return text


def _operating_point_lines(system: Mapping[str, Any]) -> list[str]:
    """Return the table of what a system's reports name at each operating point."""
    points = system.get("operating_points")
    if not points:
        return []
    columns = list(OPERATING_COLUMNS)
    lines = _header(f"{system['title']}: threshold of the evidence", columns)
    for point in points:
        cells = [format(point[key], form) for key, form in OPERATING_COLUMNS.values()]
        lines.append(_line(f"{point['threshold']:g}", cells))
    return lines


def _region_lines(systems: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the table of the regions: attention inside each and pointing game, with chance."""
    if not systems:
        return []
    columns = ["studies"]
    for system in systems:
        columns += [f"{system['title']}, attention inside", f"{system['title']}, pointing"]
    lines = _header("Region (chance)", columns)
    # Every system has the same regions, those with a known location.
    for region, row in systems[0]["localisation"].items():
        cells = [str(row["studies"])]
        for system in systems:
            found = system["localisation"][region]
            cells += [_with_chance(found, "mass"), _with_chance(found, "pointing")]
        lines.append(_line(region, cells))
    return lines


def _with_chance(scores: Mapping[str, float], name: str) -> str:
    return f"{100 * scores[name]:.1f}% ({100 * scores[f'{name}_chance']:.1f}%)"


def _comparison_lines(results: Mapping[str, Any]) -> list[str]:
    """Return the difference of PPO and SFT, and the guards."""
    value = results["comparison"]["metrics"]["radcliq_v1"]
    difference = signed(value["difference"], plus=True)
    interval = f"{signed(value['low'], plus=True)} to {signed(value['high'], plus=True)}"
    lines = [
        "",
        f"PPO − SFT, mean {results['stamp']['metric_title']}: {difference} "
        f"(95% interval {interval}, permutation p {value['p_permutation']:.4f}; lower is better)",
        "",
    ]
    for guard in results["guards"]:
        verdict = "yes" if guard["ok"] else "NO"
        values = f"SFT {signed(guard['sft'])}, PPO {signed(guard['ppo'])}"
        lines.append(f"- {guard['title']}: **{verdict}** ({values})")
    return lines
