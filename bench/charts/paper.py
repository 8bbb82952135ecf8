"""The figures of docs/reproduction.md, from ./dev bench paper --json. The paper's values are white diamonds."""

from __future__ import annotations

import math
from pathlib import Path

from matplotlib.lines import Line2D

import style

RATIO = "paper: its ratio x our baseline"
VALUE = "paper"


def claims_of(data: dict, figure: str) -> dict[tuple[str, float], dict]:
    """A figure's claims that a picture can show, by system and place on the axis."""
    return {(c["system"], c["at"]): c for c in data["claims"] if c["figure"] == figure and "system" in c}


def mark(label: str) -> Line2D:
    return Line2D([], [], label=label, **style.PAPER)


# Bars of each system at each batch, on a logarithmic scale. A cross stands where memory does not suffice.
def throughput(data: dict, panel: dict, figure: str, systems: list[str] | None, file: Path) -> None:
    shown = [s for s in panel["systems"] if systems is None or s["name"] in systems]
    batches = [run["batch"] for run in shown[0]["runs"]]
    fig, axes = style.figure(9.2, 3.7)
    width = 0.84 / len(shown)
    claims = claims_of(data, panel["figure"])
    for i, system in enumerate(shown):
        for j, run in enumerate(system["runs"]):
            x = j + (i - (len(shown) - 1) / 2) * width
            if not run["fits"]:
                axes.plot([x], [0.03], marker="x", color="black", markersize=4, transform=axes.get_xaxis_transform())
                continue
            axes.bar(x, run["tokens_per_s"], width, edgecolor="black", linewidth=0.7, **style.SYSTEMS[system["name"]])
            claim = claims.get((system["name"], run["batch"]))
            if claim:
                axes.plot([x], [run["tokens_per_s"] * claim["paper"] / claim["ours"]], **style.PAPER)
    style.logarithmic(axes.yaxis, decades_alone=True)
    slowest = min(run["tokens_per_s"] for s in shown for run in s["runs"] if run["fits"])
    axes.set_ylim(10 ** math.floor(math.log10(slowest)), 500)
    axes.set_ylabel("tokens/s")
    axes.set_xticks(range(len(batches)), [f"{b}" for b in batches])
    axes.set_xlabel("batch (sequences)")
    axes.set_title(f"{figure}: {panel['title']}")
    axes.grid(axis="x", visible=False)
    handles = [style.patch(s["name"], style.SYSTEMS[s["name"]]) for s in shown]
    handles.append(mark(RATIO))
    if not all(run["fits"] for s in shown for run in s["runs"]):
        handles.append(Line2D([], [], marker="x", color="black", linestyle="none", label="does not fit memory"))
    style.below(fig, handles, 5)
    style.save(fig, file)


# Where the time of a step goes: one row a system. marks: the paper's share of the first part in percent, by row.
def shares(title: str, rows: list[tuple[str, dict]], marks: list[float | None], file: Path) -> None:
    fig, axes = style.figure(8.8, 1.2 + 0.34 * len(rows))
    parts = list(rows[0][1]["step_s"])
    for y, (_, run) in enumerate(rows):
        seconds = run["step_s"]
        left, total = 0.0, sum(seconds.values())
        for part, look in zip(parts, style.SHARES):
            share = 100 * seconds[part] / total
            axes.barh(y, share, 0.62, left, edgecolor="black", linewidth=0.7, **look)
            left += share
        axes.text(101, y, f"{100 * seconds[parts[0]] / total:.1f} %", va="center", fontsize=8.5)
        if marks[y] is not None:
            axes.plot([marks[y]], [y], **style.PAPER)
            axes.text(111, y, f"{marks[y]:.1f} %", va="center", fontsize=8.5)
    axes.text(101, -0.75, "ours", fontsize=8.5, style="italic")
    if any(m is not None for m in marks):
        axes.text(111, -0.75, "paper", fontsize=8.5, style="italic")
    axes.set_xlim(0, 100)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    axes.set_xlabel("share of a step's time (%); the numbers are KV access")
    axes.set_title(title)
    axes.grid(axis="y", visible=False)
    handles = [style.patch(part, look) for part, look in zip(parts, style.SHARES)]
    if any(m is not None for m in marks):
        handles.append(mark("KV access in the paper"))
    style.below(fig, handles, 5)
    style.save(fig, file)


