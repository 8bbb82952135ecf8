"""Accuracy, bytes and time of every method on a real language model; writes docs/accuracy.md.

Perplexity: the last tokens of each window of text are teacher-forced after a prompt that attends exactly. Look-up: facts
are hidden in a prompt, and a question counts if each token of its answer is the model's first choice. Every result goes to
a file at once, so that a run that was stopped goes on where it was. Processor time is that of one thread.

--speed times dense attention against torch's, for the last table of the page.

usage: ./dev bench llm [--model DIR|GGUF] [--methods A,B] [--budgets 4,8,16] [--speed] [--report-only] ...
"""

import argparse
import json
import os
import sys
import time

ROOT = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))
sys.path[:0] = [os.path.join(ROOT, "examples/llm"), os.path.dirname(os.path.abspath(__file__))]
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

# Variants by name: a method, and its settings at a budget over what the library gives.
VARIANTS = {name: (name, lambda b: "") for name in (
    "dense", "sparf", "quest", "retro_infer", "squeezed", "sparq", "h2o", "streaming_llm", "top_values", "hgca", "dsa",
    "misa")}
# SparF on grouped queries: each has one change, and the first two are without what the library does for groups.
SPARF = {
    "sparf as published": ("sparf", lambda b: f"keep_dims={b},keep_tokens={b / 2},local=0,dense_layers=0"),
    "sparf published but local": ("sparf", lambda b: f"keep_dims={b},keep_tokens={b / 2},dense_layers=0"),
    "sparf without dense layer": ("sparf", lambda b: f"keep_dims={0.75 * b},keep_tokens={0.625 * b},dense_layers=0"),
    "sparf without mean": ("sparf", lambda b: "blend=0"),
    "sparf by maximum": ("sparf", lambda b: "tokens_over=1"),
    "sparf by maximum of dims": ("sparf", lambda b: "dims_over=1"),
    "sparf by logits": ("sparf", lambda b: "rank_logits=1"),
    "sparf by head": ("sparf_per_head", lambda b: ""),
}


def arguments():
    parser = argparse.ArgumentParser(prog="./dev bench llm", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", metavar="DIR|GGUF", help="default: SmolLM2-135M from PyPI")
    parser.add_argument("--methods", default=",".join([*VARIANTS, "variants"]),
                        help="separated by commas; `variants` are those of SparF on grouped queries; default: all")
    parser.add_argument("--texts", default="devil,jargon", help="default: %(default)s")
    parser.add_argument("--budgets", default="4,8,16", help="divisors; default: %(default)s")
    parser.add_argument("--storage", default="fp16")
    parser.add_argument("--context", type=int, default=4096, help="tokens of a prompt; default: %(default)s")
    parser.add_argument("--scored", type=int, default=512, help="tokens scored after it; default: %(default)s")
    parser.add_argument("--windows", type=int, default=1, help="of each text; default: %(default)s")
    parser.add_argument("--prompts", type=int, default=10, help="of look-up; default: %(default)s")
    parser.add_argument("--questions", type=int, default=10, help="a prompt; default: %(default)s")
    parser.add_argument("--lookup-context", type=int, default=2048, help="default: %(default)s")
    parser.add_argument("--time-every", type=int, default=64, help="tokens between timed ones; default: %(default)s")
    parser.add_argument("--results", default=os.path.join(ROOT, "build/llm/accuracy.jsonl"))
    parser.add_argument("--doc", default=os.path.join(ROOT, "docs/accuracy.md"))
    parser.add_argument("--speed", action="store_true", help="measure attention time, in place of accuracy")
    parser.add_argument("--rounds", type=int, default=40, help="of --speed; default: %(default)s")
    parser.add_argument("--report-only", action="store_true", help="write the document of what is there")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    return parser.parse_args()


def chosen(options):
    names = []
    for name in options.methods.split(","):
        if name == "variants":
            names += SPARF
        elif name in VARIANTS or name in SPARF:
            names.append(name)
        else:
            sys.exit(f"./dev bench llm: no method '{name}'; there are: {', '.join([*VARIANTS, *SPARF])}, variants")
    budgets = [1 / float(b) for b in options.budgets.split(",")]
    return [(n, b) for b in budgets for n in names if n != "dense"] + [("dense", 1.0)] * ("dense" in names)


class Progress:
    def __init__(self, total):
        self.total, self.done, self.begin = total, 0, time.time()

    def step(self, what):
        self.done += 1
        left = (time.time() - self.begin) / self.done * (self.total - self.done)
        bar = "#" * (30 * self.done // max(self.total, 1))
        print(f"\r[{bar:30}] {self.done}/{self.total}, {left / 60:.0f} min left: {what:40.40}", end="", file=sys.stderr,
              flush=True)


def measure(options):
    import torch

    import evaluate
    import instinfer_llm
    import models
    import texts

    torch.set_num_threads(options.threads)
    model, tokenizer, name = models.load(options.model)
    done = set()
    if os.path.exists(options.results):
        with open(options.results) as file:
            done = {json.loads(line)["key"] for line in file}
    tasks = []
    for text in filter(None, options.texts.split(",")):
        if text not in texts.TEXTS:
            sys.exit(f"./dev bench llm: no text '{text}'; there are: {', '.join(texts.TEXTS)}")
        for w in range(options.windows):
            tasks.append(("perplexity", text, w))
    tasks += [("look-up", "facts", p) for p in range(options.prompts)]
    configs = chosen(options)
    wanted = {}
    for task in tasks:
        for config in configs:
            length = options.context if task[0] == "perplexity" else options.lookup_context
            key = f"{name}/{options.storage}/{length}/{'/'.join(map(str, task))}/{config[0]}/{config[1]:.5f}"
            if key not in done:
                wanted.setdefault(task, []).append((config, key))
    progress = Progress(sum(map(len, wanted.values())))
    with open(options.results, "a") as file, torch.no_grad():
        for task, configs_left in wanted.items():
            evaluation = evaluate.prepare(task, model, tokenizer, options)
            for (variant, budget), key in configs_left:
                method, settings = {**VARIANTS, **SPARF}[variant]
                settings = settings(budget)
                try:
                    found = evaluation.run(method, settings, budget)
                except instinfer_llm.BadArgument as refused:  # some methods cannot want so little
                    progress.step(f"{variant} at 1/{1 / budget:.0f}: {refused}")
                    continue
                file.write(json.dumps({"key": key, "model": name, "storage": options.storage, "task": task[0],
                                       "text": task[1], "part": task[2], "variant": variant, "budget": budget,
                                       **found}) + "\n")
                file.flush()
                progress.step(f"{task[1]} {variant} 1/{1 / budget:.0f}")
    print(file=sys.stderr)


def main():
    options = arguments()
    os.makedirs(os.path.dirname(options.results), exist_ok=True)
    options.speed_results = os.path.join(os.path.dirname(options.results), "speed.json")
    if options.speed:
        import speed
        found = speed.run(options.storage, options.rounds, options.threads)
        with open(options.speed_results, "w") as file:
            json.dump(found, file, indent=1)
    elif not options.report_only:
        measure(options)
    import report
    report.write(options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
