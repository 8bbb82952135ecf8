"""ggml: ggml_flash_attn_ext on its CPU backend, one new token, through ctypes.

The query is fp32, the cache fp16 (also bf16 and fp32, for comparison), without a mask. The pool of threads
stays alive between calls, as in llama.cpp; the work buffer starts a memory page (where ggml allocates it
itself, some runs took 2.9 times as long). The cache lies in one of two ways:
  head-major    [kv_heads][tokens][dim]: a head's rows are adjacent, the best that ggml can get;
  token-major   [tokens][kv_heads][dim]: llama.cpp's cache, seen through ggml_permute as llama.cpp does it.
The library is the one of the package libggml-python.
"""

from __future__ import annotations

import ctypes
import math
from ctypes import c_bool, c_char_p, c_float, c_int, c_int64, c_size_t, c_void_p
from pathlib import Path
from typing import Iterator

import libggml
import numpy as np

from cache import Cache, aligned

METHOD = "dense"
TYPES = {"f32": 0, "f16": 1, "bf16": 30}  # enum ggml_type


class InitParams(ctypes.Structure):
    _fields_ = [("mem_size", c_size_t), ("mem_buffer", c_void_p), ("no_alloc", c_bool)]


class Plan(ctypes.Structure):
    _fields_ = [("work_size", c_size_t), ("work_data", c_void_p), ("n_threads", c_int),
                ("threadpool", c_void_p), ("abort_callback", c_void_p), ("abort_callback_data", c_void_p),
                ("use_ref", c_bool)]


SIGNATURES = {
    "ggml_version": (c_char_p, []),
    "ggml_cpu_has_avx2": (c_int, []),
    "ggml_cpu_has_avx512": (c_int, []),
    "ggml_init": (c_void_p, [InitParams]),
    "ggml_free": (None, [c_void_p]),
    "ggml_new_tensor_4d": (c_void_p, [c_void_p, c_int] + [c_int64] * 4),
    "ggml_permute": (c_void_p, [c_void_p, c_void_p] + [c_int] * 4),
    "ggml_flash_attn_ext": (c_void_p, [c_void_p] * 5 + [c_float] * 3),
    "ggml_new_graph": (c_void_p, [c_void_p]),
    "ggml_build_forward_expand": (None, [c_void_p] * 2),
    "ggml_graph_plan": (Plan, [c_void_p, c_int, c_void_p]),
    "ggml_graph_compute": (c_int, [c_void_p, ctypes.POINTER(Plan)]),
    "ggml_backend_cpu_buffer_from_ptr": (c_void_p, [c_void_p, c_size_t]),
    "ggml_backend_buffer_free": (None, [c_void_p]),
    "ggml_backend_tensor_alloc": (c_int, [c_void_p] * 3),
    "ggml_threadpool_params_init": (None, [c_void_p, c_int]),
    "ggml_threadpool_new": (c_void_p, [c_void_p]),
    "ggml_threadpool_free": (None, [c_void_p]),
}


def _library() -> ctypes.CDLL:
    files = sorted(Path(libggml.__file__).parent.glob("lib*/libggml-cpu.so"))
    if not files:
        raise ImportError("libggml-python has no libggml-cpu.so")
    library = ctypes.CDLL(str(files[0]))  # finds the functions of libggml-base.so, too
    for name, (result, arguments) in SIGNATURES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


ggml = _library()


def version() -> str:
    simd = "AVX512" if ggml.ggml_cpu_has_avx512() else "AVX2" if ggml.ggml_cpu_has_avx2() else "no AVX2"
    return f"ggml {ggml.ggml_version().decode()}, {simd}"


class Call:
    """One graph with one node. Tensors lie in numpy's memory; `close` frees what ggml allocated."""

    def __init__(self, cache: Cache, element: str, token_major: bool, threads: int):
        self.name = "ggml, token-major" if token_major else "ggml, head-major"
        self.element = element
        shape = cache.shape
        self._buffers: list[int] = []
        self._out = aligned((shape.q_heads, shape.dim), np.float32)
        self._arrays = [cache.q, self._out]  # kept alive
        self._context = ggml.ggml_init(InitParams(1 << 20, None, True))
        q = self._tensor(cache.q, "f32", (shape.dim, 1, shape.q_heads, 1))
        k, v = (self._cache_tensor(x[element], element, token_major) for x in (cache.k, cache.v))
        out = ggml.ggml_flash_attn_ext(self._context, q, k, v, None, 1 / math.sqrt(shape.dim), 0, 0)
        self._place(out, self._out)
        self._graph = ggml.ggml_new_graph(self._context)
        ggml.ggml_build_forward_expand(self._graph, out)

        params = ctypes.create_string_buffer(4096)  # ggml_threadpool_params has 536 bytes
        ggml.ggml_threadpool_params_init(params, threads)
        self._pool = ggml.ggml_threadpool_new(params)
        self._plan = ggml.ggml_graph_plan(self._graph, threads, self._pool)
        self._arrays.append(aligned((self._plan.work_size,), np.uint8))
        self._plan.work_data = self._arrays[-1].ctypes.data

    def _place(self, tensor: int, array: np.ndarray) -> None:
        buffer = ggml.ggml_backend_cpu_buffer_from_ptr(array.ctypes.data, array.nbytes)
        self._buffers.append(buffer)
        if ggml.ggml_backend_tensor_alloc(buffer, tensor, array.ctypes.data) != 0:
            raise RuntimeError("ggml_backend_tensor_alloc failed")

    def _tensor(self, array: np.ndarray, element: str, sizes: tuple[int, int, int, int]) -> int:
        tensor = ggml.ggml_new_tensor_4d(self._context, TYPES[element], *sizes)
        self._place(tensor, array)
        return tensor

    def _cache_tensor(self, stored: np.ndarray, element: str, token_major: bool) -> int:
        heads, tokens, dim = stored.shape
        if not token_major:
            return self._tensor(stored, element, (dim, tokens, heads, 1))
        rows = aligned((tokens, heads, dim), stored.dtype)
        rows[:] = stored.transpose(1, 0, 2)
        self._arrays.append(rows)
        tensor = self._tensor(rows, element, (dim, heads, tokens, 1))
        return ggml.ggml_permute(self._context, tensor, 0, 2, 1, 3)

    def attend(self) -> None:
        if ggml.ggml_graph_compute(self._graph, ctypes.byref(self._plan)) != 0:
            raise RuntimeError("ggml_graph_compute failed")

    def out(self) -> np.ndarray:
        self.attend()
        return self._out

    def close(self) -> None:
        ggml.ggml_threadpool_free(self._pool)
        for buffer in self._buffers:
            ggml.ggml_backend_buffer_free(buffer)
        ggml.ggml_free(self._context)


def calls(cache: Cache, threads: int) -> Iterator[Call]:
    yield Call(cache, "f16", False, threads)
    yield Call(cache, "f16", True, threads)
    yield Call(cache, "bf16", False, threads)
    yield Call(cache, "f32", False, threads)