def all_shares(data: dict, folder: Path) -> None:
    runs = {(p["figure"], s["name"], r["batch"]): r for p in data["panels"] for s in p["systems"] for r in s["runs"]}
    rows = [(f"{name}, batch {batch}", runs["Fig. 14", name, batch])
            for name, batch in (("DeepSpeed", 8), ("DeepSpeed", 16), ("DeepSpeed", 32),
                                ("FlexGen", 8), ("FlexGen", 32), ("FlexGen", 64))]
    shares("Fig. 5: where a step's time goes, OPT-13B", rows,
           [None] * 5 + [claims_of(data, "Fig. 4")["FlexGen", 64]["paper"]], folder / "fig05.svg")
    for figure, what, first, second in (("Fig. 18", "dense", "FlexGen", "InstA"),
                                        ("Fig. 19", "sparse", "FlexGen-SparQ", "InstA-SparF")):
        rows = [(first, runs["Fig. 14", first, 64]), (second, runs["Fig. 14", second, 64]),
                (f"{second}, two drives", runs["Fig. 15", second, 64])]
        claims = claims_of(data, figure)
        marks = [claims[place]["paper"] for place in ((first, 1), (second, 1), (second, 2))]
        shares(f"{figure}: where a step's time goes, {what}, OPT-13B, batch 64", rows, marks,
               folder / f"fig{figure[5:]}.svg")


def roofline(data: dict, file: Path) -> None:
    fig, axes = style.figure(8.4, 3.8)
    roofs = {r["name"]: r for r in data["roofline"]["roofs"]}
    for (name, r), dashes in zip(roofs.items(), ("-", "--")):
        ridge = r["flops_per_s"] / r["bytes_per_s"]
        x = [0.1, ridge, 10_000]
        axes.plot(x, [min(r["flops_per_s"], r["bytes_per_s"] * i) / 1e9 for i in x], color="black", linestyle=dashes,
                  label=f"{name}: {r['bytes_per_s'] / 1e9:,.1f} GB/s, {r['flops_per_s'] / 1e12:,.3g} TFLOP/s")
    for operation, look in zip(data["roofline"]["operations"], style.LINES[1:]):
        r, x = roofs[operation["on"]], operation["flop_per_byte"]
        axes.plot([x], [min(r["flops_per_s"], r["bytes_per_s"] * x) / 1e9], linestyle="none", markersize=8,
                  color=look["color"], marker=look["marker"],
                  label=f"{operation['name']}: {x:,.4g} FLOP a byte")
    style.logarithmic(axes.xaxis, decades_alone=True)
    style.logarithmic(axes.yaxis, decades_alone=True)
    axes.set_xlim(0.1, 10_000)
    axes.set_ylim(1, 1e6)
    axes.set_xlabel("FLOP a byte")
    axes.set_ylabel("GFLOP/s")
    axes.set_title("Fig. 6: roofline, OPT-13B, batch 64, context 1,536")
    axes.legend(loc="lower right")
    style.save(fig, file)


def scaling(data: dict, folder: Path) -> None:
    fig, axes = style.figure(8.4, 3.6)
    drives = [d["drives"] for d in data["drives"]]
    claims = claims_of(data, "Fig. 20a")
    for name, look in zip(("InstA", "InstA-SparF"), style.LINES):
        gain = [d[name] / data["drives"][0][name] for d in data["drives"]]
        axes.plot(drives, gain, label=name, **look)
        most = claims[name, drives[-1]]["paper"]
        axes.plot([drives[-1]], [most], **style.PAPER)
        axes.annotate(f"paper {most:.2f}", (drives[-1], most), xytext=(8, 0), textcoords="offset points", va="center",
                      fontsize=8.5)
    axes.plot(drives, drives, color="#888888", linestyle=":", label="as many times as drives")
    axes.plot([], [], label=VALUE, **style.PAPER)
    axes.set_xlim(0, 22.5)
    axes.set_ylim(0, 20)
    axes.set_xticks(drives)
    axes.set_xlabel("drives")
    axes.set_ylabel("speed-up over one drive")
    axes.set_title("Fig. 20a: more drives, OPT-13B, batch 256")
    axes.legend(loc="upper left")
    style.save(fig, folder / "fig20a.svg")

    fig, axes = style.figure(8.4, 3.0)
    compressions = [c["compression"] for c in data["compressions"]]
    axes.plot(compressions, [c["tokens_per_s"] for c in data["compressions"]], label="InstA-SparF", **style.LINES[2])
    style.logarithmic(axes.xaxis)
    axes.set_xticks(compressions, [f"1/{c:.0f}" for c in compressions])
    axes.set_ylim(0, None)
    axes.set_xlabel("share of the KV entries that are read")
    axes.set_ylabel("tokens/s")
    axes.set_title("Fig. 20b: InstA-SparF by compression, OPT-13B, batch 64")
    style.save(fig, folder / "fig20b.svg")


