"""Attention time of a token: dense attends of the engine through the bridge, and torch's, on the same K, V and queries.

Every layer has its own K and V, as in a model, so that a call finds the processor's caches as the layers before left
them. The contenders take turns. A layer's best call counts, and the sum over the layers is a token's time, so that other
work on the machine hurts none of them. Results are compared with fp64 before they are timed.
"""

import time

import torch
from torch.nn.functional import scaled_dot_product_attention

import instinfer_llm

LAYERS, Q_HEADS, KV_HEADS, DIM = 30, 9, 3, 64  # SmolLM2-135M
CONTEXTS = (4096, 8192)
TYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
BOUND = {"fp32": 1e-4, "fp16": 2e-3, "bf16": 1e-2}  # of outputs near 0.03, which torch rounds to the type


class Engine:
    """Appends one token and attends to it, in one call of the bridge."""

    def __init__(self, storage, rows, threads):
        self.name, self.storage, self.tokens = "instinfer", storage, rows[0][0].shape[0]
        self.model = instinfer_llm.Model(
            [instinfer_llm.Layer(Q_HEADS, KV_HEADS, DIM)] * LAYERS, storage=storage, context_tokens=self.tokens,
            bytes=LAYERS * KV_HEADS * (self.tokens + 2048) * 2 * DIM * TYPES[storage].itemsize * 2, threads=threads)
        self.sequence = self.model.open()
        self.out = torch.zeros(1, Q_HEADS, DIM)
        self.new = []  # the last token of each layer
        for layer, (k, v, q) in enumerate(rows):
            k, v, q = (x.to(TYPES[storage]) for x in (k, v, q))
            self.model.prefill(layer, [(self.sequence, k[:-1], v[:-1], None, None)])
            self.new.append((k[-1:], v[-1:], q))

    def attend(self, layer):
        self.model.decode(layer, [(self.sequence, *self.new[layer], self.out)])
        return self.out

    def after_round(self):
        self.model.truncate(self.sequence, self.tokens - 1)

    def inner_ns(self):
        return self.model.usage()["wall_ns"]


class Torch:
    """By rows: the query heads of a group are rows of one call, so that K and V are read once for them."""

    def __init__(self, storage, rows, by_rows):
        self.name, self.storage, self.by_rows = f"torch {storage}", storage, by_rows
        self.of_layer = []
        for k, v, q in rows:
            k, v = (x.to(TYPES[storage]).transpose(0, 1)[None].contiguous() for x in (k, v))  # [1, kv_heads, n, dim]
            shape = (1, KV_HEADS, Q_HEADS // KV_HEADS, DIM) if by_rows else (1, Q_HEADS, 1, DIM)
            self.of_layer.append((q.to(TYPES[storage]).view(shape), k, v))

    def attend(self, layer):
        return scaled_dot_product_attention(*self.of_layer[layer], enable_gqa=not self.by_rows).view(1, Q_HEADS, DIM)

    def after_round(self):
        pass

    def inner_ns(self):
        return 0


def check(contender, rows):
    for layer in (0, LAYERS - 1):
        k, v, q = (x.to(TYPES[contender.storage]).double() for x in rows[layer])
        weights = torch.softmax(q.view(KV_HEADS, -1, DIM) @ k.permute(1, 2, 0) / DIM**0.5, -1)
        expected = (weights @ v.transpose(0, 1)).view(1, Q_HEADS, DIM)
        error = float((contender.attend(layer).double() - expected).abs().max())
        if not error < BOUND[contender.storage]:
            raise SystemExit(f"./dev bench llm --speed: {contender.name} is off by {error:.1e}, expected below "
                             f"{BOUND[contender.storage]:g}")
    contender.after_round()


# One token after a prompt of `tokens`: as most do, it fills no page.
def measure(storage, tokens, threads, rounds):
    torch.set_num_threads(threads)
    draw = torch.Generator().manual_seed(1)
    rows = [tuple(torch.randn(n, heads, DIM, generator=draw)
                  for n, heads in ((tokens + 1, KV_HEADS), (tokens + 1, KV_HEADS), (1, Q_HEADS))) for _ in range(LAYERS)]
    contenders = [Engine(storage, rows, threads)]
    contenders += [Torch(s, rows, by_rows) for s in TYPES for by_rows in (True, False)]
    for contender in contenders:
        check(contender, rows)
    del rows
    best, attend, beyond = {}, [float("inf")] * LAYERS, [float("inf")] * LAYERS
    for _ in range(rounds):
        for contender in contenders:
            times = best.setdefault((contender.name, getattr(contender, "by_rows", None)), [float("inf")] * LAYERS)
            for layer in range(LAYERS):
                before = contender.inner_ns()
                begin = time.perf_counter_ns()
                contender.attend(layer)
                took = time.perf_counter_ns() - begin
                inner = contender.inner_ns() - before
                times[layer] = min(times[layer], took)
                if inner:
                    attend[layer], beyond[layer] = min(attend[layer], inner), min(beyond[layer], took - inner)
            contender.after_round()
    ms = {}
    for (name, _), times in best.items():  # the better of torch's two ways
        ms[name] = min(ms.get(name, float("inf")), sum(times) / 1e6)
    return {"storage": storage, "tokens": tokens, "threads": threads, "rounds": rounds, "ms": ms,
            "attend_ms": sum(attend) / 1e6, "beyond_ms": sum(beyond) / 1e6}


def run(storage, rounds, most_threads):
    found = []
    for tokens in CONTEXTS:
        for threads in sorted({1, most_threads}):
            found.append(measure(storage, tokens, threads, rounds))
            print(f"{tokens} tokens, {threads} thread(s): " + ", ".join(
                f"{name} {ms:.2f} ms" for name, ms in found[-1]["ms"].items()), flush=True)
    return {"threads": most_threads, "target": instinfer_llm.target(), "torch": torch.__version__, "rows": found}
