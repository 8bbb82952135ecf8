"""Makes small faults in the headers, one at a time, and lists those that the room's own tests do not notice.

A mutant is one change of one line: a comparison, a sign, a constant, a dropped statement, swapped arguments. One
copy of the headers in build/mutate holds all that were drawn, and a run of a test chooses one of them; so the room's
tests are compiled once, at -O0 and eight at a time. A mutant that cannot be chosen so, or that no run reaches, as a constant
of the compiler, is compiled by itself into the tests that include its header. The first test that fails, does not end or
does not link notices it. A mutant that does not compile is none, unless a static_assert refuses it. The same seed draws
the same mutants from the same headers.

usage: ./dev mutate [ROOM...] [--count N | --each N] [--seed S] [--jobs J] [--only FILE:LINE]... [--test FILE]... [--list]
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import hashlib
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

from mutants_together import together

ROOT = Path(__file__).resolve().parent.parent
INCLUDE = ROOT / "include"
# clang++ compiles in half of g++'s time.
COMPILER = os.environ.get("CXX") or shutil.which("clang++") or "g++"
BUILD = ROOT / "build" / "mutate" / Path(COMPILER).name
# The tests of the compute paths and of the engine around them are those of tests/paths, too.
MORE_TESTS = {"cpu": ["paths"], "reference": ["paths"], "engine": ["paths"]}
# Several times what the slowest test takes at -O0; a loop that does not end is noticed.
TEST_SECONDS = 240
BATCH = 8  # tests/CMakeLists.txt compiles the same files together
ROOMS_OF_PROGRAMS = ("cpu", "paths")
TEST_BYTES = 6 << 30  # of address space: a size that became huge must not take the machine down
TIMES = BUILD / "seconds.json"
TRACE = ROOT / "examples/traces/smollm2-135m-devil.safetensors"
# A vector's end is checked, as in CI: a loop that is one too long is noticed.
FLAGS = ["-std=c++20", "-O0", "-w", "-D_GLIBCXX_ASSERTIONS", "-Wno-narrowing", "-march=native", "-DHWY_COMPILE_ONLY_STATIC",
         *(["-ferror-limit=0"] if "clang" in COMPILER else ["-fopenmp", "--param=ggc-min-heapsize=1000000"]),
         "-DINSTINFER_TEST_COMPILES_ATTENDS", "-DINSTINFER_TEST_COMPILES_TIMELINES",  # each file compiles what it runs
         f'-DINSTINFER_TRACE="{TRACE}"', f'-DINSTINFER_DEFAULT_TRACE="{TRACE}"',
         f'-DINSTINFER_DOCS="{ROOT}/docs"', f'-DINSTINFER_CHART_SAMPLES="{ROOT}/tests/charts"',
         f"-I{ROOT}", f"-I{ROOT}/tests", f"-I{ROOT}/bench", "-isystem", "/usr/include/eigen3"]
PRECOMPILED = ["algorithm", "array", "cmath", "cstring", "deque", "filesystem", "fstream", "functional", "map", "memory",
               "numeric", "optional", "random", "set", "span", "sstream", "string", "thread", "vector", "Eigen/Core",
               "doctest/doctest.h", "hwy/highway.h"]


@dataclasses.dataclass(frozen=True)
class Mutant:
    file: str  # relative to include/
    line: int
    what: str
    before: str
    after: str
    at: int = dataclasses.field(compare=False)  # `new` stands for before[at:end]
    end: int = dataclasses.field(compare=False)
    new: str = dataclasses.field(compare=False)

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
# Not of min and max, where the order changes nothing.
TWO_ARGUMENTS = re.compile(r"(?<!std::min\()(?<!std::max\()(?<=[\w>]\()(\w[\w.]*), (\w[\w.]*)(?=\))")
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
        return Mutant(file, number, what, line, line[:at] + new + line[end:], at, end, new)
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

def limited(many_bytes: bool) -> None:
    if not many_bytes:
        resource.setrlimit(resource.RLIMIT_AS, (TEST_BYTES, TEST_BYTES))
    Path("/proc/self/oom_score_adj").write_text("1000")  # where memory ends, the mutant goes first


class Bench:
    """Compiles and runs test files on copies of the headers with mutants in them."""

    def __init__(self, only_tests: list[Path]) -> None:
        BUILD.mkdir(parents=True, exist_ok=True)
        for of_an_earlier_run in BUILD.glob("worker_*"):
            shutil.rmtree(of_an_earlier_run)
        self.only_tests = only_tests
        self.lock = threading.Lock()
        self.includes: dict[Path, set[Path]] = {}
        self.sound: dict[Path, bool] = {}
        self.many_bytes: set[Path] = set()  # tests that reserve more addresses than others may
        self.seconds: dict[str, float] = {}  # that a test runs; from the last time, too
        if TIMES.exists():
            self.seconds = json.loads(TIMES.read_text())
        common = [f"#include <{h}>\n" for h in PRECOMPILED]
        (BUILD / "common.hpp").write_text("".join(common) + f'#include "{ROOT}/tests/support/chosen_mutant.hpp"\n')
        self.object(BUILD / "common.hpp", BUILD / "common.hpp.gch", ["-x", "c++-header"])
        self.parts: dict[str, Path] = {}

    def object(self, source: Path, target: Path, more: list[str] | None = None) -> None:
        made = subprocess.run([COMPILER, *FLAGS, *(more or []), "-c", str(source), "-o", str(target)],
                              capture_output=True, text=True)
        if made.returncode != 0:
            sys.exit(f"./dev mutate: {source} does not compile:\n{made.stderr[:2000]}")

    def part(self, source: str) -> Path:
        """What several tests are linked with."""
        with self.lock:
            if source not in self.parts:
                self.parts[source] = BUILD / f"{Path(source).stem}.o"
                self.object(ROOT / source, self.parts[source], [f"-I{INCLUDE}"])
            return self.parts[source]

    def includes_of(self, test: Path) -> set[Path]:
        with self.lock:
            if test not in self.includes:
                rule = subprocess.run([COMPILER, *FLAGS, f"-I{INCLUDE}", "-MM", str(test)],
                                      capture_output=True, text=True).stdout
                self.includes[test] = {Path(p).resolve() for p in rule.replace("\\\n", " ").split()[1:]}
            return self.includes[test]

    def tests_for(self, mutant: Mutant) -> list[Path]:
        """Tests that include the header: those named like it first, then the quickest."""
        if self.only_tests:
            return self.only_tests
        tests = []
        for room in [mutant.room, *MORE_TESTS.get(mutant.room, [])]:
            tests += [t for t in sorted((ROOT / "tests" / room).glob("**/test_*.cpp"))
                      if INCLUDE / mutant.file in self.includes_of(t)]
        stem = Path(mutant.file).stem
        return sorted(tests, key=lambda t: (t.stem != f"test_{stem}", self.seconds.get(str(t), 0.0)))

    def compile(self, tests: list[Path], include: Path, program: Path) -> str:
        """The compiler's errors; nothing where there are none."""
        source = program.with_suffix(".cpp")
        source.write_text("".join(f'#include "{test}"\n' for test in tests))
        extra = []
        if any("counted_allocations" in t.read_text() for t in tests):
            extra.append(self.part("tests/support/counted_allocations.cpp"))
        if any(ROOT / "tests/paths/checks.hpp" in self.includes_of(t) for t in tests):
            extra.append(self.part("tests/paths/checks.cpp"))
        made = subprocess.run([COMPILER, *FLAGS, f"-I{include}", "-include", str(BUILD / "common.hpp"), str(source),
                               str(self.part("tests/main.cpp")), *map(str, extra), "-lhwy", "-o", str(program)], capture_output=True, text=True)
        return made.stderr if made.returncode != 0 else ""

    def passes(self, test: Path, program: Path, **chosen: object) -> tuple[bool, str]:
        """Whether the test of the program passes with the chosen mutant; and what it printed."""
        began = time.monotonic()
        where = program.parent / f"run_{threading.get_ident()}"
        where.mkdir(exist_ok=True)
        try:
            ran = subprocess.run([str(program), "--no-intro", "--abort-after=1", f"--source-file=*{test.relative_to(ROOT)}"], capture_output=True, text=True,
                                 errors="replace", cwd=where, preexec_fn=lambda: limited(test in self.many_bytes),
                                 env={**os.environ, **{f"INSTINFER_{k}": str(v) for k, v in chosen.items()}},
                                 timeout=min(TEST_SECONDS, 20 + 10 * self.seconds.get(str(test), TEST_SECONDS)))
        except subprocess.TimeoutExpired:
            return False, "does not end"
        if ran.returncode == 0:
            self.seconds[str(test)] = time.monotonic() - began
            TIMES.write_text(json.dumps(self.seconds))
        return ran.returncode == 0, ran.stdout

    # One by one.

    def is_sound(self, test: Path, where: Path) -> bool:
        """Whether the test passes on the headers as they are: only then it judges."""
        if test not in self.sound:
            why = self.compile([test], INCLUDE, where / "sound")
            passed, printed = (False, why) if why else self.passes(test, where / "sound")
            self.sound[test] = passed
            if not passed:
                print(f"left out, {test.relative_to(ROOT)} fails without a mutant: {printed[-300:]}", flush=True)
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
            for batch in self.batches(set(tests)):
                errors = self.compile(batch, include, where / "test")
                if errors:
                    refused = re.search("static.assert(ion)? failed", errors)
                    return ("noticed", "a static_assert") if refused else ("stillborn", "")
                for test in batch:
                    passed, _ = self.passes(test, where / "test")
                    if not passed and self.is_sound(test, where):
                        return "noticed", str(test.relative_to(ROOT))
            return "survived", f"{len(tests)} tests of the room include the header"
        finally:
            shutil.copyfile(original, target)

    # Together.

    def batches(self, tests: set[Path]) -> list[list[Path]]:
        """As tests/CMakeLists.txt; the quickest to compile first: what these notice or refuse, the others need not."""
        found = []
        for room in {t.relative_to(ROOT).parts[1] for t in tests}:
            files = sorted((ROOT / "tests" / room).glob("**/test_*.cpp"))
            size = 1 if room in ROOMS_OF_PROGRAMS else BATCH
            found += [[t for t in files[i:i + size] if t in tests] for i in range(0, len(files), size)]
        return sorted((b for b in found if b), key=lambda b: (max(len(self.includes_of(t)) for t in b), b))

    def groups(self, tests: set[Path]) -> list[list[list[Path]]]:
        """Batches that are compiled before the first test runs, the quickest test first. A program of one test is
        compiled where mutants are left."""
        batches = self.batches(tests)
        single = [b for b in batches if b[0].relative_to(ROOT).parts[1] in ROOMS_OF_PROGRAMS]
        return [g for g in ([b for b in batches if b not in single], *([b] for b in single)) if g]

    def written(self, mutants: dict[int, Mutant], include: Path) -> tuple[dict[tuple[str, int], set[int]], set[int]]:
        """Puts the mutants into the copy; whose lines those are, and those that cannot be put in."""
        places: dict[tuple[str, int], set[int]] = {}
        left_out: set[int] = set()
        for file in {m.file for m in mutants.values()}:
            text = (INCLUDE / file).read_text()
            code = "\n".join(code_of(line).replace("\0", "x") for line in text.split("\n"))
            text, lines, out = together(text, code, [(n, m) for n, m in mutants.items() if m.file == file])
            (include / file).write_text(text)
            left_out |= out
            places.update({(file, line): whose for line, whose in lines.items()})
        return places, left_out

    def judge_together(self, all_of_them: list[Mutant], pool, tell) -> list[Mutant]:
        """Tells the verdict of each that runs can choose; returns the others."""
        where = BUILD / "together"
        shutil.rmtree(where, ignore_errors=True)
        shutil.copytree(INCLUDE, where / "include")
        mutants = dict(enumerate(all_of_them))
        _, left_out = self.written(mutants, where / "include")
        alone = {n: mutants.pop(n) for n in left_out}
        places, _ = self.written(mutants, where / "include")
        tests_of = {n: self.tests_for(m) for n, m in mutants.items()}
        reached_by: dict[int, int] = dict.fromkeys(mutants, 0)
        for group in self.groups({t for tests in tests_of.values() for t in tests}):
            program_of: dict[Path, Path] = {}
            for tests in group:
                program = where / f"test_{len(program_of)}"
                while any(not set(tests).isdisjoint(tests_of[n]) for n in mutants):
                    errors = self.compile(tests, where / "include", program)
                    if not errors:
                        program_of.update(dict.fromkeys(tests, program))
                        break
                    named = {(f"instinfer/{f}", int(n))
                             for f, n in re.findall(r"include/instinfer/([\w/.-]+):(\d+)", errors)}
                    guilty = {n for place in named for n in places.get(place, ()) if n in mutants}
                    if not guilty:
                        sys.exit(f"./dev mutate: {tests} do not compile, and no mutant is named:\n{errors[:4000]}")
                    print(f"{tests[0].relative_to(ROOT)} and so on do not compile with {len(guilty)} of them", flush=True)
                    alone.update({n: mutants.pop(n) for n in guilty})
                    for file in {m.file for m in all_of_them}:
                        shutil.copyfile(INCLUDE / file, where / "include" / file)
                    places, _ = self.written(mutants, where / "include")
            reached_in: dict[Path, list[int]] = {}
            for test, program in program_of.items():
                if any(test in tests_of[n] for n in mutants):
                    reached = where / "reached"
                    reached.unlink(missing_ok=True)
                    sound, why = self.passes(test, program, MUTANTS_REACHED=reached)
                    if not sound:
                        self.many_bytes.add(test)
                        sound, why = self.passes(test, program, MUTANTS_REACHED=reached)
                    self.sound[test] = sound and reached.exists()
                    if self.sound[test]:
                        reached_in[test] = [int(n) for n in reached.read_text().split()]
                        for n in reached_in[test]:
                            reached_by[n] += 1
                    else:
                        print(f"left out, {test.relative_to(ROOT)} fails without a mutant: {why[-300:]}", flush=True)
            for test in sorted(reached_in, key=lambda t: self.seconds[str(t)]):
                program = program_of[test]
                candidates = [n for n in reached_in[test] if n in mutants]
                results = pool.map(lambda n: self.passes(test, program, MUTANT=n), candidates)  # noqa: B023
                for n, (passed, _) in zip(candidates, results):
                    if not passed:
                        tell(mutants.pop(n), "noticed", str(test.relative_to(ROOT)))
        for n, mutant in mutants.items():
            if reached_by[n]:
                tell(mutant, "survived", f"{reached_by[n]} tests of the room reach it")
            else:
                alone[n] = mutant
        return list(alone.values())


