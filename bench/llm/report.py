"""docs/accuracy.md and its chart, from the results of run.py."""

import json
import math
import os
import random
import subprocess
import sys
import textwrap
from collections import defaultdict

BLOCK = 16  # tokens; neighbours are alike, so whole blocks are drawn


def interval(values, statistic, draws=1000):
    """The middle 95 % of a statistic over drawn samples of the values."""
    draw = random.Random(1)
    found = sorted(statistic(draw.choices(values, k=len(values))) for _ in range(draws))
    return found[draws // 40], found[-1 - draws // 40]


def mean(values):
    return sum(values) / len(values)


def wilson(right, asked):
    """The 95 % interval of a share."""
    z, share = 1.96, right / asked
    middle = (share + z * z / (2 * asked)) / (1 + z * z / asked)
    half = z / (1 + z * z / asked) * math.sqrt(share * (1 - share) / asked + z * z / (4 * asked * asked))
    return middle - half, middle + half


def blocks(results):
    """[(sum of nll - nll of dense, tokens)] of neighbouring tokens."""
    found = []
    for r in results:
        difference = [a - b for a, b in zip(r["nll"], r["dense_nll"])]
        found += [difference[i:i + BLOCK] for i in range(0, len(difference), BLOCK)]
    return found


def ratio(of_blocks):
    return math.exp(sum(map(sum, of_blocks)) / sum(map(len, of_blocks)))


def exact_perplexity(results):
    of_parts = {r["part"]: r["dense_nll"] for r in results}
    return math.exp(mean([x for nll in of_parts.values() for x in nll]))


def group(results):
    groups = defaultdict(list)
    for r in results:
        groups[r["variant"], r["budget"]].append(r)
    return groups


def perplexity_rows(results):
    for (variant, budget), part in sorted(group(results).items(), key=lambda item: (-item[0][1], item[0][0] != "dense")):
        nll = [x for r in part for x in r["nll"]]
        of_blocks = blocks(part)
        low, high = interval(of_blocks, ratio)
        use = {name: sum(r["usage"][name] for r in part) for name in part[0]["usage"]}
        tokens = use["attends"] / part[0]["layers"]
        per_token = lambda name: use[name] / tokens / 1e6  # noqa: E731
        untimed = use["attends"] - use["timed_attends"]
        each = lambda name: use[name] / max(use["timed_attends"], 1) * part[0]["layers"] / 1e6  # noqa: E731
        yield {
            "variant": variant, "budget": budget, "perplexity": math.exp(mean(nll)), "ratio": ratio(of_blocks),
            "low": low, "high": high, "kl": mean([x for r in part for x in r["kl"]]), "tokens": len(nll),
            "wanted": use["wanted_bytes"] / use["dense_bytes"], "read": use["array_bytes"] / use["dense_bytes"],
            "fast": use["fast_bytes"] / use["dense_bytes"], "summaries": use["summary_bytes"] / use["dense_bytes"],
            "dense_mb": per_token("dense_bytes"), "drive_ms": each("attend_ns"), "fast_ms": each("attend_fast_ns"),
            "cpu_ms": use["processor_ns"] / max(untimed, 1) * part[0]["layers"] / 1e6,
        }


def paragraph(text):
    return textwrap.wrap(text, 120)


def share(budget):
    return "all" if budget == 1 else f"1/{1 / budget:.0f}"


def perplexity_table(rows):
    lines = ["| method | budget | perplexity | over dense, 95 % | KL | wanted | read | fast | summaries | drive ms | "
             "keeps up, ms | CPU ms |", "|---|---|---|---|---|---|---|---|---|---|---|---|"]
    for r in rows:
        lines.append(
            f"| {r['variant']} | {share(r['budget'])} | {r['perplexity']:.2f} | {r['ratio']:.3f} ({r['low']:.3f} to "
            f"{r['high']:.3f}) | {r['kl']:.3f} | {r['wanted']:.3f} | {r['read']:.3f} | {r['fast']:.3f} | "
            f"{r['summaries']:.3f} | {r['drive_ms']:.1f} | {r['fast_ms']:.1f} | {r['cpu_ms']:.1f} |")
    return lines


def lookup_rows(results):
    for (variant, budget), part in sorted(group(results).items(), key=lambda item: (-item[0][1], item[0][0] != "dense")):
        answers = [x for r in part for x in r["right"]]
        low, high = wilson(sum(answers), len(answers))
        wanted = sum(r["usage"]["wanted_bytes"] for r in part) / sum(r["usage"]["dense_bytes"] for r in part)
        yield {"variant": variant, "budget": budget, "right": sum(answers), "asked": len(answers),
               "share": sum(answers) / len(answers), "low": low, "high": high, "wanted": wanted,
               "nll": mean([x for r in part for x in r["nll"]])}


def lookup_table(rows):
    lines = ["| method | budget | right | of | share, 95 % | nats | wanted |", "|---|---|---|---|---|---|---|"]
    for r in rows:
        lines.append(f"| {r['variant']} | {share(r['budget'])} | {r['right']} | {r['asked']} | {r['share']:.2f} "
                     f"({r['low']:.2f} to {r['high']:.2f}) | {r['nll']:.2f} | {r['wanted']:.3f} |")
    return lines


def speed_section(speed):
    peers = [name for name in speed["rows"][0]["ms"] if name != "instinfer"]
    rounds = speed["rows"][0]["rounds"]
    lines = ["## Attention time of a token", "", "```sh",
             f"./dev bench llm --speed --threads {speed['threads']} --rounds {rounds}", "```", "",
             *paragraph(
                 "Dense attention of one new token after a prompt, in 30 layers of 9 query heads over 3 of K and V, head size 64, in ms: "
                 f"the engine ({speed['target']}) through the bridge, and `scaled_dot_product_attention` of torch "
                 f"{speed['torch']} on the same K, V and queries in one process. Of torch's two ways to say it, "
                 "`enable_gqa`, and the heads of a group as rows of one call, the faster counts. All take turns, and each "
                 "layer's best call counts. **Beyond the attend** is what a call of the bridge takes more than it: "
                 "Python, checks, and the write of the new token."), "",
             "| tokens | threads | instinfer, " + speed["rows"][0]["storage"] + " | " + " | ".join(peers) +
             " | beyond the attend |", "|---" * (4 + len(peers)) + "|"]
    for r in speed["rows"]:
        lines.append(f"| {r['tokens']:,} | {r['threads']} | {r['ms']['instinfer']:.2f} | " +
                     " | ".join(f"{r['ms'][p]:.2f}" for p in peers) +
                     f" | {r['beyond_ms'] / r['attend_ms']:.1%} |".replace("%", " %"))
    return lines


def draw(panels, options):
    """The chart beside the page, by the system's Python, which has matplotlib. True if it is drawn."""
    data, picture = options.results + ".chart.json", os.path.splitext(options.doc)[0] + ".svg"
    with open(data, "w") as file:
        json.dump({"kind": "accuracy", "panels": panels}, file)
    charts = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../charts")
    python = "/usr/bin/python3" if os.path.exists("/usr/bin/python3") else "python3"
    return subprocess.run([python, charts, data, picture]).returncode == 0


HEAD = """\
# Accuracy on a real model

```sh
./dev bench llm                                  # writes this page; a run that was stopped goes on where it was
```

Every method decodes the same model ([llm.md](llm.md)): its K and V lie in the engine's pages, and its attention is the
engine's. Prompts attend exactly.

- **perplexity** of the tokens after the prompt, teacher-forced, and **over dense**: its ratio to that of exact
  attention, with the middle 95 % of 1000 samples of blocks of 16 tokens. Where two intervals overlap, the order of two
  methods is noise.
- **KL**: mean divergence of the next token's distribution from the exact one, in nats.
- **wanted**, **read**, **fast**, **summaries**: bytes as shares of all K and V (dense wants 1): entries that the method
  uses, wherever they lie; whole pages that are read from flash for them; those of the entries that the method keeps in
  fast memory; and rows of summaries that are scored.
- **drive ms**: modelled attention time of a token in all layers, on the paper's drive; **keeps up**: with an
  accelerator that is never the bottleneck. **CPU ms**: measured processor time of one thread.
- A **budget** is the share of bytes that a method is set to want (`methods::at_budget`); **wanted** is what came of it.
- **sparf** is `sparf::for_groups` where query heads share a KV head. "As published" is Alg. 1 of the paper, and
  "published but local" has a quarter of its tokens local. The others change one thing: "without mean" has no blend, "by
  maximum" and "by logits" rank tokens so, and "by head" lets each query head choose for itself.
"""


def write(options):
    with open(options.results) as file:
        results = list({r["key"]: r for r in map(json.loads, file)}.values())
    if not results:
        sys.exit(f"./dev bench llm: {options.results} has no results")
    lines, panels = [], []
    for model, storage, context in sorted({(r["model"], r["storage"], r["context"]) for r in results
                                           if r["task"] == "perplexity"}):
        of_model = [r for r in results if (r["model"], r["storage"], r["context"]) == (model, storage, context) and
                    r["task"] == "perplexity"]
        for text in sorted({r["text"] for r in of_model}):
            part = [r for r in of_model if r["text"] == text]
            rows = list(perplexity_rows(part))
            lines += [f"## {model}, {storage}: {text}, prompts of {context} tokens", "",
                      f"{rows[0]['tokens']} tokens, of which exact attention has a perplexity of "
                      f"{exact_perplexity(part):.2f}; dense wants {rows[0]['dense_mb']:.1f} MB a token.", "",
                      *perplexity_table([r for r in rows if not r["variant"].startswith("sparf ")]), ""]
            settings = [r for r in rows if r["variant"].startswith("sparf")]
            if len(settings) > 1:
                lines += ["SparF's settings for the heads of a group:", "", *perplexity_table(settings), ""]
            panels.append({"title": f"{text}, {context} tokens", "label": "perplexity over that of dense", "dense": 1.0,
                           "rows": [{"method": r["variant"], "wanted": r["wanted"], "value": r["ratio"], "low": r["low"],
                                     "high": r["high"]} for r in rows]})
    for model, storage, context in sorted({(r["model"], r["storage"], r["context"]) for r in results
                                           if r["task"] == "look-up"}):
        part = [r for r in results if (r["model"], r["storage"], r["context"]) == (model, storage, context) and
                r["task"] == "look-up"]
        rows = list(lookup_rows(part))
        lines += [f"## {model}, {storage}: look-up in prompts of {context} tokens", "",
                  *paragraph("Facts such as \"The secret number of Paris is 4711.\" stand in a text; each is asked for. An "
                             "answer is right if each of its tokens is the model's first choice; **nats** is the mean of "
                             "-log p of these tokens."), "",
                  *lookup_table(rows), ""]
        panels.append({"title": f"look-up, {context} tokens", "label": "share of right answers",
                       "dense": next((r["share"] for r in rows if r["variant"] == "dense"), 1.0),
                       "rows": [{"method": r["variant"], "wanted": r["wanted"], "value": r["share"], "low": r["low"],
                                 "high": r["high"]} for r in rows]})
    if os.path.exists(options.speed_results):
        with open(options.speed_results) as file:
            lines += speed_section(json.load(file))
    head = HEAD
    if draw(panels, options):
        picture = os.path.splitext(os.path.basename(options.doc))[0] + ".svg"
        head += f"\n![perplexity and look-up over wanted bytes]({picture})\n"
    lines.insert(0, head)
    with open(options.doc, "w") as file:
        file.write("\n".join(lines).rstrip() + "\n")
    print(f"wrote {options.doc} of {len(results)} results")
