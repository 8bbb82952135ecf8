"""./dev llm --check: the engine against torch's own attention on a real model."""

import torch
from transformers import DynamicCache

import instinfer_llm
import models
from instinfer_llm.hugging_face import CACHE

TEXTS = ["The capital of France is", "Water boils at a temperature of one hundred degrees, and it freezes at",
         "Once upon a time there was a small robot who"]


def run(options):
    torch.set_num_threads(options.threads)
    model, tokenizer, name = models.load(options.model)
    text = (models.ROOT / "docs/architecture.md").read_text()
    ids = tokenizer(text, return_tensors="pt").input_ids[:, :512]
    results = []

    def result(what, ok, figure):
        results.append(ok)
        print(f"{'ok    ' if ok else 'FAILED'} {what}: {figure}", flush=True)

    def cache(method="dense", budget=1.0, batch=1):
        return instinfer_llm.Cache(model.config, method, budget, options.storage, context_tokens=1024, batch=batch,
                                   threads=options.threads)

    def torch_logits(tokens):
        model.set_attn_implementation("sdpa")
        try:
            return model(tokens, **{CACHE: DynamicCache(config=model.config)}).logits[0]
        finally:
            model.set_attn_implementation("instinfer")

    bound = {"fp32": 2e-3, "fp16": 0.05, "bf16": 0.5, "int8": 1.0}[options.storage]
    with torch.no_grad():
        expected = torch_logits(ids)
        half = ids.shape[1] // 2

        mine = cache()
        first = model(ids[:, :half], **{CACHE: mine}).logits[0]
        steps = [model(ids[:, i:i + 1], **{CACHE: mine}).logits[0, 0] for i in range(half, half + 64)]
        found = torch.cat([first, torch.stack(steps)])
        error = float((found - expected[:half + 64]).abs().max())
        result(f"dense logits of {name}, prompt and 64 steps, against torch's attention", error < bound,
               f"largest difference {error:.1e}, bound {bound:g}")

        forced = cache()
        model(ids[:, :half], **{CACHE: forced})
        with forced.decoding():
            at_once = model(ids[:, half:], **{CACHE: forced}).logits[0]
        error = float((at_once - expected[half:]).abs().max())
        same = int((at_once.argmax(-1) == expected[half:].argmax(-1)).sum())
        result("dense logits, teacher-forced in one call", error < bound,
               f"largest difference {error:.1e}, top-1 equal in {same} of {at_once.shape[0]}")

        chunks = cache()
        parts = [model(ids[:, a:a + 128], **{CACHE: chunks}).logits[0] for a in range(0, ids.shape[1], 128)]
        error = float((torch.cat(parts) - expected).abs().max())
        result("dense logits of a prompt in four parts", error < bound, f"largest difference {error:.1e}")

        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
        rows = [tokenizer(t).input_ids for t in TEXTS]
        longest = max(map(len, rows))
        batch = torch.tensor([[pad] * (longest - len(r)) + r for r in rows])
        mask = torch.tensor([[0] * (longest - len(r)) + [1] * len(r) for r in rows])
        ask = dict(max_new_tokens=24, do_sample=False, pad_token_id=pad)
        model.set_attn_implementation("sdpa")
        by_torch = model.generate(batch, attention_mask=mask, **ask)[:, longest:]
        model.set_attn_implementation("instinfer")
        together = model.generate(batch, attention_mask=mask, **{CACHE: cache(batch=3)}, **ask)[:, longest:]
        result("generate(), a batch with padding, dense, against torch", bool((together == by_torch).all()),
               " | ".join(tokenizer.decode(t, skip_special_tokens=True).split("\n")[0][:30] for t in together))
        for method in instinfer_llm.methods():
            alone = [model.generate(torch.tensor([r]), attention_mask=torch.ones(1, len(r), dtype=torch.long),
                                    **{CACHE: cache(method, 0.75)}, **ask)[0, len(r):] for r in rows]
            together = model.generate(batch, attention_mask=mask, **{CACHE: cache(method, 0.75, 3)}, **ask)
            equal = [a.tolist()[:12] == t.tolist()[longest:longest + 12] for a, t in zip(alone, together)]
            result(f"generate(), {method}: the batch writes what its sequences write", all(equal), equal)
        try:
            model(ids[:, :8])
            result("a call without the engine's cache is refused", False, "it was not")
        except instinfer_llm.BadArgument as refused:
            result("a call without the engine's cache is refused", True, str(refused)[:60])
    print(f"{sum(results)} of {len(results)} checks passed")
    return 0 if all(results) else 1
