"""Writes docs/performance.md's tables and docs/roofline.json, which bench/charts draws, from bench_cpu's JSON.

The tables stand between markers in the document; everything else in it stays as it is. Peers come from the
JSON of ./dev bench peers, where there is one.

usage: ./dev bench report CPU_JSON [PEERS_JSON]
"""

from __future__ import annotations

import json
import re
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ELEMENT_BYTES = {"f32": 4, "f16": 2, "bf16": 2, "i8": 1, "f8": 1, "i4": 36 / 64}


def entries(report: dict) -> list[dict]:
    return [e for e in report["benchmarks"] if not e.get("error_occurred") and "bytes_per_second" in e]


def cpu_table(report: dict) -> str:
    ratios = ("vs_dense", "vs_single", "time_over_f16", "time_over_dense", "of_copy", "tokens_per_second")
    lines = ["| case | GB/s | of read bandwidth | of roof | of gathers | rel. error | ratio |",
             "|---|---|---|---|---|---|---|"]
    for e in report["benchmarks"]:
        if e.get("error_occurred"):
            continue
        rate = f"{e['bytes_per_second'] / 1e9:.1f}" if "bytes_per_second" in e else ""
        read, roof, gathers = (f"{e[k]:.2f}" if k in e else ""
                               for k in ("of_read_bandwidth", "of_roof", "of_gather_bandwidth"))
        error = f"{e['rel_error']:.1e}" if "rel_error" in e else ""
        ratio = next((f"{e[k]:.{0 if e[k] > 1000 else 2}f} {k}" for k in ratios if k in e), "")
        lines.append(f"| `{e['name']}` | {rate} | {read} | {roof} | {gathers} | {error} | {ratio} |")
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


def roofline(report: dict) -> dict:
    """One thread's dense cases of 32 K tokens and the baselines, the read bandwidth and the core's multiply-adds."""
    points = []
    for e in entries(report):
        m = re.fullmatch(r"(dense|eigen|scalar)/(\w+)/q(\d+)_kv(\d+)/d\d+/t32768/threads:1", e["name"])
        if m:
            # 2 multiply-adds an element of K or V and query head of the group
            intensity = 2 * int(m[3]) / int(m[4]) / ELEMENT_BYTES[m[2]]
            points.append({"kind": "ours" if m[1] == "dense" else m[1], "label": f"{m[2]} {m[3]}/{m[4]}",
                           "flop_per_byte": intensity, "flops_per_s": intensity * e["bytes_per_second"]})
    bandwidth = max(e["bytes_per_second"] / e["of_read_bandwidth"] for e in entries(report)
                    if re.search(r"^dense/.*q32_kv32/.*/t32768/threads:1$", e["name"]))
    return {"kind": "roofline", "flops_per_s": float(report["context"]["flops_per_second"]),
            "read_bytes_per_s": bandwidth, "points": points}


def read(path: str, key: str | None, writer: str) -> dict | list:
    """The JSON that `writer` wrote; says so where it is none."""
    try:
        found = json.loads(Path(path).read_text())
    except OSError as problem:
        sys.exit(f"./dev bench report: {path} cannot be read: {problem.strerror}")
    except ValueError as problem:
        sys.exit(f"./dev bench report: {path} is not the JSON of {writer}: {problem}")
    if not (isinstance(found, list) if key is None else isinstance(found, dict) and key in found):
        sys.exit(f"./dev bench report: {path} is JSON, but not that of {writer}")
    return found


def main() -> None:
    if not 2 <= len(sys.argv) <= 3:
        sys.exit(__doc__)
    report = read(sys.argv[1], "benchmarks", "./dev bench cpu --json FILE")
    document = ROOT / "docs" / "performance.md"
    text = document.read_text()
    text = replace(text, "machine", machine(report))
    text = replace(text, "cpu", cpu_table(report))
    if len(sys.argv) > 2:
        text = replace(text, "peers", peers_table(read(sys.argv[2], None, "./dev bench peers --json FILE")))
    document.write_text(text)
    (ROOT / "docs" / "roofline.json").write_text(json.dumps(roofline(report), indent=1) + "\n")


if __name__ == "__main__":
    main()
