"""The pictures of the demo, the sweep and the capacity planner, from the JSON that each writes."""

from __future__ import annotations

from pathlib import Path

from matplotlib.ticker import MaxNLocator

import style


def draw_demo(data: dict, file: Path) -> None:
    """Left: error over compression. Right: the modelled time of a step."""
    rows = data["rows"]
    fig, (left, right) = style.figure(10.5, 3.9, ncols=2, gridspec_kw={"width_ratios": [1, 1.25]})
    for design, label, look in (("insta_sparf", "SparF", style.LINES[2]), ("flexgen_sparq", "SparQ", style.LINES[1])):
        points = [(r["compression"], r["rel_error_mean"]) for r in rows if r["design"] == design]
        left.plot(*zip(*points), label=label, **look)
    compressions = sorted({r["compression"] for r in rows if r["compression"] > 1})
    style.logarithmic(left.xaxis)
    style.logarithmic(left.yaxis)
    left.set_xticks(compressions, [f"1/{c:.0f}" for c in compressions])
    left.set_xlabel("KV traffic that the method asks for, of dense attention's")
    left.set_ylabel("relative error of the output")
    left.set_title("Error over compression, measured")
    left.legend(loc="upper left")

    names = [r["design"] + (f" 1/{r['compression']:.0f}" if r["compression"] > 1 else "") for r in rows]
    flash = [r["modelled_ample_accelerator_us"] / 1e3 for r in rows]
    whole = [r["modelled_us"] / 1e3 for r in rows]
    right.barh(range(len(rows)), flash, 0.66, edgecolor="black", linewidth=0.7, facecolor="#404040",
               label="flash and route, were the accelerator never late")
    right.barh(range(len(rows)), [w - f for w, f in zip(whole, flash)], 0.66, flash, edgecolor="black", linewidth=0.7,
               facecolor="#ffe0a8", hatch="////", label="added by the accelerator of the paper's drive")
    for y, w in enumerate(whole):
        right.text(w + max(whole) * 0.01, y, f"{w:.1f}", va="center", fontsize=8.5)
    right.set_yticks(range(len(rows)), names)
    right.set_ylim(len(rows) - 0.4, -0.6)
    right.set_xlim(0, max(whole) * 1.1)
    right.set_xlabel("time of a step (ms)")
    right.set_title("Time of a step, modelled")
    right.grid(axis="y", visible=False)
    right.legend(loc="upper left", bbox_to_anchor=(0, -0.16), borderaxespad=0, ncol=1)
    style.save(fig, file)


def spans(low: float, high: float, factor: float) -> bool:
    return low > 0 and high >= factor * low


def draw_sweep(data: dict, file: Path) -> None:
    """Medians as marks, least to greatest as bars. Axes of numbers that span much are logarithmic."""
    fig, axes = style.figure(8.8, 4.2)
    points = [p for line in data["lines"] for p in line["points"]]
    places = list(dict.fromkeys(p["x"] for p in points))
    numbers = all(isinstance(x, (int, float)) for x in places)
    for i, (line, look) in enumerate(zip(data["lines"], style.LINES)):
        if numbers:
            x = [p["x"] for p in line["points"]]
        else:  # side by side and not joined, as nothing lies between two words
            x = [places.index(p["x"]) + 0.07 * (i - (len(data["lines"]) - 1) / 2) for p in line["points"]]
            look = {**look, "linestyle": "none"}
        y = [p["median"] for p in line["points"]]
        bars = [[p["median"] - p["least"] for p in line["points"]],
                [p["greatest"] - p["median"] for p in line["points"]]]
        name = line["name"] if isinstance(line["name"], str) else f"{line['name']:g}"
        axes.errorbar(x, y, bars if any(map(any, bars)) else None, label=name or None, elinewidth=0.9, capsize=3,
                      **look)
    if not numbers:
        axes.set_xticks(range(len(places)), places)
        axes.margins(x=0.15)
    else:
        places.sort()
        if spans(places[0], places[-1], 4):
            style.logarithmic(axes.xaxis)
        if len(places) <= 12:
            axes.set_xticks(places, [style.plain(x) for x in places])
    if spans(min(p["least"] for p in points), max(p["greatest"] for p in points), 30):
        style.logarithmic(axes.yaxis)
    else:
        axes.set_ylim(0, None)
        axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.set_xlabel(data["x_label"])
    axes.set_ylabel(data["y_label"])
    spread = any(p["least"] < p["greatest"] for p in points)
    axes.set_title("Mark: median; bar: least to greatest over all else that varies" if spread
                   else "Sweep of design points")
    if data["by_label"]:
        style.beside(axes, title=data["by_label"])
    style.save(fig, file)


def draw_plan(data: dict, file: Path) -> None:
    """tokens/s over drives for each system; systems without drives as level lines; a ring around the choice."""
    fig, axes = style.figure(8.8, 4.2)
    options = [o for o in data["options"] if o.get("tokens_per_s", 0) > 0]
    drives = sorted({max(1, o["drives"]) for o in data["options"]})
    for name, look in zip(dict.fromkeys(o["system"] for o in data["options"]), style.LINES):
        mine = [o for o in options if o["system"] == name]
        if not mine:
            continue
        if mine[0]["drives"] == 0:
            axes.plot([drives[0], drives[-1]], [mine[0]["tokens_per_s"]] * 2, label=f"{name} (no drives)", **look)
        else:
            axes.plot([o["drives"] for o in mine], [o["tokens_per_s"] for o in mine], label=name, **look)
    if data["chosen"]:
        axes.plot([max(1, data["chosen"]["drives"])], [data["chosen"]["tokens_per_s"]], label="chosen",
                  marker="o", markersize=12, markerfacecolor="none", markeredgecolor="black", markeredgewidth=1.6,
                  linestyle="none")
    style.logarithmic(axes.xaxis)
    style.logarithmic(axes.yaxis)
    axes.set_xticks(drives, [f"{d:,}" for d in drives])
    axes.set_xlabel("drives")
    axes.set_ylabel("tokens/s")
    axes.set_title(f"{data['model']}, {data['batch']} x ({data['input_tokens']} + {data['output_tokens']}) tokens, "
                   f"{data['gpus']} x {data['gpu']}, drive {data['drive']}: predicted")
    style.beside(axes)
    style.save(fig, file)
