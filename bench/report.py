"""Writes docs/performance.md's tables and docs/roofline.svg from bench_cpu's JSON.

The tables stand between markers in the document; everything else in it stays as it is. Peers come from the
JSON of ./dev bench peers, where there is one.

usage: ./dev bench report [CPU_JSON [PEERS_JSON]]
"""

from __future__ import annotations

import json
import math
import re
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ELEMENT_BYTES = {"f32": 4, "f16": 2, "bf16": 2, "i8": 1, "f8": 1, "i4": 36 / 64}


def entries(report: dict) -> list[dict]:
    return [e for e in report["benchmarks"] if not e.get("error_occurred") and "bytes_per_second" in e]


def cpu_table(report: dict) -> str:
    lines = ["| case | GB/s | of read bandwidth | rel. error | ratio |", "|---|---|---|---|---|"]
    for e in entries(report):
        share = f"{e['of_read_bandwidth']:.2f}" if "of_read_bandwidth" in e else ""
        ratio = next((f"{e[k]:.2f} {k}" for k in ("vs_dense", "vs_single", "time_over_f16") if k in e), "")
        lines.append(f"| `{e['name']}` | {e['bytes_per_second'] / 1e9:.1f} | {share} | {e['rel_error']:.1e} | {ratio} |")
    return "\n".join(lines)


def machine(report: dict) -> str:
    c = report["context"]
    busy = float(c.get("load_before", 0))
    noise = (f" **Load average {busy:.1f} before the start: other programs took processor time and bandwidth, from cases"
             " and probes alike. Rates are lower bounds, and shares and ratios may be off either way.**"
             if busy > 0.3 else "")
    text = (f"{c['cpu']}, {c['cores']} cores, {c['simd_target']}, g++ {c['compiler']}, flags `{c['flags'].strip()}`, "
            f"pages of {c['page_size']}, {float(c['flops_per_second']) / 1e9:.0f} GFLOP/s of fp32 a core.{noise}")
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def peers_table(results: list[dict]) -> str:
    lines = ["| case | threads | peer | ms | GB/s | rel. error |", "|---|---|---|---|---|---|"]
    for r in results:
        lines.append(f"| `{r['case']}` | {r['threads']} | {r['peer']} | {r['ms']:.2f} |"
                     f" {r['bytes_per_second'] / 1e9:.1f} | {r['rel_error']:.1e} |")
    return "\n".join(lines)


def replace(text: str, marker: str, body: str) -> str:
    pattern = re.compile(rf"(<!-- {marker} -->\n).*?(<!-- end of {marker} -->)", re.S)
    assert pattern.search(text), f"docs/performance.md has no marker {marker}"
    return pattern.sub(lambda m: m[1] + "\n" + body + "\n\n" + m[2], text)


def points(report: dict) -> list[tuple[str, float, float]]:
    """One thread's dense cases of 32 K tokens and the baselines: name, FLOP a byte, FLOP/s."""
    found = []
    for e in entries(report):
        m = re.fullmatch(r"(dense|eigen|scalar)/(\w+)/q(\d+)_kv(\d+)/d\d+/t32768/threads:1", e["name"])
        if m:
            # 2 multiply-adds an element of K or V and query head of the group
            intensity = 2 * int(m[3]) / int(m[4]) / ELEMENT_BYTES[m[2]]
            label = f"{'ours' if m[1] == 'dense' else m[1]} {m[2]} {m[3]}/{m[4]}"
            found.append((label, intensity, intensity * e["bytes_per_second"]))
    return found


