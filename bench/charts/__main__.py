"""Draws the charts of a program's JSON with matplotlib.

usage: python3 bench/charts JSON OUT

The JSON of ./dev bench paper, beyond and methods has many charts: OUT is a folder. The demo, the sweep, the capacity
planner, ./dev bench llm and ./dev bench report have one: OUT is a file (.svg, .png).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main() -> int:
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    source, out = Path(sys.argv[1]), Path(sys.argv[2])
    try:
        import accuracy, beyond, examples, methods, paper, roofline  # noqa: E401 (they need matplotlib)
    except ModuleNotFoundError as missing:
        if missing.name not in ("matplotlib", "numpy"):
            raise
        print(f"not drawn: Python's matplotlib is not installed (Debian: python3-matplotlib). With it, run\n"
              f"  {sys.executable} {Path(__file__).parent} {source} {out}", file=sys.stderr)
        return 1
    kinds = {"paper": paper.draw, "beyond": beyond.draw, "methods": methods.draw, "accuracy": accuracy.draw,
             "roofline": roofline.draw, "demo": examples.draw_demo, "sweep": examples.draw_sweep,
             "plan": examples.draw_plan}
    try:
        data = json.loads(source.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        print(f"{source}: not drawn, it is no JSON file that can be read: {problem}", file=sys.stderr)
        return 1
    kind = data.get("kind") if isinstance(data, dict) else None
    if kind not in kinds:
        print(f"{source}: \"kind\" is {kind!r}, where one of {', '.join(kinds)} is expected", file=sys.stderr)
        return 1
    try:
        kinds[kind](data, out)
    except OSError as problem:
        print(f"{out}: cannot be written: {problem.strerror}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
