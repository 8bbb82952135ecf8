"""Dense decode attention, also of latent rows: instinfer beside PyTorch and ggml, on the same shapes, in one run.

For every shape and number of threads, bench_cpu and each peer are measured one after another, twice round,
and the better time of each counts: a shared machine's speed changes over minutes, so that only what was
measured close together can be compared. Each result is checked against fp64 on the values as stored. GB/s
counts each byte of K and V once, and `of read` is that over the read bandwidth which bench_cpu measured.
`ours/peer` is the ratio of our rate to the peer's, with elements of the same type, or marked * of the same
size. What fits in L3 stays there, for all alike. Other work on the machine hurts those most that wait at
barriers: two threads on two cores want an idle machine.

usage: ./dev bench peers [--json FILE] [--filter REGEX] [--rounds N]
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
from dataclasses import asdict
from pathlib import Path

import ours
from cache import ELEMENT_BYTES, Cache, Result, Shape, best_seconds

PEERS = ["torch_sdpa", "ggml_flash", "torch_mla"]  # each says for which METHOD
HEADS = [(32, 32), (32, 8), (64, 8), (8, 1)]
SHAPES = [Shape(q, kv, tokens) for tokens in (32768, 4096, 1024) for q, kv in HEADS]
SHAPES += [Shape(q, 1, 32768, 576, 512, "latent") for q in (16, 64, 128)]  # DeepSeek's
WRONG = 0.2  # relative error from which a result is taken for another function, not for rounding


def peers() -> list:
    """The modules that can be used here; says why of those that cannot."""
    modules = []
    for name in PEERS:
        try:
            modules.append(importlib.import_module(name))
            print(f"  {modules[-1].version()}")
        except (ImportError, OSError, AttributeError) as error:
            print(f"  {name}: left out, {str(error).splitlines()[0]}")
    return modules


def machine() -> str:
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    l3 = Path("/sys/devices/system/cpu/cpu0/cache/index3/size")
    last_level = f", {l3.read_text().strip()} of L3" if l3.exists() else ""
    name = cpu.group(1) if cpu else "CPU unknown"
    busy = f"load average {os.getloadavg()[0]:.1f} before the start"
    return f"{name}, {os.cpu_count()} cores{last_level}; {busy}"


class Table:
    """The best result of each peer for one shape and number of threads."""

    def __init__(self, shape: Shape, threads: int):
        self.shape, self.threads = shape, threads
        self.best: dict[tuple[str, str], Result] = {}
        self.failures: dict[str, None] = {}  # an ordered set

    def add(self, result: Result) -> None:
        kept = self.best.setdefault((result.peer, result.case), result)
        if result.ms < kept.ms:
            self.best[result.peer, result.case] = result

    def measure(self, cache: Cache, modules: list, binary: Path | None, rounds: int) -> None:
        for _ in range(rounds):
            if binary:
                results, failures = ours.measure(binary, self.shape, self.threads)
                for result in results:
                    self.add(result)
                self.failures.update(dict.fromkeys(failures))
            for module in modules:
                try:
                    for call in module.calls(cache, self.threads):
                        self._measure_call(cache, call, module.version())
                except RuntimeError as error:
                    self.failures[f"{module.__name__}: {str(error).splitlines()[0]}"] = None

    def _measure_call(self, cache: Cache, call, version: str) -> None:
        error = cache.rel_error(call.element, call.out())
        if error < WRONG:
            seconds = best_seconds(call.attend)
            self.add(Result(call.name, self.shape.case(call.element), self.threads, seconds * 1e3,
                            self.shape.kv_bytes(call.element) / seconds, error, version))
        else:
            self.failures[f"{call.name}, {call.element}: wrong result, relative error {error:.2g}"] = None
        if hasattr(call, "close"):
            call.close()

    def _ratio(self, result: Result) -> str:
        element = result.case.split("/")[1]
        for other in [element] + [e for e in ELEMENT_BYTES if ELEMENT_BYTES[e] == ELEMENT_BYTES[element]]:
            mine = self.best.get(("instinfer", self.shape.case(other)))
            if mine:
                return f"{result.ms / mine.ms:.2f}" + (" " if other == element else "*")
        return "- "

    def print(self) -> None:
        mine = [r for r in self.best.values() if r.of_read_bandwidth]
        probe = max((r.bytes_per_second / r.of_read_bandwidth for r in mine), default=0)
        read = f", read bandwidth {probe / 1e9:.1f} GB/s" if probe else ""
        size = f"{self.shape.kv_bytes('f16') / 1e6:.1f} MB in 16 bits"
        print(f"\n{self.shape.method}/{self.shape}, threads {self.threads}: {size}{read}", flush=True)
        print(f"  {'':22} {'type':5} {'ms':>9} {'GB/s':>7} {'of read':>8} {'ours/peer':>10}  rel. error")
        for result in self.best.values():
            of_read = result.of_read_bandwidth or (probe and result.bytes_per_second / probe)
            share = f"{of_read:.2f}" if of_read else "-"
            ratio = "" if result.peer == "instinfer" else self._ratio(result)
            print(f"  {result.peer:22} {result.case.split('/')[1]:5} {result.ms:9.3f}"
                  f" {result.bytes_per_second / 1e9:7.1f} {share:>8} {ratio:>10}  {result.rel_error:.1e}")
        for failure in self.failures:
            print(f"  {failure}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="./dev bench peers", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--filter", default="", metavar="REGEX", help="only shapes like dense/q32_kv8/d128/t1024")
    parser.add_argument("--rounds", type=int, default=2, metavar="N", help="how often each is measured (2)")
    parser.add_argument("--ours", type=Path, help="the program bench_cpu")
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error(f"--rounds: at least 1 is wanted, got {arguments.rounds}")
    if arguments.json:  # before hours of work
        try:
            arguments.json.open("a").close()
        except OSError as problem:
            parser.error(f"--json: {arguments.json} cannot be written: {problem.strerror}")

    print(machine())
    modules = peers()
    results: list[Result] = []
    for seed, shape in enumerate(s for s in SHAPES if re.search(arguments.filter, f"{s.method}/{s}")):
        cache = Cache(shape, seed)
        for threads in (1, 2):
            table = Table(shape, threads)
            of_method = [module for module in modules if module.METHOD == shape.method]
            table.measure(cache, of_method, arguments.ours, arguments.rounds)
            table.print()
            results += table.best.values()
        del cache
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(r) for r in results], indent=1) + "\n")


if __name__ == "__main__":
    main()
