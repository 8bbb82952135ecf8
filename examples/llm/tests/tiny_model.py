"""A tiny random model of Llama's kind in numpy: what the tests decode with."""

import numpy as np

HEAD_DIM = 64


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def rotated(x, positions, base=10000.0):
    """x [tokens, heads, dim] at these positions; pairs (i, i + dim / 2)."""
    half = x.shape[-1] // 2
    angles = positions[:, None, None] * base ** (-np.arange(half) / half)
    a, b = x[..., :half], x[..., half:]
    return np.concatenate([a * np.cos(angles) - b * np.sin(angles), b * np.cos(angles) + a * np.sin(angles)], -1)


class PlainCache:
    """Attention over all of K and V, by the definition. `sees(layer, position, t)`: the visible tokens t."""

    def __init__(self, layers, sees=lambda layer, position, t: t <= position):
        self.k = [np.zeros((0, 0, 0))] * layers
        self.v = [np.zeros((0, 0, 0))] * layers
        self.sees = sees

    def attend(self, layer, k, v, q, prompt):
        del prompt
        first = self.k[layer].shape[0]
        self.k[layer] = k if first == 0 else np.concatenate([self.k[layer], k])
        self.v[layer] = v if first == 0 else np.concatenate([self.v[layer], v])
        tokens = np.arange(self.k[layer].shape[0])
        out = np.zeros(q.shape)
        group = q.shape[1] // k.shape[1]
        for i in range(q.shape[0]):
            visible = self.sees(layer, first + i, tokens) & (tokens <= first + i)
            for h in range(q.shape[1]):
                logits = self.k[layer][visible, h // group] @ q[i, h] / np.sqrt(q.shape[2])
                out[i, h] = softmax(logits) @ self.v[layer][visible, h // group]
        return out


class EngineCache:
    """The same by the engine, one sequence. `prompts` computes the attention of prompts: a PlainCache, or "engine"."""

    def __init__(self, model, sequence=None, prompts=None):
        self.model = model
        self.sequence = model.open() if sequence is None else sequence
        self.prompts = prompts or PlainCache(len(model.layers))

    def attend(self, layer, k, v, q, prompt):
        out = np.zeros(q.shape, np.float32)
        row = (self.sequence, *(np.ascontiguousarray(x, np.float32) for x in (k, v, q)), out)
        if not prompt:
            self.model.decode(layer, [row])
        elif self.prompts == "engine":
            self.model.prefill(layer, [row])
        else:
            self.model.prefill(layer, [(*row[:-1], None)])
            return self.prompts.attend(layer, k, v, q, prompt)
        return out


class TinyModel:
    def __init__(self, layers=2, q_heads=4, kv_heads=2, hidden=96, vocabulary=101, seed=1):
        random = np.random.default_rng(seed)

        def weight(rows, columns, gain=1.0):
            return random.normal(size=(rows, columns)) * gain / np.sqrt(rows)

        self.q_heads, self.kv_heads = q_heads, kv_heads
        self.embedding = random.normal(size=(vocabulary, hidden))
        self.head = weight(hidden, vocabulary)
        self.layers = [dict(
            q=weight(hidden, q_heads * HEAD_DIM, 2.0), k=weight(hidden, kv_heads * HEAD_DIM, 2.0),
            v=weight(hidden, kv_heads * HEAD_DIM), o=weight(q_heads * HEAD_DIM, hidden),
            gate=weight(hidden, 2 * hidden), up=weight(hidden, 2 * hidden), down=weight(2 * hidden, hidden))
            for _ in range(layers)]

    @staticmethod
    def norm(x):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5)

    def forward(self, ids, cache, first=0, prompt=False):
        """Logits [tokens, vocabulary] of tokens that stand from position `first` on."""
        x = self.embedding[np.asarray(ids)]
        positions = first + np.arange(len(ids))
        for number, w in enumerate(self.layers):
            h = self.norm(x)
            q = rotated((h @ w["q"]).reshape(len(ids), self.q_heads, HEAD_DIM), positions)
            k = rotated((h @ w["k"]).reshape(len(ids), self.kv_heads, HEAD_DIM), positions)
            v = (h @ w["v"]).reshape(len(ids), self.kv_heads, HEAD_DIM)
            x = x + cache.attend(number, k, v, q, prompt).reshape(len(ids), -1) @ w["o"]
            h = self.norm(x)
            gate = h @ w["gate"]
            x = x + (gate / (1 + np.exp(-gate)) * (h @ w["up"])) @ w["down"]
        return self.norm(x) @ self.head
