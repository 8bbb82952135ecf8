"""Dense decode attention on a GPU: FlashInfer and PyTorch on the shapes of bench/cuda.cu, in one run.

Peers come from PyPI (pip install torch flashinfer-python); one that is not there is left out, with the
reason. Pages of 16 tokens in random order, random data, K and V of all copies over ten times the L2, events
around a CUDA graph of 20 or more launches that go round the copies. GB/s counts each byte of K and V, the
query and the output once, GB = 1e9. --ours takes the JSON of `./dev bench cuda --json FILE` from the same
machine, and prints the ratio.

usage: python3 bench/peers/gpu.py [--ours FILE] [--json FILE] [--filter REGEX]
"""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Callable

PAGE = 16
DIM = 128
HEADS = [(32, 32), (32, 8), (64, 8), (28, 4), (8, 1)]
BATCHES = [1, 4, 16, 64, 256]
TOKENS = [1024, 4096, 8192, 32768, 131072]


@dataclass(frozen=True)
class Shape:
    q_heads: int
    kv_heads: int
    batch: int
    tokens: int

    def __str__(self) -> str:
        return f"dense/q{self.q_heads}_kv{self.kv_heads}/d{DIM}/b{self.batch}/t{self.tokens}/p{PAGE}"

    def kv_bytes(self) -> int:
        return 2 * self.batch * self.tokens * self.kv_heads * DIM * 2

    def bytes(self) -> int:
        return self.kv_bytes() + 2 * self.batch * self.q_heads * DIM * 2


@dataclass
class Result:
    peer: str
    case: str
    us: float
    bytes_per_second: float
    rel_error: float


class Pools:
    """Pages of `copies` batches in one pool, [page, 2, PAGE, kv_heads, DIM], in random order."""

    def __init__(self, torch, shape: Shape):
        l2 = torch.cuda.get_device_properties(0).L2_cache_size
        self.shape = shape
        self.copies = 10 * l2 // shape.kv_bytes() + 1
        self.pages = shape.tokens // PAGE
        generator = torch.Generator("cuda").manual_seed(1)
        count = self.copies * shape.batch * self.pages
        self.kv = torch.empty(count, 2, PAGE, shape.kv_heads, DIM, dtype=torch.float16, device="cuda")
        self.kv.normal_(generator=generator)
        order = torch.randperm(count, generator=generator, device="cuda", dtype=torch.int32)
        self.table = order.view(self.copies, shape.batch, self.pages)
        self.q = torch.randn(self.copies, shape.batch, shape.q_heads, DIM, dtype=torch.float16, device="cuda",
                             generator=generator)

    def exact(self, torch):
        """Copy 0, sequence 0, in fp64, a KV head at a time: [q_heads, DIM]."""
        rows = self.kv[self.table[0, 0].long()]
        group = self.shape.q_heads // self.shape.kv_heads
        heads = []
        for h in range(self.shape.kv_heads):
            k, v = (rows[:, i, :, h].reshape(-1, DIM).double() for i in (0, 1))
            q = self.q[0, 0, h * group:(h + 1) * group].double()
            heads.append(torch.softmax(q @ k.T / DIM**0.5, 1) @ v)
        return torch.cat(heads)


def flashinfer_calls(torch, pools: Pools) -> Callable[[int], object]:
    import flashinfer

    shape = pools.shape
    wrappers = []
    # A plan is of one table: each copy has its wrapper. The launches follow each other: one workspace for partial results.
    workspace = torch.zeros(128 << 20, dtype=torch.uint8, device="cuda")
    for copy in range(pools.copies):
        indptr = torch.arange(shape.batch + 1, dtype=torch.int32, device="cuda") * pools.pages
        last = torch.full((shape.batch,), PAGE, dtype=torch.int32, device="cuda")
        wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(
            workspace, "NHD",
            use_tensor_cores=shape.q_heads // shape.kv_heads >= 4)
        wrapper.plan(indptr, pools.table[copy].reshape(-1).contiguous(), last, shape.q_heads, shape.kv_heads, DIM,
                     PAGE, q_data_type=torch.float16, kv_data_type=torch.float16)
        wrappers.append(wrapper)
    return lambda copy: wrappers[copy].run(pools.q[copy], pools.kv)


def torch_calls(torch, pools: Pools) -> Callable[[int], object]:
    """No pages: K and V contiguous, [batch, kv_heads, tokens, DIM], which the pool is copied to beforehand."""
    shape = pools.shape
    dense = []
    for copy in range(pools.copies):
        rows = pools.kv[pools.table[copy].long()]  # [batch, pages, 2, PAGE, kv_heads, DIM]
        dense.append([rows[:, :, i].reshape(shape.batch, shape.tokens, shape.kv_heads, DIM).transpose(1, 2).contiguous()
                      for i in (0, 1)])

    def run(copy: int):
        q = pools.q[copy].unsqueeze(2)
        k, v = dense[copy]
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=True).squeeze(2)

    return run


