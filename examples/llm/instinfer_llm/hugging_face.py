"""A transformers Cache and attention function: attn_implementation="instinfer"."""

import contextlib
import inspect
import math
import os

import torch
import transformers.cache_utils
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface
from transformers.models.llama.modeling_llama import LlamaModel

from .bridge import BadArgument, Layer, Model

# What forward() and generate() call the cache in this version of transformers.
CACHE = "cache" if "cache" in inspect.signature(LlamaModel.forward).parameters else "past_key_values"


class _CacheLayer(transformers.cache_utils.CacheLayerMixin):
    """What transformers asks of one layer. K and V wait here until the attention function has their queries."""

    is_sliding = False
    is_compileable = False

    def __init__(self, cache, index):
        super().__init__()
        self.cache, self.index, self.seen = cache, index, 0
        self.is_initialized = True

    def lazy_initialization(self, *_args):
        pass

    def update(self, key_states, value_states, *_args, **_kwargs):
        self.seen += key_states.shape[-2]
        key_states = key_states.view(key_states.shape)  # a tensor of its own, for the mark
        key_states.instinfer_layer = self
        return key_states, value_states

    def get_seq_length(self, *_args):
        return self.seen

    def get_mask_sizes(self, query_length, *_args):
        count = query_length if isinstance(query_length, int) else len(query_length)
        return self.seen + count, 0

    def get_max_length(self):
        return -1

    get_max_cache_shape = get_max_length

    def reset(self):
        self.seen = 0

    def offload(self):
        pass

    def prefetch(self):
        pass

    def crop(self, *_args):
        raise NotImplementedError("instinfer: assisted decoding is not served; use Cache.truncate(tokens)")


class Cache(transformers.cache_utils.Cache):
    """The cache of a model, for generate(cache=...), which older versions of transformers call past_key_values.

    Prompts (calls with several tokens) attend exactly, as the paper's GPU does; single tokens attend by `method`.
    Layers with windows are dense. `storage`: fp32, fp16, bf16, int8; `bytes`: what pages may take in each kind of
    layers, by default what `batch` sequences of `context_tokens` need. `settings`: "name=value,..." of the method.
    `drive`: a folder on a real drive. `time_every`: the modelled clock times each n-th token.
    """

    def __init__(self, config, method="dense", budget=1 / 8, storage="fp16", settings="", context_tokens=4096,
                 batch=1, bytes=None, threads=None, drive=None, time_every=0):
        config = config.get_text_config()
        heads = config.num_attention_heads
        kv_heads = getattr(config, "num_key_value_heads", None) or heads
        dim = getattr(config, "head_dim", None) or config.hidden_size // heads
        types = getattr(config, "layer_types", None) or ["full_attention"] * config.num_hidden_layers
        unknown = sorted(set(types) - {"full_attention", "sliding_attention"})
        if unknown:
            raise BadArgument(f"instinfer: layers of type {unknown[0]} are not served")
        cap = getattr(config, "attn_logit_softcapping", None) or 0.0
        of_layer = []
        for kind in types:
            if kind == "sliding_attention":
                of_layer.append(Layer(heads, kv_heads, dim, window=config.sliding_window, soft_cap=cap))
            else:
                of_layer.append(Layer(heads, kv_heads, dim, soft_cap=cap, method=method, budget=budget,
                                      settings=settings))
        if bytes is None:
            # Twice the bytes of K and V, for K by dim and reordered tokens, and a page on each channel for each stream.
            element = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1}.get(storage, 4)
            bytes = batch * len(types) * kv_heads * (2 * 2 * dim * element * (context_tokens + 1024) + (1 << 16))
        rope = getattr(config, "rope_parameters", None) or {}
        base = rope.get("rope_theta") or getattr(config, "rope_theta", 0.0) or 0.0
        self.engine = Model(of_layer, storage=storage, context_tokens=context_tokens, bytes=bytes,
                            rope_base=base, threads=threads or len(os.sched_getaffinity(0)), drive=drive)
        super().__init__(layers=[_CacheLayer(self, i) for i in range(len(types))])
        self.sequences = []
        self.time_every = time_every
        self._decodes_all = False
        self._tokens = 0

    @contextlib.contextmanager
    def decoding(self):
        """Inside, calls with several tokens decode them one after the other by the method: teacher forcing."""
        self._decodes_all = True
        try:
            yield self
        finally:
            self._decodes_all = False

    def usage(self):
        return self.engine.usage()

    def truncate(self, tokens):
        """Keeps the first `tokens` tokens of all sequences; for prompts without padding."""
        for sequence in self.sequences:
            self.engine.truncate(sequence, tokens)
        for layer in self.layers:
            layer.seen = min(layer.seen, tokens)

    def reset(self):
        for sequence in self.sequences:
            self.engine.close(sequence)
        self.sequences = []
        super().reset()

    def _select(self, rows):
        copies = [self.engine.fork(self.sequences[int(row)]) for row in rows]
        for sequence in self.sequences:
            self.engine.close(sequence)
        self.sequences = copies

    def reorder_cache(self, beam_idx):
        self._select(beam_idx)

    def batch_repeat_interleave(self, repeats):
        self._select([row for row in range(len(self.sequences)) for _ in range(repeats)])

    def batch_select_indices(self, indices):
        self._select(indices)

    def attend(self, layer, query, key, value, valid, scaling):
        """query [batch, q_heads, n, dim], key and value [batch, kv_heads, n, dim], valid [batch, n] or None."""
        batch, q_heads, n, dim = query.shape
        if not self.sequences:
            self.sequences = [self.engine.open() for _ in range(batch)]
        if len(self.sequences) != batch:
            raise BadArgument(f"instinfer: the cache has {len(self.sequences)} sequences, the batch {batch}")
        device = query.device
        if device.type != "cpu":
            query, key, value = (x.to("cpu") for x in (query, key, value))
        usual = 1 / math.sqrt(dim)
        to_engine = query if scaling is None or math.isclose(scaling, usual, rel_tol=1e-6) else query * (scaling / usual)
        out = torch.zeros(batch, n, q_heads, dim)
        rows, copied = [], []
        for b, sequence in enumerate(self.sequences):
            at = slice(0, n) if valid is None else _run(valid[b])
            if isinstance(at, slice) and at.start == at.stop:
                continue
            into = out[b, at]
            rows.append((sequence, key[b, :, at].transpose(0, 1), value[b, :, at].transpose(0, 1),
                         to_engine[b, :, at].transpose(0, 1), into if into._base is not None else into.contiguous()))
            if into._base is None:  # tokens with gaps between them
                copied.append((b, at, rows[-1][-1]))
        if n == 1 or self._decodes_all:
            if layer == 0:
                self._tokens += n
            timed = self.time_every > 0 and self._tokens % self.time_every == 0
            self.engine.decode(layer, rows, timed=timed)
        else:
            self._prompt(layer, rows)
        for b, at, part in copied:
            out[b, at] = part
        return out.to(device=device, dtype=query.dtype)

    def _prompt(self, layer, rows):
        shape = self.engine.layers[layer]
        plain = [r for r in rows if self.engine.length(r[0], layer) == 0 and shape.soft_cap == 0 and
                 (shape.window == 0 or r[1].shape[0] <= shape.window)]
        for sequence, k, v, q, out in plain:  # torch is faster than the engine where it can do the same
            group = shape.q_heads // shape.kv_heads
            of_k, of_v, of_q = (x.transpose(0, 1).unsqueeze(0).float() for x in (k, v, q))
            out.copy_(torch.nn.functional.scaled_dot_product_attention(
                of_q, of_k.repeat_interleave(group, 1), of_v.repeat_interleave(group, 1),
                is_causal=True)[0].transpose(0, 1))
        done = {r[0] for r in plain}
        self.engine.prefill(layer, [(s, k, v, q, None if s in done else out) for s, k, v, q, out in rows])


