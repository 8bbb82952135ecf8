"""The figures of docs/beyond.md, from ./dev bench beyond --json. Everything in them is predicted."""

from __future__ import annotations

from pathlib import Path

import style

# Dense reads have full lines, sparse bounds broken ones, drives thick ones under all others.
DRIVES = {"color": "#c24a00", "marker": "D", "linewidth": 2.8, "zorder": 1.5}
TIERS = {
    "HBM": {"color": "#000000", "marker": "o"}, "DRAM": {"color": "#0060a8", "marker": "s"},
    "SSD": {"color": "#00806a", "marker": "^"},
    "DRAM, 1/8": {"color": "#0060a8", "marker": "s", "linestyle": "--", "markerfacecolor": "white"},
    "SSD, 1/8": {"color": "#00806a", "marker": "^", "linestyle": "--", "markerfacecolor": "white"},
    "InstA-SparF": {**DRIVES, "markerfacecolor": "white"},
    "InstA-SparF, wide": DRIVES,
}


def over_context(ladder: dict, key: str, unit: str, file: Path) -> None:
    fig, axes = style.figure(8.4, 3.8)
    for name, look in TIERS.items():
        points = [(a["context"] / 1024, a[key]) for a in ladder["answers"]
                  if a["name"] == name and a["tokens_per_s"] > 0]
        axes.plot(*zip(*points), label=name, **look)
    contexts = sorted({a["context"] / 1024 for a in ladder["answers"]})
    style.logarithmic(axes.xaxis)
    style.logarithmic(axes.yaxis, decades_alone=True)
    axes.set_xticks(contexts, [f"{c:,.0f} K" for c in contexts])
    axes.set_xlabel("context (tokens)")
    axes.set_ylabel(unit)
    axes.set_title(f"{ladder['model']}, {ladder['sequences']} sequences: predicted")
    style.beside(axes, title="KV cache in")
    style.save(fig, file)


def over_drives(pools: list[dict], file: Path) -> None:
    fig, axes = style.figure(8.4, 3.8)
    for pool, look in zip(pools, style.LINES):
        points = [(r["drives"], r["tokens_per_s"]) for r in pool["runs"] if r["fits"]]
        axes.plot(*zip(*points), label=pool["network"], **look)
    style.logarithmic(axes.xaxis, decades_alone=True)
    style.logarithmic(axes.yaxis, decades_alone=True)
    axes.set_xlabel("drives: 16 a host and 1,024 sequences; in homes, one a host and as many sequences")
    axes.set_ylabel("tokens/s")
    axes.set_title("Llama-3-70B, contexts of 128 K, eight H100s: predicted")
    style.beside(axes, title="network")
    style.save(fig, file)


def draw(data: dict, folder: Path) -> None:
    small = data["ladders"][0]
    over_context(small, "tokens_per_s", "tokens/s", folder / "beyond_tokens.svg")
    over_context(small, "tokens_per_usd", "tokens a dollar", folder / "beyond_dollars.svg")
    over_context(small, "joules_per_token", "joules a token", folder / "beyond_joules.svg")
    over_drives(data["pools"], folder / "beyond_drives.svg")
