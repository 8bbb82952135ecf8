"""Draws a sample of each program's JSON with bench/charts. Checks the files, their words, and that they repeat.

Ends with 77, which ctest shows as skipped, where there is no matplotlib.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree as xml
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CHARTS = ROOT / "bench" / "charts"

PAPER = {"fig04": ["tokens/s", "DeepSpeed", "batch (sequences)", "paper: its ratio x our baseline"],
         "fig05": ["KV access", "FlexGen, batch 64", "98.9 %"],
         "fig06": ["GFLOP/s", "FLOP a byte", "GEMMs, decode: 64 FLOP a byte"],
         "fig14": ["Recomp", "InstA-SparF", "does not fit memory", "Fig. 14: OPT-13B, one drive"],
         "fig15": ["Fig. 15: OPT-13B, two drives"], "fig16": ["Fig. 16: OPT-30B, two GPUs, one drive"],
         "fig17": ["Fig. 17: Llama-2-13B, one drive"],
         "fig18": ["InstA, two drives", "80.7 %", "ours", "paper"], "fig19": ["FlexGen-SparQ", "92.4 %"],
         "fig20a": ["paper 8.99", "speed-up over one drive"], "fig20b": ["1/32", "tokens/s"],
         "fig21": ["Logit-0", "busy (ms)"], "fig22": ["paper: at most 4.7 of a step"],
         "fig23": ["paper 1,530", "years that the drives last"]}
BEYOND = {"beyond_tokens": ["tokens/s", "HBM", "SSD, 1/8", "1,024 K"], "beyond_dollars": ["tokens a dollar"],
          "beyond_joules": ["joules a token"], "beyond_drives": ["homes, 1 Gb/s"]}
METHODS = {name: ["K", "V"] for name in ("dense", "dsa", "h2o", "hgca", "quest", "retro_infer", "sparq", "squeezed",
                                         "streaming_llm", "top_values")}
METHODS |= {f"methods-{w}-{c}": ["sparf", "relative error of the output", label] for w in ("trace", "topics")
            for c, label in (("bytes", "K and V that are read in a layer, from any memory (KB)"),
                             ("time", "modelled drive time of a layer (us)"))}
ONE = {"demo": ["SparF", "insta_sparf 1/8", "time of a step (ms)"],
       "sweep": ["flash channels", "step (µs)", "dense", "16"],
       "accuracy": ["sparf", "perplexity over that of dense", "share of right answers"],
       "plan": ["InstA", "tokens/s", "drives", "chosen"], "roofline": ["reads: 34.7 GB/s", "this library", "f16 64/8"]}
SAMPLES = {"roofline": ROOT / "docs" / "roofline.json"}  # of the committed picture


def draw(source: Path, out: Path, *flags: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *flags, CHARTS, source, out], capture_output=True, text=True)


def words(picture: bytes) -> list[str]:
    return [text.text for text in xml.fromstring(picture).iter("{http://www.w3.org/2000/svg}text")]


class Charts(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def pictures(self, source: Path, out: str) -> dict[str, bytes]:
        done = draw(source, self.folder / out)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        made = self.folder / out
        return {p.stem: p.read_bytes() for p in ([made] if made.is_file() else sorted(made.iterdir()))}

    def test_every_kind_is_drawn_and_what_is_drawn_repeats(self) -> None:
        folders = {"paper": PAPER, "beyond": BEYOND, "methods": METHODS}
        for kind, expected in [*folders.items(), *((k, {k: w}) for k, w in ONE.items())]:
            with self.subTest(kind):
                out = kind if kind in folders else f"{kind}.svg"
                source = SAMPLES.get(kind, HERE / f"{kind}.json")
                first = self.pictures(source, out)
                self.assertEqual(set(first), set(expected))
                for name, picture in first.items():
                    self.assertLessEqual(set(expected[name]), set(words(picture)), name)
                    self.assertNotIn(b"dc:date", picture)
                if kind in ("methods", "plan"):
                    self.assertEqual(self.pictures(source, out), first)

    def test_other_numbers_give_another_picture(self) -> None:
        source = HERE / "sweep.json"
        other = self.folder / "other.json"
        data = json.loads(source.read_text(encoding="utf-8"))
        data["lines"][0]["points"][0]["median"] *= 1.5
        other.write_text(json.dumps(data), encoding="utf-8")
        self.assertNotEqual(self.pictures(source, "a.svg")["a"], self.pictures(other, "b.svg")["b"])

    def test_words_along_x_and_one_line_are_drawn(self) -> None:
        source = self.folder / "words.json"
        points = [{"x": x, "median": y, "least": y, "greatest": y} for x, y in (("tlc", 1.0), ("slc", 2.0))]
        source.write_text(json.dumps({"kind": "sweep", "x_label": "drive", "y_label": "step", "by_label": "",
                                      "lines": [{"name": "", "points": points}]}))
        drawn = words(self.pictures(source, "words.svg")["words"])
        self.assertLessEqual({"tlc", "slc", "drive", "step"}, set(drawn))

    def test_what_is_of_no_kind_is_refused(self) -> None:
        for text in ('{"kind": "pie"}', "[]"):
            source = self.folder / "other.json"
            source.write_text(text)
            done = draw(source, self.folder / "other.svg")
            self.assertEqual(done.returncode, 1)
            self.assertIn("where one of paper, beyond, methods, accuracy, roofline, demo, sweep, plan is expected",
                          done.stderr)

    def test_without_matplotlib_it_says_what_to_do(self) -> None:
        done = draw(HERE / "sweep.json", self.folder / "a.svg", "-S")  # without the packages of the distribution
        self.assertEqual(done.returncode, 1)
        self.assertIn("not drawn: Python's matplotlib is not installed (Debian: python3-matplotlib)", done.stderr)
        self.assertIn(f"{CHARTS} {HERE / 'sweep.json'} {self.folder / 'a.svg'}", done.stderr)


if __name__ == "__main__":
    if importlib.util.find_spec("matplotlib") is None:
        print("skipped: there is no matplotlib (Debian: python3-matplotlib)")
        sys.exit(77)
    unittest.main()