def _run(valid):
    """The true places of a row: a slice if they are one run, otherwise their indices."""
    places = valid.nonzero().flatten()
    if places.numel() == 0:
        return slice(0, 0)
    first, last = int(places[0]), int(places[-1])
    return slice(first, last + 1) if last - first + 1 == places.numel() else places


def attention(module, query, key, value, attention_mask, scaling=None, dropout=0.0, **kwargs):
    """The attention function of transformers. Returns [batch, n, q_heads, head_dim] and no weights."""
    layer = getattr(key, "instinfer_layer", None)
    if layer is None:
        raise BadArgument(
            'instinfer: attn_implementation="instinfer" needs its own cache: pass '
            f"{CACHE}=instinfer_llm.Cache(model.config, method=..., budget=...) to forward() or generate()")
    if dropout:
        raise BadArgument(f"instinfer: attention has no dropout, got {dropout}; call model.eval()")
    if kwargs.get("s_aux") is not None:
        raise BadArgument("instinfer: learned sinks (s_aux) are not served")
    n = query.shape[2]
    valid = None
    if attention_mask is not None:
        if attention_mask.dim() != 2:
            raise BadArgument(f"instinfer: an attention mask must be [batch, tokens], is {list(attention_mask.shape)}")
        valid = attention_mask[:, -n:].bool()
        if bool(valid.all()):
            valid = None
    return layer.cache.attend(layer.index, query, key, value, valid, scaling), None


def mask(batch_size=None, q_length=None, kv_length=None, attention_mask=None, **_kwargs):
    """The mask function of transformers: the padding as it is, as causality and windows are the engine's."""
    return attention_mask


AttentionInterface.register("instinfer", attention)
AttentionMaskInterface.register("instinfer", mask)
