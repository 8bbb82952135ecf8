"""The figures of docs/methods.md: error over cost from ./dev bench methods --json, and what each method reads."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

from matplotlib.patches import Rectangle

import style

NAMES = ["streaming_llm", "h2o", "hgca", "top_values", "sparq", "sparf", "quest", "squeezed", "retro_infer", "dsa",
         "misa"]

# 64 tokens from oldest to newest. What becomes of them, first and last, K and V; later parts lie over earlier ones.
SCATTERED = [(3, 5), (13, 14), (22, 24), (29, 30), (38, 40), (47, 48), (55, 57), (62, 64)]


def scattered(k: str, v: str) -> list[tuple]:
    return [(first, last, k, v) for first, last in SCATTERED]


STRIPS = {
    "dense": [(0, 64, "read", "read")],
    "top_values": [(0, 64, "read", "left"), *scattered("read", "read")],
    "streaming_llm": [(0, 2, "resident", "resident"), (56, 64, "resident", "resident")],
    "h2o": [(58, 64, "resident", "resident"), *scattered("resident", "resident")],
    "hgca": [*scattered("read", "read"), (48, 64, "resident", "resident")],
    "sparq": [(0, 64, "partly", "left"), *scattered("read", "read")],
    "quest": [(8, 16, "read", "read"), (36, 40, "read", "read"), (60, 64, "read", "read")],
    "squeezed": [(6, 16, "read", "read"), (30, 34, "read", "read"), (56, 64, "resident", "resident")],
    "retro_infer": [(0, 2, "resident", "resident"), (2, 20, "estimated", "estimated"), (8, 14, "read", "read"),
                    (32, 44, "estimated", "estimated"), (58, 64, "resident", "resident")],
    "dsa": scattered("read", "read"),
}
FATES = {"left": {"facecolor": "white"}, "partly": {"facecolor": "#cfe0f0"}, "estimated": {"facecolor": "white"},
         "read": {"facecolor": "#ffe0a8", "edgecolor": "#707070", "hatch": "/////"},
         "resident": {"facecolor": "#404040"}}


def strip(parts: list[tuple], file: Path) -> None:
    fig, axes = style.figure(6.2, 0.5)
    fates = {"K": ["left"] * 64, "V": ["left"] * 64}
    for first, last, k, v in parts:
        fates["K"][first:last] = [k] * (last - first)
        fates["V"][first:last] = [v] * (last - first)
    for y, (row, tokens) in enumerate(fates.items()):
        axes.text(-1, y + 0.5, row, ha="right", va="center")
        for fate, run in groupby(range(64), key=lambda t: tokens[t]):
            cells = list(run)
            axes.add_patch(Rectangle((cells[0], y), len(cells), 1, linewidth=0, **FATES[fate]))
            if fate == "estimated":
                axes.plot([c + 0.5 for c in cells], [y + 0.5] * len(cells), "s", color="black", markersize=2.4)
    edges = [x for t in range(65) for x in (t, t, None)]
    axes.plot(edges, [0, 2, None] * 65, color="#a0a0a0", linewidth=0.6)
    axes.plot([0, 64, None] * 3, [y for row in range(3) for y in (row, row, None)], color="#a0a0a0", linewidth=0.6)
    axes.set_xlim(-3, 64.2)
    axes.set_ylim(2.05, -0.05)
    axes.axis("off")
    style.save(fig, file)


# Both axes logarithmic: a line a method, a point a budget.
def error_over(rows: list[dict], workload: str, cost, label: str, file: Path) -> None:
    fig, axes = style.figure(8.4, 4.6)
    for name in [n for n in NAMES if any(r["method"] == n for r in rows)]:
        # Dense has no error to show, and what never reads the drive no time of it.
        points = [(cost(r), r["rel_error"]) for r in rows
                  if r["method"] == name and cost(r) > 0 and r["rel_error"] > 1e-5]
        if points:
            axes.plot(*zip(*points), label=name, **style.LINES[NAMES.index(name)])
    style.logarithmic(axes.xaxis)
    style.logarithmic(axes.yaxis)
    axes.set_xlabel(label)
    axes.set_ylabel("relative error of the output")
    axes.set_title(f"Error at budgets 1/2 to 1/32: {workload}")
    style.beside(axes)
    style.save(fig, file)


def draw(data: dict, folder: Path) -> None:
    for method, parts in STRIPS.items():
        strip(parts, folder / f"{method}.svg")
    for workload in dict.fromkeys(m["workload"] for m in data["measurements"]):
        rows = [m for m in data["measurements"] if m["workload"] == workload]
        error_over(rows, workload, lambda m: (m["bytes_filtered"] + m["bytes_fast"]) / 1e3,
                   "K and V that are read in a layer, from any memory (KB)", folder / f"methods-{workload}-bytes.svg")
        error_over(rows, workload, lambda m: m["drive_us"], "modelled drive time of a layer (us)",
                   folder / f"methods-{workload}-time.svg")
