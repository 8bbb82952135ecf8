"""A KV cache in numpy arrays, as every peer gets it, with the exact result on the values it stores.

K, V and the query are fresh normal random numbers. An element of the cache is fp32, fp16, or bf16 (kept as
its 16 bits, for numpy has no such type). The query is rounded to bf16 first: all three types then hold the
same one, and no peer's error holds the rounding of it.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Callable

import numpy as np

ELEMENT_BYTES = {"f32": 4, "f16": 2, "bf16": 2}


@dataclass(frozen=True)
class Shape:
    q_heads: int
    kv_heads: int
    tokens: int
    dim: int = 128
    v_dim: int = 128
    method: str = "dense"  # or "latent": V is the first v_dim dims of K's rows

    def case(self, element: str) -> str:
        """The name of the same case in bench_cpu, without its threads."""
        return f"{self.method}/{element}/{self}"

    def __str__(self) -> str:
        return f"q{self.q_heads}_kv{self.kv_heads}/d{self.dim}/t{self.tokens}"

    def kv_bytes(self, element: str) -> int:
        """Each byte of K and V once."""
        row = self.dim + (0 if self.method == "latent" else self.v_dim)
        return self.kv_heads * self.tokens * row * ELEMENT_BYTES[element]


@dataclass
class Result:
    peer: str
    case: str
    threads: int
    ms: float
    bytes_per_second: float
    rel_error: float  # L2, of the worst query head, against fp64 on the stored values
    version: str
    of_read_bandwidth: float | None = None  # only ours has a probe


def aligned(size: tuple[int, ...], type_: type) -> np.ndarray:
    """An array at the start of a memory page: ggml wants 32 bytes; rows then share no cache line."""
    count = math.prod(size) * np.dtype(type_).itemsize
    memory = np.empty(count + 4096, np.uint8)
    start = -memory.ctypes.data % 4096
    return memory[start:start + count].view(type_).reshape(size)


def to_bf16(x: np.ndarray) -> np.ndarray:
    """fp32 to the bits of bf16, nearest even."""
    bits = x.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_bf16(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << 16).view(np.float32)


class Cache:
    """The caches of one shape: k[element], v[element] [kv_heads, tokens, dim]; q in fp32 [q_heads, dim].

    V of latent rows is a view of K.
    """

    def __init__(self, shape: Shape, seed: int):
        self.shape = shape
        random = np.random.default_rng(seed)
        self.q = aligned((shape.q_heads, shape.dim), np.float32)
        self.q[:] = from_bf16(to_bf16(random.standard_normal(self.q.shape, np.float32)))
        self.k = self._stored(random)
        self.v = ({element: k[:, :, :shape.v_dim] for element, k in self.k.items()}
                  if shape.method == "latent" else self._stored(random))
        self._exact: dict[str, np.ndarray] = {}

    def _stored(self, random: np.random.Generator) -> dict[str, np.ndarray]:
        size = (self.shape.kv_heads, self.shape.tokens, self.shape.dim)
        stored = {element: aligned(size, type_)
                  for element, type_ in (("f32", np.float32), ("f16", np.float16), ("bf16", np.uint16))}
        for head in range(size[0]):  # head by head: no temporary as large as the cache
            values = stored["f32"][head]
            random.standard_normal(out=values, dtype=np.float32)
            stored["f16"][head] = values
            stored["bf16"][head] = to_bf16(values)
        return stored

    @staticmethod
    def _doubles(stored: np.ndarray) -> np.ndarray:
        return (from_bf16(stored) if stored.dtype == np.uint16 else stored).astype(np.float64)

    def exact(self, element: str) -> np.ndarray:
        """Attention in fp64 on the stored values, [q_heads, v_dim]."""
        if element not in self._exact:
            group = self.shape.q_heads // self.shape.kv_heads
            out = np.empty((self.shape.q_heads, self.shape.v_dim))
            for head in range(self.shape.kv_heads):
                k, v = (self._doubles(x[element][head]) for x in (self.k, self.v))
                queries = slice(head * group, (head + 1) * group)
                scores = self.q[queries].astype(np.float64) @ k.T / math.sqrt(self.shape.dim)
                weights = np.exp(scores - scores.max(axis=1, keepdims=True))
                out[queries] = weights @ v / weights.sum(axis=1, keepdims=True)
            self._exact[element] = out
        return self._exact[element]

    def rel_error(self, element: str, out: np.ndarray) -> float:
        exact = self.exact(element)
        difference = np.linalg.norm(out.reshape(exact.shape).astype(np.float64) - exact, axis=1)
        return float((difference / np.linalg.norm(exact, axis=1)).max())


def best_seconds(attend: Callable[[], object]) -> float:
    """The best of at least five calls within at least a quarter of a second, after two calls to warm up."""
    attend()
    attend()
    best, calls, begin = math.inf, 0, time.perf_counter()
    while calls < 5 or time.perf_counter() - begin < 0.25:
        start = time.perf_counter()
        attend()
        best = min(best, time.perf_counter() - start)
        calls += 1
    return best
