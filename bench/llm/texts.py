"""Texts of Debian packages, and prompts with facts hidden in them."""

import gzip
import random

TEXTS = {"devil": "/usr/share/dictd/devil.dict.dz", "jargon": "/usr/share/dictd/jargon.dict.dz"}
PLACES = ("Paris London Berlin Madrid Rome Vienna Prague Oslo Cairo Delhi Tokyo Lima Quito Havana Boston Denver Dublin "
          "Lisbon Athens Warsaw Kyoto Milan Turin Geneva Munich Hamburg Naples Venice Seville Bergen").split()


def read(name):
    """The text without the head of the dictionary, with single blanks."""
    with gzip.open(TEXTS[name]) as file:
        text = file.read().decode("utf-8", "replace")
    return text[20_000:]


def windows(tokenizer, name, tokens, count):
    """`count` stretches of so many token ids, from all over the text."""
    ids = tokenizer(read(name)).input_ids
    step = (len(ids) - tokens) // max(count, 1)
    return [ids[i * step:i * step + tokens] for i in range(count)]


def hidden_facts(tokenizer, tokens, questions, seed):
    """(ids of a prompt of about so many tokens, [(ids of a question, ids of its answer)])."""
    draw = random.Random(seed)
    places = draw.sample(PLACES, questions)
    numbers = [str(draw.randint(1000, 9999)) for _ in places]
    facts = [tokenizer(f"\nThe secret number of {p} is {n}.\n").input_ids for p, n in zip(places, numbers)]
    filler = tokenizer(read("devil")[seed * 20_000:][:30 * tokens]).input_ids
    left = tokens - sum(map(len, facts))
    cuts = sorted(draw.sample(range(left // 50, left - left // 50), questions))
    ids = []
    for first, last, fact in zip([0, *cuts], cuts, facts):
        ids += filler[first:last] + fact
    ids += filler[cuts[-1]:left]
    asked = [(tokenizer(f"\nThe secret number of {p} is").input_ids, tokenizer(f" {n}").input_ids)
             for p, n in zip(places, numbers)]
    return ids, asked
