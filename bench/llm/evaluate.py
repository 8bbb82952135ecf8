"""One text or one set of questions, for one method after the other: a prompt is computed once, and kept on disk."""

import hashlib
import math

import torch
import torch.nn.functional as functional
import transformers.cache_utils

import instinfer_llm
import models
import texts
from instinfer_llm.hugging_face import CACHE, _CacheLayer


class Recorder(transformers.cache_utils.Cache):
    """Attends exactly by torch, and keeps K, V and Q [tokens, heads, dim] of every layer."""

    def __init__(self, layers):
        super().__init__(layers=[_CacheLayer(self, i) for i in range(layers)])
        self.rows = [None] * layers

    def attend(self, layer, query, key, value, valid, scaling):
        assert valid is None and query.shape[0] == 1
        self.rows[layer] = tuple(x[0].transpose(0, 1) for x in (key, value, query))
        group = query.shape[1] // key.shape[1]
        return functional.scaled_dot_product_attention(
            query, key.repeat_interleave(group, 1), value.repeat_interleave(group, 1), is_causal=True,
            scale=scaling).transpose(1, 2)


class Evaluation:
    def __init__(self, model, ids, options):
        self.model, self.options, self.prompt = model, options, ids
        name = hashlib.sha256(f"{model.config.to_json_string()} {ids}".encode()).hexdigest()[:16]
        file = models.BUILD / "prompts" / f"{name}.pt"
        if not file.exists():
            recorder = Recorder(model.config.num_hidden_layers)
            model(torch.tensor([ids]), **{CACHE: recorder}, logits_to_keep=1)
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.save([[x.contiguous() for x in rows] for rows in recorder.rows], file.with_suffix(".part"))
            file.with_suffix(".part").rename(file)
        self.recorded = torch.load(file, mmap=True)  # of each layer: k, v, q [tokens, heads, dim]

    def cache(self, method, settings, budget, time_every):
        """A cache with the prompt in it."""
        cache = instinfer_llm.Cache(self.model.config, method, budget, self.options.storage, settings,
                                    context_tokens=len(self.prompt), batch=2, threads=1, time_every=time_every)
        cache.sequences = [cache.engine.open()]
        for layer, (k, v, q) in enumerate(self.recorded):
            cache.engine.prefill(layer, [(cache.sequences[0], k, v, q, None)])
            cache.layers[layer].seen = len(self.prompt)
        cache.engine.reset_usage()
        return cache

    def forced(self, cache, ids):
        """Logits [tokens, vocabulary] of tokens that are decoded one after the other."""
        with cache.decoding():
            return self.model(torch.tensor([ids]), **{CACHE: cache}).logits[0]


class Perplexity(Evaluation):
    def __init__(self, task, model, tokenizer, options):
        _, text, window = task
        ids = texts.windows(tokenizer, text, options.context + options.scored + 1, max(options.windows, 1))[window]
        super().__init__(model, ids[:options.context], options)
        self.inputs = ids[options.context:-1]
        self.targets = torch.tensor(ids[options.context + 1:])
        self.dense = torch.log_softmax(self.forced(self.cache("dense", "", 1.0, 0), self.inputs), -1)

    def run(self, method, settings, budget):
        cache = self.cache(method, settings, budget, self.options.time_every)
        found = []
        # One token of every `time_every` is timed, so that calls of so many tokens have one timed token each.
        step = self.options.time_every
        for first in range(0, len(self.inputs), step):
            part = self.inputs[first:first + step]
            cache.time_every = 0
            if len(part) > 1:
                found.append(self.forced(cache, part[:-1]))
            cache.time_every = 1
            found.append(self.forced(cache, part[-1:]))
        logs = torch.log_softmax(torch.cat(found), -1)
        nll = -logs.gather(1, self.targets[:, None])[:, 0]
        kl = (self.dense.exp() * (self.dense - logs)).sum(-1)
        exact = -self.dense.gather(1, self.targets[:, None])[:, 0]
        rounded = lambda x: [round(float(y), 4) for y in x]  # noqa: E731
        return {"nll": rounded(nll), "dense_nll": rounded(exact), "kl": rounded(kl), "usage": cache.usage(),
                "layers": len(cache.layers), "context": len(self.prompt)}


class Lookup(Evaluation):
    def __init__(self, task, model, tokenizer, options):
        ids, self.asked = texts.hidden_facts(tokenizer, options.lookup_context, options.questions, task[2])
        super().__init__(model, ids, options)

    def run(self, method, settings, budget):
        cache = self.cache(method, settings, budget, 0)
        engine, prompt = cache.engine, cache.sequences[0]
        right, nll = [], []
        for question, answer in self.asked:
            cache.sequences = [engine.fork(prompt)]
            for layer in cache.layers:
                layer.seen = len(self.prompt)
            logits = self.forced(cache, (question + answer)[:-1])
            of_answer = torch.log_softmax(logits[len(question) - 1:], -1)
            right.append(int(of_answer.argmax(-1).tolist() == answer))
            nll.append(round(-float(of_answer.gather(1, torch.tensor(answer)[:, None]).mean()), 4))
            engine.close(cache.sequences[0])
        return {"right": right, "nll": nll, "usage": cache.usage(), "layers": len(cache.layers),
                "context": len(self.prompt)}


def prepare(task, model, tokenizer, options):
    return (Perplexity if task[0] == "perplexity" else Lookup)(task, model, tokenizer, options)


def perplexity(nll):
    return math.exp(sum(nll) / len(nll))