def main() -> None:
    parser = argparse.ArgumentParser(prog="./dev mutate", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("rooms", nargs="*", metavar="ROOM", help="folders of include/instinfer (all)")
    parser.add_argument("--count", type=int, default=40, metavar="N", help="mutants drawn (40)")
    parser.add_argument("--each", type=int, metavar="N", help="mutants drawn of each room, in place of --count")
    parser.add_argument("--seed", type=int, default=1, metavar="S")
    parser.add_argument("--jobs", type=int, default=1, metavar="J")
    parser.add_argument("--only", action="append", metavar="FILE:LINE", help="every mutant of a line, as core/budget.hpp:40")
    parser.add_argument("--test", action="append", type=Path, default=[], metavar="FILE", help="by these tests alone")
    parser.add_argument("--list", action="store_true", help="list the mutants that there are")
    arguments = parser.parse_args()
    there = sorted(p.name for p in (INCLUDE / "instinfer").iterdir() if p.is_dir())
    for room in arguments.rooms:
        if room not in there:
            parser.error(f"there is no room {room!r}; there are {', '.join(there)}")
    candidates = all_mutants(arguments.rooms)
    if arguments.only:
        drawn = [m for m in candidates if f"{m.file.removeprefix('instinfer/')}:{m.line}" in arguments.only]
    else:
        # By a hash of each, so that a changed header moves no other mutants in or out of the sample.
        candidates.sort(key=lambda m: hashlib.sha256(f"{arguments.seed} {m}".encode()).hexdigest())
        drawn = candidates[:arguments.count]
        if arguments.each:
            of_room = {room: [m for m in candidates if m.room == room][:arguments.each] for room in there}
            drawn = [m for mutants in of_room.values() for m in mutants]
    if arguments.list:
        print("\n".join(map(str, candidates)))
        return

    bench = Bench([t.resolve() for t in arguments.test])
    began = time.monotonic()
    verdicts: dict[str, list[Mutant]] = {"noticed": [], "survived": [], "stillborn": []}

    def tell(mutant: Mutant, verdict: str, how: str) -> None:
        verdicts[verdict].append(mutant)
        if verdict != "stillborn":
            print(f"{verdict} ({how}) {mutant}", flush=True)

    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        alone = bench.judge_together(drawn, pool, tell)
        print(f"{len(alone)} are compiled alone:\n" + "\n".join(map(str, alone)), flush=True)
        for mutant, verdict in zip(alone, pool.map(bench.judge, alone)):
            tell(mutant, *verdict)
    noticed, survived = verdicts["noticed"], verdicts["survived"]
    print(f"\n{len(noticed) + len(survived)} mutants of {len(candidates)}, seed {arguments.seed}: {len(noticed)} noticed, "
          f"{len(survived)} survived; {len(verdicts['stillborn'])} more did not compile; {time.monotonic() - began:.0f} s")
    for room in sorted({m.room for m in noticed + survived}):
        print(f"  {room:12} {sum(m.room == room for m in noticed):4} noticed {sum(m.room == room for m in survived):4} survived")
    if survived:
        print("survivors:\n" + "\n".join(map(str, survived)))


if __name__ == "__main__":
    main()
