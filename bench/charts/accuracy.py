"""The chart of docs/accuracy.md: what a model's answers lose, over the bytes that a method wants of K and V."""

from __future__ import annotations

from pathlib import Path

import style

NAMES = ["streaming_llm", "h2o", "hgca", "top_values", "sparq", "sparf", "quest", "squeezed", "retro_infer", "dsa",
         "misa"]


def draw(data: dict, file: Path) -> None:
    panels = data["panels"]
    fig, axes = style.figure(4.2 * len(panels) + 1.4, 3.8, ncols=len(panels), squeeze=False)
    for panel, ax in zip(panels, axes[0]):
        for name in [n for n in NAMES if any(r["method"] == n for r in panel["rows"])]:
            rows = sorted((r for r in panel["rows"] if r["method"] == name), key=lambda r: r["wanted"])
            line = style.LINES[NAMES.index(name)]
            ax.plot([r["wanted"] for r in rows], [r["value"] for r in rows], label=name, **line)
            for r in rows:
                ax.plot([r["wanted"]] * 2, [r["low"], r["high"]], color=line["color"], linewidth=0.7, alpha=0.5)
        ax.axhline(panel["dense"], color="black", linewidth=0.8)
        style.logarithmic(ax.xaxis)
        ax.set_xlabel("share of K and V that is wanted")
        ax.set_ylabel(panel["label"])
        ax.set_title(panel["title"])
    style.beside(axes[0][-1])
    style.save(fig, file)
