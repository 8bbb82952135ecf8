"""One core's decode attention under its roof, from ./dev bench report's docs/roofline.json."""

from __future__ import annotations

from pathlib import Path

import style

# By who computes: our kernels full, what one writes without a library hollow.
KINDS = {"ours": {"label": "this library", "color": "#c24a00", "marker": "o"},
         "eigen": {"label": "Eigen", "color": "#0060a8", "marker": "s", "markerfacecolor": "white"},
         "scalar": {"label": "scalar loops", "color": "#666666", "marker": "^", "markerfacecolor": "white"}}


def draw(data: dict, file: Path) -> None:
    fig, axes = style.figure(8.4, 4.8)
    peak, bandwidth = data["flops_per_s"], data["read_bytes_per_s"]
    points = sorted(data["points"], key=lambda p: (p["flop_per_byte"], -p["flops_per_s"]))
    low = min(p["flops_per_s"] for p in points) / 1.6e9
    x = [0.25, peak / bandwidth, 32]
    axes.plot(x, [min(peak, bandwidth * i) / 1e9 for i in x], color="black", linewidth=2)
    axes.annotate(f"fp32 multiply-adds of one core: {peak / 1e9:.0f} GFLOP/s", (32, peak / 1e9), xytext=(0, 5),
                  textcoords="offset points", ha="right")
    axes.annotate(f"reads: {bandwidth / 1e9:.1f} GB/s", (1, bandwidth / 1e9), xytext=(-8, 6),
                  textcoords="offset points", ha="right")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set_xlim(0.25, 32)
    axes.set_ylim(low, 2 * peak / 1e9)
    axes.xaxis.set_major_formatter(lambda v, _: f"{v:g}")
    axes.yaxis.set_major_formatter(lambda v, _: f"{v:g}")
    for kind, look in KINDS.items():
        mine = [p for p in points if p["kind"] == kind]
        axes.plot([p["flop_per_byte"] for p in mine], [p["flops_per_s"] / 1e9 for p in mine], linestyle="none",
                  **look)
    # Labels of one intensity go down from its highest point, each at least a line below the one above.
    lowest: dict[float, float] = {}
    for p in points:
        place = p["flops_per_s"] / 1e9
        text = min(place, lowest.get(p["flop_per_byte"], place * 2) / 1.19)
        lowest[p["flop_per_byte"]] = text
        axes.annotate(p["label"], (p["flop_per_byte"], place), xytext=(p["flop_per_byte"] * 1.12, text), va="center",
                      fontsize=8, arrowprops={"arrowstyle": "-", "linewidth": 0.5, "color": "#888888", "shrinkA": 0})
    axes.set_xlabel("FLOP a byte of K and V")
    axes.set_ylabel("GFLOP/s")
    axes.set_title("One core: decode attention under its roof (query heads / KV heads)")
    axes.legend(loc="lower right")
    style.save(fig, file)