def units(data: dict, file: Path) -> None:
    fig, axes = style.figure(8.4, 3.4)
    names = list(data["busy_ms"]["InstA"])
    for i, (system, busy) in enumerate(data["busy_ms"].items()):
        places = [j + (i - 0.5) * 0.4 for j in range(len(names))]
        axes.bar(places, [busy[n] for n in names], 0.4, edgecolor="black", linewidth=0.7, label=system,
                 **style.SYSTEMS[system])
        for x, name in zip(places, names):
            axes.text(x, busy[name] + 4, f"{busy[name]:.0f}", ha="center", fontsize=8)
    axes.set_xticks(range(len(names)), names)
    axes.set_ylabel("busy (ms)")
    axes.set_title("Fig. 21: the drive's units in one layer, OPT-13B, batch 64, context 1,536")
    axes.grid(axis="x", visible=False)
    axes.legend(loc="upper left")
    style.save(fig, file)


def retries(data: dict, file: Path) -> None:
    fig, axes = style.figure(8.4, 2.1)
    bound = claims_of(data, "Fig. 22")["InstA", 1]["paper"]
    cost = {name: max(0.0, x) for name, x in data["retry_per_mille"].items()}
    for y, (name, x) in enumerate(cost.items()):
        axes.barh(y, x, 0.55, edgecolor="black", linewidth=0.7, **style.SYSTEMS[name])
        axes.text(x + 0.06, y, f"{x:.2f}", va="center", fontsize=8.5)
    axes.plot([bound], [0], **style.PAPER)
    axes.annotate(f"paper: at most {bound} of a step", (bound, 0), xytext=(-8, 0), textcoords="offset points",
                  va="center", ha="right", fontsize=8.5)
    axes.set_yticks(range(len(cost)), list(cost))
    axes.set_ylim(len(cost) - 0.4, -0.6)
    axes.set_xlim(0, 5)
    axes.set_xlabel("added flash time (per mille)")
    axes.set_title("Fig. 22: what read retries cost at 0.003 further reads a page")
    axes.grid(axis="y", visible=False)
    style.save(fig, file)


def users(data: dict, file: Path) -> None:
    fig, axes = style.figure(8.4, 3.4)
    years = [u["years"] for u in data["users"]]
    for key, label, look in (("three weeks", "pages last three weeks: 20,000 cycles", style.LINES[2]),
                             ("full retention", "full retention: 3,000 cycles", style.LINES[0])):
        axes.plot(years, [u[key] for u in data["users"]], label=label, **look)
    for (_, at), claim in claims_of(data, "§VI-F").items():
        axes.plot([at], [claim["paper"]], **style.PAPER)
        axes.annotate(f"paper {claim['paper']:,.0f}", (at, claim["paper"]), xytext=(9, 5), textcoords="offset points",
                      fontsize=8.5)
    axes.plot([], [], label=VALUE, **style.PAPER)
    axes.set_xlim(0.8, 5.6)
    axes.set_ylim(0, 5200)
    axes.set_xticks(years, [f"{y:.0f}" for y in years])
    axes.yaxis.set_major_formatter(style.plain)
    axes.set_xlabel("years that the drives last")
    axes.set_ylabel("users")
    axes.set_title("Fig. 23: users at 128 K tokens a day, four drives, OPT-13B")
    axes.legend(loc="upper right")
    style.save(fig, file)


def draw(data: dict, folder: Path) -> None:
    panels = {p["figure"]: p for p in data["panels"]}
    throughput(data, panels["Fig. 14"], "Fig. 4", ["DeepSpeed", "FlexGen"], folder / "fig04.svg")
    for figure, panel in panels.items():
        throughput(data, panel, figure, None, folder / f"fig{figure[5:]}.svg")
    all_shares(data, folder)
    roofline(data, folder / "fig06.svg")
    scaling(data, folder)
    units(data, folder / "fig21.svg")
    retries(data, folder / "fig22.svg")
    users(data, folder / "fig23.svg")