def roofline(report: dict) -> str:
    """Both axes in powers of 2. The roof: read bandwidth times intensity, up to the core's multiply-adds."""
    dense = [e for e in entries(report) if re.search(r"^dense/.*/t32768/threads:1$", e["name"])]
    bandwidth = max(e["bytes_per_second"] / e["of_read_bandwidth"] for e in dense if "q32_kv32" in e["name"])
    peak = float(report["context"]["flops_per_second"])
    shown = points(report)
    x0, x1 = -2, 5
    y0 = math.floor(math.log2(min(p[2] for p in shown) / 1e9)) if shown else 0
    y1 = math.ceil(math.log2(peak / 1e9))
    left, top, width, height = 70, 40, 620, 360

    def x(intensity: float) -> float:
        return left + (math.log2(intensity) - x0) / (x1 - x0) * width

    def y(flops: float) -> float:
        return top + (y1 - math.log2(flops / 1e9)) / (y1 - y0) * height

    out = ['<svg xmlns="http://www.w3.org/2000/svg" width="780" height="470" viewBox="0 0 780 470" font-family="sans-serif">',
           '<rect width="100%" height="100%" fill="white"/>',
           '<text x="20" y="24" font-size="15" font-weight="bold">One core: decode attention under its roof</text>']
    for e in range(x0, x1 + 1):
        out.append(f'<line x1="{x(2**e):.1f}" y1="{top}" x2="{x(2**e):.1f}" y2="{top + height}" stroke="#ddd"/>')
        out.append(f'<text x="{x(2**e):.1f}" y="{top + height + 18}" font-size="12" text-anchor="middle">{2.0**e:g}</text>')
    for e in range(y0, y1 + 1):
        out.append(f'<line x1="{left}" y1="{y(2**e * 1e9):.1f}" x2="{left + width}" y2="{y(2**e * 1e9):.1f}" stroke="#ddd"/>')
        out.append(f'<text x="{left - 8}" y="{y(2**e * 1e9) + 4:.1f}" font-size="12" text-anchor="end">{2.0**e:g}</text>')
    ridge = peak / bandwidth
    start = max(2.0**x0, 2.0**y0 * 1e9 / bandwidth)
    out.append(f'<polyline points="{x(start):.1f},{y(start * bandwidth):.1f} {x(ridge):.1f},{y(peak):.1f} {x(2**x1):.1f},{y(peak):.1f}"'
               ' fill="none" stroke="#222" stroke-width="2"/>')
    out.append(f'<text x="{x(2**x1) - 4:.1f}" y="{y(peak) - 8:.1f}" font-size="12" text-anchor="end">'
               f'fp32 multiply-adds: {peak / 1e9:.0f} GFLOP/s</text>')
    out.append(f'<text x="{x(start) + 8:.1f}" y="{top + 14}" font-size="12">reads: {bandwidth / 1e9:.1f} GB/s</text>')
    placed: list[tuple[float, float]] = []
    for label, intensity, flops in sorted(shown, key=lambda point: -point[2]):
        px, py = x(intensity), y(flops)
        colour = "#c0392b" if label.startswith("ours") else "#7f8c8d"
        out.append(f'<circle cx="{px:.1f}" cy="{py:.1f}" r="5" fill="{colour}"/>')
        ty = py + 4
        ends = px + 9 + 6.3 * len(label)
        while (any(abs(ty - other) < 13 and abs(px - ox) < 120 for ox, other in placed)
               or any(px < x(i) < ends and abs(ty - 4 - y(f)) < 9 for other, i, f in shown if other != label)):
            ty += 13  # below its neighbours' labels and points
        placed.append((px, ty))
        if ty > py + 4:
            out.append(f'<line x1="{px:.1f}" y1="{py:.1f}" x2="{px + 8:.1f}" y2="{ty - 4:.1f}" stroke="{colour}"/>')
        out.append(f'<text x="{px + 9:.1f}" y="{ty:.1f}" font-size="11" fill="{colour}">{label}</text>')
    out.append(f'<text x="{left + width / 2}" y="{top + height + 42}" font-size="13" text-anchor="middle">FLOP a byte of K and V</text>')
    out.append(f'<text x="18" y="{top + height / 2}" font-size="13" text-anchor="middle"'
               f' transform="rotate(-90 18 {top + height / 2})">GFLOP/s</text>')
    return "\n".join(out + ["</svg>"]) + "\n"


def main() -> None:
    report = json.loads(Path(sys.argv[1]).read_text())
    document = ROOT / "docs" / "performance.md"
    text = document.read_text()
    text = replace(text, "machine", machine(report))
    text = replace(text, "cpu", cpu_table(report))
    if len(sys.argv) > 2 and Path(sys.argv[2]).exists():
        text = replace(text, "peers", peers_table(json.loads(Path(sys.argv[2]).read_text())))
    document.write_text(text)
    (ROOT / "docs" / "roofline.svg").write_text(roofline(report))


if __name__ == "__main__":
    main()
