"""PyTorch: absorbed latent attention (MLA decode, DeepSeek) on the CPU, one new token.

The cache is one tensor c [tokens, 576]; V is its first 512 columns, a view. A call computes
softmax(q c^T / sqrt(576)) c[:, :512] for q [q_heads, 576] in several ways, of which the fastest counts:
  matmul            both products by torch.matmul, softmax in the element's type
  matmul, fp32      the same, with the softmax in fp32
  SDPA              scaled_dot_product_attention with the query heads in place of new tokens
  compiled          torch.compile of the first
In bf16 oneDNN multiplies on matrix units (AMX) where the processor has them, and rounds the weights to bf16:
the error is 2e-3, against 1e-6 of fp32.
"""

from __future__ import annotations

import math
from typing import Iterator

import torch
from torch.nn.functional import scaled_dot_product_attention

from cache import Cache
from torch_sdpa import Call, _tensor, version  # noqa: F401  (version: for run.py)

METHOD = "latent"
TYPES = {"bf16": torch.bfloat16, "f32": torch.float32}


def calls(cache: Cache, threads: int) -> Iterator[Call]:
    torch.set_num_threads(threads)
    shape = cache.shape
    scale = 1 / math.sqrt(shape.dim)
    for element, type_ in TYPES.items():
        c = _tensor(cache.k[element], element)[0, 0]
        v = c[:, :shape.v_dim]
        q = torch.from_numpy(cache.q).to(type_)

        def products(q: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
            return torch.softmax(q @ c.T * scale, -1) @ c[:, :shape.v_dim]

        def wide_softmax() -> torch.Tensor:
            return torch.softmax((q @ c.T).float() * scale, -1).to(type_) @ v

        def attention() -> torch.Tensor:
            return scaled_dot_product_attention(q[None, None], c[None, None], v[None, None], scale=scale)

        compiled = torch.compile(products)
        yield Call("torch, matmul", element, lambda: products(q, c))
        yield Call("torch, matmul, fp32", element, wide_softmax)
        yield Call("torch, SDPA", element, attention)
        yield Call("torch, compiled", element, lambda: compiled(q, c))
