"""instinfer: the dense and latent cases of bench_cpu, which is run once for each shape and number of threads.

bench_cpu draws its own data of the same distribution and checks its result against fp64. Its counter
bytes_per_second is the best of some calls, as for the peers; bytes_per_second / of_read_bandwidth is the
read bandwidth that it measured beside. Cases that it does not have are left out, and coded pages, which no
peer has.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from pathlib import Path

from cache import ELEMENT_BYTES, Result, Shape


def measure(binary: Path, shape: Shape, threads: int) -> tuple[list[Result], list[str]]:
    """Results, and in words what went wrong."""
    cases = f"^{shape.method}(_rounded)?/({'|'.join(ELEMENT_BYTES)})/{shape}/threads:{threads}$"
    with tempfile.NamedTemporaryFile("r", suffix=".json") as out:
        run = subprocess.run(
            [binary, f"--benchmark_filter={cases}", "--benchmark_min_time=0.01",  # the loop: a warm-up
             f"--benchmark_out={out.name}", "--benchmark_out_format=json"],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        text = out.read()
    if not text.strip():
        if "Failed to match" in run.stderr:
            return [], []
        return [], [f"instinfer: {binary.name} ended with {run.returncode}: {run.stderr.strip()[-200:]}"]
    report = json.loads(text)
    version = f"instinfer, {report['context'].get('simd_target', 'SIMD target unknown')}"
    results, failures = [], []
    for entry in report["benchmarks"]:
        case, method, element = re.fullmatch(r"((\w+)/(\w+)/.*)/threads:\d+", entry["name"]).groups()
        if entry.get("error_occurred"):
            failures.append(f"instinfer, {case}: {entry['error_message']}")
            continue
        rate = entry["bytes_per_second"]
        peer = "instinfer" if method == shape.method else "instinfer, rounded"
        results.append(Result(peer, shape.case(element), threads, shape.kv_bytes(element) / rate * 1e3, rate,
                              entry["rel_error"], version, entry.get("of_read_bandwidth")))
    return results, failures
