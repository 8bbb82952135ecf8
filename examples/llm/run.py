"""./dev llm: a language model decodes with its cache in the engine. --check compares it with torch's own attention."""

import argparse
import os
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # models come from where models.py says
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import models  # noqa: E402


def arguments():
    parser = argparse.ArgumentParser(prog="./dev llm", description=__doc__)
    parser.add_argument("--model", metavar="DIR|GGUF", help="a model of yours; default: SmolLM2-135M from PyPI")
    parser.add_argument("--method", default="sparf", help="default: %(default)s; a wrong one lists all")
    parser.add_argument("--budget", type=float, default=1 / 8, help="share of K and V; default: 1/8")
    parser.add_argument("--settings", default="", help="name=value,... of the method")
    parser.add_argument("--storage", default="fp16", help="fp32, fp16, bf16 or int8; default: %(default)s")
    parser.add_argument("--tokens", type=int, default=64, help="to decode; default: %(default)s")
    parser.add_argument("--prompt", default=f"@{models.ROOT / 'docs/methods.md'}",
                        help="text, or @FILE; default: the page about methods, and a question about it")
    parser.add_argument("--prompt-tokens", type=int, default=2000, help="at most; default: %(default)s")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--drive", metavar="DIR", help="keep the cache in files there, on a real drive")
    parser.add_argument("--check", action="store_true", help="compare with torch's own attention, and stop")
    return parser.parse_args()


def prompt_of(options, tokenizer):
    text = options.prompt
    if text.startswith("@"):
        text = pathlib.Path(text[1:]).read_text()
        ids = tokenizer(text).input_ids[:options.prompt_tokens]
        text = tokenizer.decode(ids) + "\n\nWhat is this text about?"
    if tokenizer.chat_template:
        text = tokenizer.apply_chat_template([{"role": "user", "content": text}], tokenize=False,
                                             add_generation_prompt=True)
    return tokenizer(text, return_tensors="pt").input_ids


def decode(options):
    import torch

    import instinfer_llm
    from instinfer_llm.hugging_face import CACHE

    torch.set_num_threads(options.threads)
    model, tokenizer, name = models.load(options.model)
    ids = prompt_of(options, tokenizer)
    cache = instinfer_llm.Cache(model.config, options.method, options.budget, options.storage, options.settings,
                                context_tokens=ids.shape[1] + options.tokens, threads=options.threads,
                                drive=options.drive, time_every=8)
    shape = cache.engine.layers[0]
    place = f"on {options.drive}" if options.drive else "in memory"
    print(f"{name}: {len(cache.layers)} layers, {shape.q_heads} query heads over {shape.kv_heads} of K and V, head size "
          f"{shape.head_dim}; {options.method} at {options.budget:.3g}, {options.storage}, pages {place}; "
          f"{instinfer_llm.target()}, {options.threads} threads", flush=True)
    with torch.no_grad():
        begin = time.perf_counter()
        next_id = model(ids, **{CACHE: cache}, logits_to_keep=1).logits[0, -1].argmax()
        prompt_s = time.perf_counter() - begin
        written = [int(next_id)]
        begin = time.perf_counter()
        while len(written) < options.tokens and written[-1] != tokenizer.eos_token_id:
            logits = model(torch.tensor([written[-1:]]), **{CACHE: cache}).logits[0, -1]
            written.append(int(logits.argmax()))
        decode_s = time.perf_counter() - begin
    print(tokenizer.decode(written, skip_special_tokens=True), flush=True)
    report(cache.usage(), len(cache.layers), len(written) - 1, ids.shape[1], prompt_s, decode_s)


def report(use, layers, steps, prompt, prompt_s, decode_s):
    print(f"prompt: {prompt} tokens in {prompt_s:.1f} s")
    if steps == 0:
        return
    each = {name: count / steps / 1e6 for name, count in use.items()}
    fast = use["fast_bytes"] / max(use["fast_bytes"] + use["wanted_bytes"], 1)
    print(f"decode: {steps / decode_s:.1f} tokens/s over {steps} tokens")
    print(f"of a token, in MB: wanted {each['wanted_bytes']:.2f}, read {each['array_bytes']:.2f} in "
          f"{use['pages_read'] / steps:.0f} pages, in fast memory {each['fast_bytes']:.2f} (hit rate {fast:.0%}), "
          f"summaries {each['summary_bytes']:.2f}; dense would want {each['dense_bytes']:.2f}")
    untimed = use["attends"] - use["timed_attends"]
    if untimed:
        print(f"attention, measured: {use['wall_ns'] / untimed * layers / 1e6:.2f} ms a token")
    if use["timed_attends"]:
        print(f"attention, modelled on the paper's drive: {use['attend_ns'] / use['timed_attends'] * layers / 1e6:.2f} "
              f"ms a token; writing prompt and tokens {use['append_ns'] / 1e6:.1f} ms in all")


def main():
    options = arguments()
    try:
        if options.check:
            import check
            return check.run(options)
        decode(options)
        sys.stdout.flush()
    except (models.ModelError, ValueError, OSError) as error:
        print(f"./dev llm: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