def microseconds(torch, pools: Pools, run: Callable[[int], object]) -> float:
    """Median of five graphs, a launch."""
    launches = max(20, pools.copies)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for copy in range(min(pools.copies, 3)):
            run(copy)
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        for i in range(launches):
            run(i % pools.copies)
    times = []
    for i in range(7):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        if i >= 2:  # two to warm up
            times.append(begin.elapsed_time(end) * 1e3 / launches)
    return sorted(times)[2]


def ours(file: Path | None) -> dict[str, float]:
    if not file:
        return {}
    found = {}
    for case in json.loads(file.read_text())["benchmarks"]:
        name = case["name"].split("/iterations:")[0]
        if "us" in case:
            found[name] = case["us"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--ours", type=Path, metavar="FILE")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--filter", default="", metavar="REGEX")
    arguments = parser.parse_args()
    if arguments.json:  # before hours of work
        try:
            arguments.json.open("a").close()
        except OSError as problem:
            parser.error(f"--json: {arguments.json} cannot be written: {problem.strerror}")
    try:
        import torch
    except ImportError as error:
        raise SystemExit(f"needs torch: {error}") from error
    if not torch.cuda.is_available():
        raise SystemExit("no CUDA device for torch")
    mine = ours(arguments.ours)
    print(f"{torch.cuda.get_device_name(0)}, torch {torch.__version__}")
    results: list[Result] = []
    for q_heads, kv_heads in HEADS:
        for batch in BATCHES:
            for tokens in TOKENS:
                shape = Shape(q_heads, kv_heads, batch, tokens)
                if not re.search(arguments.filter, str(shape)):
                    continue
                # The pool; torch's own contiguous copies of it, and what they are made of; FlashInfer's plans, about 8 MB each.
                copies = 10 * torch.cuda.get_device_properties(0).L2_cache_size // shape.kv_bytes() + 1
                needed = 2 * copies * shape.kv_bytes() + shape.kv_bytes() + copies * (8 << 20) + (2 << 30)
                if needed > torch.cuda.mem_get_info()[0]:
                    print(f"{shape}: does not fit: needs {needed >> 20} MB")
                    continue
                pools = Pools(torch, shape)
                exact = pools.exact(torch)
                for name, make in (("flashinfer", flashinfer_calls), ("torch", torch_calls)):
                    try:
                        run = make(torch, pools)
                        error = float((run(0)[0].double() - exact).norm() / exact.norm())
                        if not error < 2e-2:
                            print(f"{shape} {name}: wrong result, relative error {error:.2g}")
                            continue
                        us = microseconds(torch, pools, run)
                        del run
                    except (ImportError, RuntimeError, ValueError, TypeError) as failure:
                        print(f"{shape} {name}: left out, {str(failure).splitlines()[0] if str(failure) else failure!r}")
                        continue
                    results.append(Result(name, str(shape), us, shape.bytes() / us * 1e6, error))
                    ratio = f", ours {us / mine[str(shape)]:.2f} times as fast" if str(shape) in mine else ""
                    print(f"{shape} {name}: {us:.1f} us, {shape.bytes() / us / 1e3:.0f} GB/s{ratio}", flush=True)
                del pools
                torch.cuda.empty_cache()
                if arguments.json:  # after each shape: a run that is cut short leaves what it measured
                    arguments.json.write_text(json.dumps([asdict(r) for r in results], indent=1) + "\n")


if __name__ == "__main__":
    main()
