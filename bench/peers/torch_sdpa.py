"""PyTorch: torch.nn.functional.scaled_dot_product_attention on the CPU, one new token.

K and V lie as transformers' dynamic cache has them, [1, kv_heads, tokens, dim], in memory that numpy
allocated (huge pages where the system gives them). Heads that share keys (GQA) come in three ways:
  enable_gqa     the function's own option;
  grouped view   a group's heads stand in for new tokens of one KV head, so that no key is copied;
  repeated keys  each call copies K and V for every query head, as transformers does without enable_gqa.
The result has the element type of the cache; in bf16 that rounding alone is 2e-3. A call goes through
Python, which costs some 10 us: nothing beside a long context, visible at 1 K tokens.
"""

from __future__ import annotations

from typing import Callable, Iterator

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention

from cache import Cache

METHOD = "dense"
TYPES = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}


def version() -> str:
    return f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}"


def _tensor(stored: np.ndarray, element: str) -> torch.Tensor:
    """The same memory as a tensor [1, heads, tokens, dim]."""
    return torch.from_numpy(stored).view(TYPES[element]).unsqueeze(0)


class Call:
    def __init__(self, name: str, element: str, attend: Callable[[], torch.Tensor]):
        self.name, self.element = name, element
        self._attend = attend

    def attend(self) -> torch.Tensor:
        with torch.inference_mode():
            return self._attend()

    def out(self) -> np.ndarray:
        return self.attend().float().numpy()


def calls(cache: Cache, threads: int) -> Iterator[Call]:
    torch.set_num_threads(threads)
    shape = cache.shape
    group = shape.q_heads // shape.kv_heads
    for element, type_ in TYPES.items():
        k, v = _tensor(cache.k[element], element), _tensor(cache.v[element], element)
        q = torch.from_numpy(cache.q).to(type_).view(1, shape.q_heads, 1, shape.dim)
        grouped = q.view(1, shape.kv_heads, group, shape.dim)

        def repeated(x: torch.Tensor) -> torch.Tensor:
            all_heads = x[:, :, None].expand(1, shape.kv_heads, group, shape.tokens, shape.dim)
            return all_heads.reshape(1, shape.q_heads, shape.tokens, shape.dim)

        if group == 1:
            yield Call("torch", element, lambda: scaled_dot_product_attention(q, k, v))
            continue
        yield Call("torch, grouped view", element, lambda: scaled_dot_product_attention(grouped, k, v))
        yield Call("torch, enable_gqa", element,
                   lambda: scaled_dot_product_attention(q, k, v, enable_gqa=True))
        yield Call("torch, repeated keys", element,
                   lambda: scaled_dot_product_attention(q, repeated(k), repeated(v)))
