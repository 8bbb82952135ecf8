"""Writes many mutants into one copy of the headers, from which a run chooses one (support/chosen_mutant.hpp)."""

from __future__ import annotations

import bisect
import re

OPERATORS = {"<": "less", "<=": "less_equal", ">": "greater", ">=": "greater_equal", "==": "equal", "!=": "unequal",
             "+": "plus", "-": "minus", "*": "times", "/": "over", "%": "modulo", "+=": "plus", "-=": "minus"}
OPENING, CLOSING = "([{", ")]}"
# Where an operand of && or || ends, apart from brackets. A declaration's type ends where its name is followed by `= `.
BEFORE = re.compile(r"(?:\breturn|[;,?]| = | : | \|\| )\s*$")
AFTER = re.compile(r"\s*(?:[;,?]| : | ?\|\| |\|\|\n)")


def operand_begin(code: str, at: int) -> int:
    depth = 0
    for i in range(at - 1, -1, -1):
        if code[i] in CLOSING:
            depth += 1
        elif code[i] in OPENING and depth > 0:
            depth -= 1
        elif depth == 0 and (code[i] in OPENING or BEFORE.search(code[max(0, i - 7):i + 1])):
            return i + 1 + len(code[i + 1:at]) - len(code[i + 1:at].lstrip())
    raise ValueError("no begin")


def operand_end(code: str, at: int) -> int:
    depth = 0
    for i in range(at, len(code)):
        if code[i] in OPENING:
            depth += 1
        elif code[i] in CLOSING and depth > 0:
            depth -= 1
        elif depth == 0 and (code[i] in CLOSING or AFTER.match(code, i)):
            return i
    raise ValueError("no end")


def insertions(code: str, mutant, number: int, start: int) -> list[tuple[int, int, str]]:
    """Pieces (from, to, text) of the file's new text; `start` is where the mutant's line begins."""
    at, end = start + mutant.at, start + mutant.end
    old, new = code[at:end], mutant.new
    token, to = old.strip(), new.strip()
    chosen = f"mutant::is({number})"
    if mutant.what == "dropped statement":
        return [(at, at, f"if (!{chosen}) {{ "), (end, end, " }")]
    if mutant.what == "swapped arguments":
        a, b = old.split(", ")
        return [(at, end, f"({chosen} ? {b} : {a}), ({chosen} ? {a} : {b})")]
    if token in ("&&", "||"):
        name = "both" if token == "&&" else "either"
        return [(operand_begin(code, at),) * 2 + (f"mutant::{name}<{number}>(static_cast<bool>(",),
                (at, end, "), [&]() -> bool { return static_cast<bool>("),
                (operand_end(code, end),) * 2 + ("); })",)]
    if token in OPERATORS:
        # A line may end with the operator: there is then no space after it in `old`.
        return [(at, end, f" {token} mutant::swapped<{number}, mutant::op::{OPERATORS[to]}>{{}} {token} ")]
    if token == "++":
        return [(at, end, f"mutant::counted_down<{number}>{{}} ->* ")]
    if token in ("std::min", "std::max"):
        return [(at, end, f"mutant::least_or_most<{number}>::template {token[5:]}")]
    return [(at, end, f"({chosen} ? {new} : {old})")]  # numbers, true and false


def together(text: str, code: str, chosen: list[tuple[int, object]]) -> tuple[str, dict[int, set[int]], set[int]]:
    """The text with the numbered mutants in it; lines of it and whose they are; those that cannot be put in.

    code: the text with comments and strings blanked.
    """
    starts = [0]
    for line in text.split("\n"):
        starts.append(starts[-1] + len(line) + 1)
    pieces: list[tuple[int, int, str, int]] = []
    lines: dict[int, set[int]] = {}
    left_out = set()
    for number, mutant in chosen:
        try:
            mine = insertions(code, mutant, number, starts[mutant.line - 1])
        except (ValueError, KeyError):
            left_out.add(number)
            continue
        # Two mutants of one expression would have to nest.
        first = bisect.bisect_right(starts, min(p[0] for p in mine))
        last = bisect.bisect_right(starts, max(p[1] for p in mine))
        if any(line in lines for line in range(first, last + 1)):
            left_out.add(number)
            continue
        for line in range(first, last + 1):
            lines.setdefault(line, set()).add(number)
        pieces += [(*p, number) for p in mine]
    for begin, end, new, _ in sorted(pieces, reverse=True):
        text = text[:begin] + new + text[end:]
    return text, lines, left_out
