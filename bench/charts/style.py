"""What all charts share: sizes, colours that differ in grey too, the paper's mark, and SVG that repeats bit by bit."""

from __future__ import annotations

import io
import re
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402 (the backend is chosen first)
from matplotlib.patches import Patch  # noqa: E402
from matplotlib.ticker import LogLocator, NullLocator  # noqa: E402

# Text stays text: pictures are small and can be searched. A browser without DejaVu takes a narrower font, which fits.
# The salt makes the names inside an SVG depend on its content alone.
matplotlib.rcdefaults()  # whatever this machine's matplotlibrc says
plt.rcParams.update({
    "svg.fonttype": "none", "svg.hashsalt": "instinfer",
    "font.family": ["DejaVu Sans", "sans-serif"], "font.size": 9,
    "axes.titlesize": 10.5, "axes.titleweight": "bold", "axes.titlelocation": "left",
    "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "axes.axisbelow": True, "grid.color": "#dddddd", "grid.linewidth": 0.6,
    "legend.frameon": False, "legend.fontsize": 8.5,
    "lines.linewidth": 1.6, "lines.markersize": 5.5,
    "hatch.linewidth": 0.7, "hatch.color": "#333333",
    "figure.constrained_layout.use": True,
})

# Fills from light to dark, with hatches between neighbours in grey.
FILLS = [
    {"facecolor": "#ffffff"}, {"facecolor": "#cfe0f0"}, {"facecolor": "#cfe0f0", "hatch": "////"},
    {"facecolor": "#7fb0d8", "hatch": "\\\\\\\\"}, {"facecolor": "#ffe0a8", "hatch": "xxxx"}, {"facecolor": "#e0862a"},
    {"facecolor": "#6b2d10"},
]
SYSTEMS = dict(zip(["DeepSpeed", "FlexGen", "FlexGen-GDS", "FlexGen-SparQ", "Recomp", "InstA", "InstA-SparF"], FILLS))
SHARES = [{"facecolor": "#6b2d10"}, {"facecolor": "#cfe0f0"}, {"facecolor": "#e0862a", "hatch": "////"},
          {"facecolor": "#ffffff", "hatch": "xxxx"}]

# Lines differ in colour, dashes and markers.
LINES = [
    {"color": "#000000", "marker": "o", "linestyle": "-"}, {"color": "#0060a8", "marker": "s", "linestyle": "--"},
    {"color": "#c24a00", "marker": "^", "linestyle": "-"}, {"color": "#00806a", "marker": "D", "linestyle": ":"},
    {"color": "#9a3f86", "marker": "v", "linestyle": "-."}, {"color": "#4a90c2", "marker": "P", "linestyle": "-"},
    {"color": "#b07a00", "marker": "X", "linestyle": "--"}, {"color": "#666666", "marker": "<", "linestyle": ":"},
    {"color": "#a02040", "marker": ">", "linestyle": "-."}, {"color": "#3a7a20", "marker": "*", "linestyle": "-"},
    {"color": "#5050b0", "marker": "h", "linestyle": "--"}, {"color": "#333333", "marker": "p", "linestyle": "-."},
]
PAPER = {"marker": "D", "color": "white", "markeredgecolor": "black", "markeredgewidth": 1.1, "markersize": 5.5,
         "linestyle": "none", "zorder": 5}


def figure(width: float = 8.4, height: float = 3.6, **options):
    return plt.subplots(figsize=(width, height), **options)


def save(fig, file: Path) -> None:
    """An SVG without the date and matplotlib's version, each path on a line; other formats by the name's end."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".svg":
        text = io.StringIO()
        fig.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
        paths = re.sub(r' d="[^"]*"', lambda d: " " + " ".join(d[0].split()), text.getvalue())
        file.write_text(re.sub(r"[ ]+$", "", paths, flags=re.M), encoding="utf-8")
    else:
        fig.savefig(file)
    plt.close(fig)


def logarithmic(axis, decades_alone: bool = False) -> None:
    """Ticks at 1, 2 and 5 of each decade, or only at decades where there are many; written as 0.1, 1, 1,000."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    axis.set_major_locator(LogLocator(subs=(1,) if decades_alone else (1, 2, 5), numticks=99))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(plain)


def plain(x: float, _=None) -> str:
    return f"{x:,.0f}" if x >= 10 else f"{x:g}"


def patch(label: str, look: dict) -> Patch:
    return Patch(label=label, edgecolor="black", linewidth=0.8, **look)


def below(fig, handles: list, columns: int) -> None:
    """A legend under the axes, which give up the room that its rows take."""
    room = (0.19 * -(-len(handles) // columns) + 0.08) / fig.get_figheight()
    fig.get_layout_engine().set(rect=(0, room, 1, 1 - room))
    fig.legend(handles=handles, loc="lower left", ncol=columns, borderaxespad=0.2)


def beside(axes, **options) -> None:
    axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), borderaxespad=0, **options)
