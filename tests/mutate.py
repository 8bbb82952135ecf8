"""Makes small faults in the headers, one at a time, and lists those that the room's own tests do not notice.

A mutant is one change of one line: a comparison, a sign, a constant, a dropped statement, swapped arguments. It is
compiled into the room's tests that include the header, at -O0 and each file alone, in build/mutate; the first test that
fails, does not end or does not link notices it. A mutant that does not compile is none, unless a static_assert refuses it.
The same seed draws the same mutants from the same headers.

usage: ./dev mutate [ROOM...] [--count N] [--seed S] [--minutes M] [--jobs J] [--only FILE:LINE] [--list]
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import hashlib
import os
import re
import resource
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
INCLUDE = ROOT / "include"
BUILD = ROOT / "build" / "mutate"
# The tests of the compute paths and of the engine around them are those of tests/paths, too.
MORE_TESTS = {"cpu": ["paths"], "reference": ["paths"], "engine": ["paths"]}
# Several times what the slowest test takes at -O0; a loop that does not end is noticed.
TEST_SECONDS = 240
TEST_BYTES = 6 << 30  # of address space: a size that became huge must not take the machine down
TRACE = ROOT / "examples/traces/smollm2-135m-devil.safetensors"
FLAGS = ["-std=c++20", "-O0", "-w", "-march=native", "-DHWY_COMPILE_ONLY_STATIC", "-fopenmp",
         "-DINSTINFER_TEST_COMPILES_ATTENDS", "-DINSTINFER_TEST_COMPILES_TIMELINES",  # each file compiles what it runs
         f'-DINSTINFER_TRACE="{TRACE}"', f'-DINSTINFER_DEFAULT_TRACE="{TRACE}"',
         f'-DINSTINFER_DOCS="{ROOT}/docs"', f'-DINSTINFER_CHART_SAMPLES="{ROOT}/tests/charts"',
         f"-I{ROOT}", f"-I{ROOT}/tests", f"-I{ROOT}/bench", "-isystem", "/usr/include/eigen3"]
PRECOMPILED = ["algorithm", "array", "cmath", "cstring", "deque", "filesystem", "fstream", "functional", "map", "memory",
               "numeric", "optional", "random", "set", "span", "sstream", "string", "thread", "vector", "Eigen/Core",
               "doctest/doctest.h"]


@dataclasses.dataclass(frozen=True)
class Mutant:
    file: str  # relative to include/
    line: int
    what: str
    before: str
    after: str

    @property
    def room(self) -> str:
        return self.file.split("/")[1]

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.what}\n    - {self.before.strip()}\n    + {self.after.strip()}"


# ---- which mutants there are ----

SWAPS = [(r" < ", " <= "), (r" <= ", " < "), (r" > ", " >= "), (r" >= ", " > "), (r" == ", " != "), (r" != ", " == "),
         (r" && ", " || "), (r" \|\| ", " && "), (r" \+ ", " - "), (r" - ", " + "), (r" \* ", " / "), (r" / ", " * "),
         (r" % ", " / "), (r" \+= ", " -= "), (r" -= ", " += "), (r"\btrue\b", "false"), (r"\bfalse\b", "true"),
         (r"\bstd::min\b", "std::max"), (r"\bstd::max\b", "std::min"), (r"\+\+(?=\w)", "--")]
NUMBER = re.compile(r"(?<![\w.'])(\d+)(u?)(?![\w.'])")
FRACTION = re.compile(r"(?<![\w.'])(\d+\.\d+)(f?)(?![\w.'])")
TWO_ARGUMENTS = re.compile(r"(?<=[\w>]\()(\w[\w.]*), (\w[\w.]*)(?=\))")
STATEMENT = re.compile(r"^\s+(?:\+\+|--)?[a-z_][\w.]*(?:\[[^\]]*\])?(?:->\w+)*(?:\+\+|--| [-+*/|&]?= .*|\(.*\));$")
NO_STATEMENT = re.compile(r"^\s*(return|using|const|constexpr|auto|static|throw|case|break|else|default|friend|delete)\b")
# Preprocessor, compile-time rules, and what only makes things faster: a mutant there is no fault that a run shows.
SKIPPED = re.compile(r"^\s*(#|template|static_assert|concept|requires\b|using |\[\[|public:|private:|namespace)"
                     r"|prefetch|reserve|assert\(|concept |static constexpr const char|operator|case \d")


def code_of(line: str) -> str:
    """The line with its comment and its strings blanked, as long as before."""
    line = re.sub(r'"(?:[^"\\]|\\.)*"', lambda m: '"' + "\0" * (len(m[0]) - 2) + '"', line)
    return re.sub(r"//.*", lambda m: "\0" * len(m[0]), line)


def mutants_of_line(file: str, number: int, line: str):
    code = code_of(line)
    if not code.strip("\0 ") or SKIPPED.search(code):
        return
    def mutant(what: str, at: int, end: int, new: str) -> Mutant:
        return Mutant(file, number, what, line, line[:at] + new + line[end:])
    for pattern, new in SWAPS:
        for m in re.finditer(pattern, code):
            yield mutant(f"{m[0].strip()} becomes {new.strip()}", m.start(), m.end(), new)
    for m in NUMBER.finditer(code):
        yield mutant("one more", m.start(), m.end(), f"{int(m[1]) + 1}{m[2]}")
        if int(m[1]) > 0:
            yield mutant("one less", m.start(), m.end(), f"{int(m[1]) - 1}{m[2]}")
    for m in FRACTION.finditer(code):
        yield mutant("another constant", m.start(), m.end(), f"{float(m[1]) * 0.8 + (float(m[1]) == 0) * 0.5}{m[2]}")
    for m in TWO_ARGUMENTS.finditer(code):
        if m[1] != m[2] and not line.lstrip().startswith(("void ", "inline ")):
            yield mutant("swapped arguments", m.start(), m.end(), f"{m[2]}, {m[1]}")
    if STATEMENT.match(code.replace("\0", "x").rstrip()) and not NO_STATEMENT.match(code):
        indent = len(line) - len(line.lstrip())
        yield mutant("dropped statement", indent, len(line), ";")


def all_mutants(rooms: list[str]) -> list[Mutant]:
    found = []
    for path in sorted(INCLUDE.glob("instinfer/*/**/*.hpp")):
        file = str(path.relative_to(INCLUDE))
        if (rooms and file.split("/")[1] not in rooms) or file.endswith("-inl.hpp"):
            continue
        inside_text = inside_rule = False
        previous = ""
        for number, line in enumerate(path.read_text().splitlines(), 1):
            # Sentences of errors go on over lines; no test reads every word of them.
            inside_text = ("require" in line and "[" in line) or (inside_text and not line.rstrip().endswith("});"))
            # Compile-time rules as well.
            inside_rule = "static_assert(" in line or (inside_rule and not previous.rstrip().endswith(";"))
            previous = line
            if not inside_rule and not (inside_text and "return" in line):
                found += mutants_of_line(file, number, line)
    return list(dict.fromkeys(found))


# ---- what happens to them ----

def limited() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (TEST_BYTES, TEST_BYTES))
    Path("/proc/self/oom_score_adj").write_text("1000")  # where memory ends, the mutant goes first


class Bench:
    """Compiles and runs test files on a copy of the headers, one of them changed."""

    def __init__(self) -> None:
        BUILD.mkdir(parents=True, exist_ok=True)
        self.compiler = os.environ.get("CXX", "g++")
        self.lock = threading.Lock()
        self.includes: dict[Path, set[Path]] = {}
        self.sound: dict[Path, bool] = {}
        self.seconds: dict[Path, float] = {}
        (BUILD / "common.hpp").write_text("".join(f"#include <{h}>\n" for h in PRECOMPILED))
        self.object(BUILD / "common.hpp", BUILD / "common.hpp.gch", ["-x", "c++-header"])
        self.main = BUILD / "main.o"
        self.object(ROOT / "tests/main.cpp", self.main)
        self.parts = {"counted_allocations": ROOT / "tests/support/counted_allocations.cpp",
                      "checks": ROOT / "tests/paths/checks.cpp"}
        for name, source in self.parts.items():
            self.object(source, BUILD / f"{name}.o", [f"-I{INCLUDE}"])

    def object(self, source: Path, target: Path, more: list[str] | None = None) -> None:
        made = subprocess.run([self.compiler, *FLAGS, *(more or []), "-c", str(source), "-o", str(target)],
                              capture_output=True, text=True)
        if made.returncode != 0:
            sys.exit(f"./dev mutate: {source} does not compile:\n{made.stderr[:2000]}")

    def includes_of(self, test: Path) -> set[Path]:
        with self.lock:
            if test not in self.includes:
                rule = subprocess.run([self.compiler, *FLAGS, f"-I{INCLUDE}", "-MM", str(test)],
                                      capture_output=True, text=True).stdout
                self.includes[test] = {Path(p).resolve() for p in rule.replace("\\\n", " ").split()[1:]}
            return self.includes[test]

    def tests_for(self, mutant: Mutant) -> list[Path]:
        """Tests that include the header: those named like it first, then the quickest."""
        tests = []
        for room in [mutant.room, *MORE_TESTS.get(mutant.room, [])]:
            tests += [t for t in sorted((ROOT / "tests" / room).glob("**/test_*.cpp"))
                      if INCLUDE / mutant.file in self.includes_of(t)]
        stem = Path(mutant.file).stem
        return sorted(tests, key=lambda t: (t.stem != f"test_{stem}", self.seconds.get(t, 0.0)))

    def run(self, test: Path, include: Path, where: Path) -> tuple[str, str]:
        """passed, failed or stillborn; and why."""
        began = time.monotonic()
        text = test.read_text()
        extra = [BUILD / "counted_allocations.o"] if "counted_allocations" in text else []
        if ROOT / "tests/paths/checks.hpp" in self.includes_of(test):
            extra.append(BUILD / "checks.o")
        program = where / "test"
        made = subprocess.run([self.compiler, *FLAGS, f"-I{include}", "-include", str(BUILD / "common.hpp"), str(test),
                               str(self.main), *map(str, extra), "-lhwy", "-o", str(program)], capture_output=True, text=True)
        if made.returncode != 0:
            refused = "static assertion failed" in made.stderr
            return ("failed" if refused else "stillborn"), made.stderr
        try:
            ran = subprocess.run([str(program), "--no-intro"], capture_output=True, text=True, errors="replace", cwd=where,
                                 timeout=TEST_SECONDS, preexec_fn=limited)
        except subprocess.TimeoutExpired:
            return "failed", "does not end"
        self.seconds[test] = time.monotonic() - began
        return ("passed" if ran.returncode == 0 else "failed"), ran.stdout

    def is_sound(self, test: Path, where: Path) -> bool:
        """Whether the test passes on the headers as they are: only then it judges."""
        if test not in self.sound:
            result, why = self.run(test, INCLUDE, where)
            self.sound[test] = result == "passed"
            if not self.sound[test]:
                print(f"left out, {test.relative_to(ROOT)} {result} without a mutant: {why[-300:]}", flush=True)
        return self.sound[test]

    def judge(self, mutant: Mutant) -> tuple[str, str]:
        """noticed (by which test), survived (after how many) or stillborn."""
        where = BUILD / f"worker_{threading.get_ident()}"
        where.mkdir(exist_ok=True)
        include = where / "include"
        if not include.exists():
            shutil.copytree(INCLUDE, include)
        target, original = include / mutant.file, INCLUDE / mutant.file
        lines = original.read_text().split("\n")
        lines[mutant.line - 1] = mutant.after
        target.write_text("\n".join(lines))
        try:
            tests = self.tests_for(mutant)
            passed = 0
            for test in tests:
                if not self.is_sound(test, where):
                    continue
                result, _ = self.run(test, include, where)
                if result == "stillborn":
                    return "stillborn", ""
                if result == "failed":
                    return "noticed", str(test.relative_to(ROOT))
                passed += 1
            return "survived", f"{passed} of the room's tests include the header"
        finally:
            shutil.copyfile(original, target)


def main() -> None:
    parser = argparse.ArgumentParser(prog="./dev mutate", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("rooms", nargs="*", metavar="ROOM", help="folders of include/instinfer (all)")
    parser.add_argument("--count", type=int, default=40, metavar="N", help="mutants that compile (40)")
    parser.add_argument("--seed", type=int, default=1, metavar="S")
    parser.add_argument("--minutes", type=float, default=1e9, metavar="M", help="start none after this time")
    parser.add_argument("--jobs", type=int, default=1, metavar="J")
    parser.add_argument("--only", metavar="FILE:LINE", help="every mutant of one line, as core/budget.hpp:40")
    parser.add_argument("--list", action="store_true", help="list the mutants that there are")
    arguments = parser.parse_args()
    there = sorted(p.name for p in (INCLUDE / "instinfer").iterdir() if p.is_dir())
    for room in arguments.rooms:
        if room not in there:
            parser.error(f"there is no room {room!r}; there are {', '.join(there)}")
    candidates = all_mutants(arguments.rooms)
    if arguments.only:
        file, _, line = arguments.only.rpartition(":")
        candidates = [m for m in candidates if m.file == f"instinfer/{file}" and str(m.line) == line]
        arguments.count = len(candidates)
    else:
        # By a hash of each, so that a changed header moves no other mutants in or out of the sample.
        candidates.sort(key=lambda m: hashlib.sha256(f"{arguments.seed} {m}".encode()).hexdigest())
    if arguments.list:
        print("\n".join(map(str, candidates)))
        return

    bench = Bench()
    began = time.monotonic()
    counts = {"noticed": 0, "survived": 0, "stillborn": 0}
    survivors: list[Mutant] = []
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        waiting = iter(candidates)
        running: dict = {}
        while True:
            in_time = time.monotonic() - began < 60 * arguments.minutes
            while (len(running) < arguments.jobs and in_time and
                   counts["noticed"] + counts["survived"] + len(running) < arguments.count):
                mutant = next(waiting, None)
                if mutant is None:
                    break
                running[pool.submit(bench.judge, mutant)] = mutant
            if not running:
                break
            done, _ = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
            for future in done:
                mutant = running.pop(future)
                verdict, how = future.result()
                counts[verdict] += 1
                if verdict == "survived":
                    survivors.append(mutant)
                if verdict != "stillborn":
                    print(f"{verdict} ({how}) {mutant}", flush=True)
    judged = counts["noticed"] + counts["survived"]
    print(f"\n{judged} mutants of {len(candidates)}, seed {arguments.seed}: {counts['noticed']} noticed, "
          f"{counts['survived']} survived; {counts['stillborn']} more did not compile; "
          f"{time.monotonic() - began:.0f} s")
    if survivors:
        print("survivors:\n" + "\n".join(map(str, survivors)))


if __name__ == "__main__":
    main()
