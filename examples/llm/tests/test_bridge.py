#!/usr/bin/env python3
"""Tests of the bridge without torch: a tiny model in numpy decodes by every method."""

import os
import pathlib
import sys
import tempfile
import unittest

import numpy as np

sys.path[:0] = [str(pathlib.Path(__file__).parents[1]), str(pathlib.Path(__file__).parent)]
import instinfer_llm  # noqa: E402
from instinfer_llm import Layer, Model  # noqa: E402
from tiny_model import HEAD_DIM, EngineCache, PlainCache, TinyModel  # noqa: E402

STORAGE = instinfer_llm.formats()[0].split(":")[0]
PROMPT, STEPS = 300, 6
# fp32 rows and sums over 300 tokens: 300 * 2^-24 in a logit of the attention, twice over two layers.
TOLERANCE = {"fp32": 2e-4, "fp16": 2e-2, "bf16": 1e-1, "int8": 1e-1}[STORAGE]
# With these settings a method leaves nothing out, so that its answer is the dense one.
KEEPS_ALL = {
    "dense": "", "top_values": "keep_values=1", "streaming_llm": "window=1000", "h2o": "heavy=1000,recent=1000",
    "hgca": "window=1000", "sparq": "keep_tokens=1,blend=0", "sparf": "keep_tokens=1",
    "sparf_per_head": "keep_tokens=1", "quest": "keep_pages=1", "squeezed": "threshold=0",
    "retro_infer": "retrieved=1,estimated=0,update_tokens=128", "dsa": "keep_tokens=1",
    "misa": "keep_tokens=1",
}

tiny = TinyModel()
ids = np.random.default_rng(7).integers(0, 101, PROMPT + STEPS)


def layers(method="dense", budget=1.0, settings="", windows=(0, 0)):
    return [Layer(tiny.q_heads, tiny.kv_heads, HEAD_DIM, window=w, method=method, budget=budget, settings=settings)
            for w in windows]


def engine(*args, context_tokens=512, **kwargs):
    return Model(layers(*args, **kwargs), storage=STORAGE, context_tokens=context_tokens, bytes=64 << 20)


def decoded(cache, steps=STEPS):
    """Logits of the last prompt token and of each step."""
    logits = [tiny.forward(ids[:PROMPT], cache, prompt=True)[-1]]
    for i in range(PROMPT, PROMPT + steps):
        logits.append(tiny.forward(ids[i:i + 1], cache, first=i)[0])
    return np.array(logits)


def plain(**kwargs):
    return decoded(PlainCache(2, **kwargs))


class Methods(unittest.TestCase):
    def test_every_method_is_listed(self):
        self.assertEqual(sorted(instinfer_llm.methods()), sorted(KEEPS_ALL))

    def test_a_method_that_keeps_all_has_the_logits_of_plain_attention(self):
        expected = plain()
        for method, settings in KEEPS_ALL.items():
            with self.subTest(method):
                found = decoded(EngineCache(engine(method, settings=settings)))
                np.testing.assert_allclose(found, expected, atol=TOLERANCE)

    def test_a_budget_is_a_share_of_wanted_bytes(self):
        for method in KEEPS_ALL:
            with self.subTest(method):
                share = {"dense": 1.0, "top_values": 0.75}.get(method, 0.5)
                model = engine(method, budget=share, context_tokens=PROMPT)
                found = decoded(EngineCache(model))
                self.assertTrue(np.isfinite(found).all())
                usage = model.usage()
                self.assertEqual(usage["attends"], 2 * STEPS)
                row = 2 * tiny.kv_heads * HEAD_DIM * {"fp32": 4, "int8": 1}.get(STORAGE, 2)
                seen = sum(PROMPT + 1 + i for i in range(STEPS))
                self.assertEqual(usage["dense_bytes"], 2 * seen * row)
                # Pages, blocks, clusters and what waits for an index come in steps; a union of heads may want less.
                low = 0.5 if method == "sparf_per_head" else 0.8
                self.assertGreater(usage["wanted_bytes"], low * share * usage["dense_bytes"])
                self.assertLess(usage["wanted_bytes"], 1.25 * share * usage["dense_bytes"])
                self.assertLessEqual(usage["fast_bytes"], usage["wanted_bytes"])

    def test_squeezed_waits_for_a_prompt_that_leaves_a_choice(self):
        # The 100 newest tokens are more than a twentieth of the prompt: without a threshold, all clusters pass.
        model = engine("squeezed", budget=0.05, settings="window=100", context_tokens=PROMPT)
        np.testing.assert_allclose(decoded(EngineCache(model)), plain(), atol=TOLERANCE)
        self.assertGreaterEqual(model.usage()["wanted_bytes"], model.usage()["dense_bytes"])

    def test_streaming_llm_by_its_definition(self):
        model = engine("streaming_llm", 0.5, "sinks=4,window=32")  # without rope: positions stay
        exact = PlainCache(2)
        by_definition = PlainCache(2, sees=lambda layer, p, t: (t < 4) | (t > p - 32))
        tiny.forward(ids[:PROMPT], exact)  # the prompt attends exactly
        by_definition.k, by_definition.v = exact.k, exact.v
        mine = EngineCache(model)
        tiny.forward(ids[:PROMPT], mine, prompt=True)
        for i in range(PROMPT, PROMPT + STEPS):
            np.testing.assert_allclose(tiny.forward(ids[i:i + 1], mine, first=i),
                                       tiny.forward(ids[i:i + 1], by_definition, first=i), atol=TOLERANCE)

    def test_a_prompt_attends_exactly_whatever_the_method(self):
        expected = PlainCache(2, sees=lambda layer, p, t: (t > p - 20) | (layer == 1))
        wanted = np.concatenate([tiny.forward(ids[:130], expected), tiny.forward(ids[130:200], expected, first=130)])
        for method in ("dense", "sparf", "h2o", "retro_infer"):
            with self.subTest(method):
                of_layer = [layers(windows=(20,))[0], layers(method, 0.25, windows=(0,))[0]]
                cache = EngineCache(Model(of_layer, storage=STORAGE, bytes=64 << 20), prompts="engine")
                found = [tiny.forward(ids[:130], cache, prompt=True),
                         tiny.forward(ids[130:200], cache, first=130, prompt=True)]
                np.testing.assert_allclose(np.concatenate(found), wanted, atol=TOLERANCE)

    def test_layers_with_windows(self):
        expected = plain(sees=lambda layer, p, t: (t > p - 20) | (layer == 1))
        prompts = PlainCache(2, sees=lambda layer, p, t: (t > p - 20) | (layer == 1))
        found = decoded(EngineCache(engine(windows=(20, 0)), prompts=prompts))
        np.testing.assert_allclose(found, expected, atol=TOLERANCE)


class Calls(unittest.TestCase):
    def test_many_tokens_in_one_call_are_steps(self):
        for method in ("dense", "sparf", "h2o"):
            with self.subTest(method):
                steps = decoded(EngineCache(engine(method, budget=0.25)))
                cache = EngineCache(engine(method, budget=0.25))
                tiny.forward(ids[:PROMPT], cache, prompt=True)
                at_once = tiny.forward(ids[PROMPT:], cache, first=PROMPT)
                np.testing.assert_allclose(at_once, steps[1:], atol=1e-5)

    def test_a_batch_has_the_results_of_its_sequences(self):
        random = np.random.default_rng(3)
        model, alone = engine("sparf", budget=0.25), engine("sparf", budget=0.25)

        def rows(n, heads):
            return random.normal(size=(n, heads, HEAD_DIM)).astype(np.float32)

        lengths = [50, 3, 120]
        prompts = [(rows(n, tiny.kv_heads), rows(n, tiny.kv_heads)) for n in lengths]
        news = [(rows(1, tiny.kv_heads), rows(1, tiny.kv_heads), rows(1, tiny.q_heads)) for _ in lengths]
        outs = [np.zeros((1, tiny.q_heads, HEAD_DIM), np.float32) for _ in lengths]
        batch = [model.open() for _ in lengths]
        model.prefill(1, [(s, k, v, None, None) for s, (k, v) in zip(batch, prompts)])
        model.decode(1, [(s, *new, out) for s, new, out in zip(batch, news, outs)])
        for n, (k, v), new, out in zip(lengths, prompts, news, outs):
            sequence, one = alone.open(), np.zeros_like(out)
            alone.prefill(1, [(sequence, k, v, None, None)])
            alone.decode(1, [(sequence, *new, one)])
            self.assertEqual(alone.length(sequence, 1), n + 1)
            np.testing.assert_array_equal(one, out)

    def test_rows_with_gaps_and_other_types(self):
        random = np.random.default_rng(4)
        wide = random.normal(size=(tiny.q_heads, 9, 2 * HEAD_DIM)).astype(np.float16)
        of = [wide[:heads, :, :HEAD_DIM].transpose(1, 0, 2) for heads in (tiny.kv_heads, tiny.kv_heads, tiny.q_heads)]
        results = []
        for k, v, q in (of, [np.ascontiguousarray(x, np.float32) for x in of]):
            model = engine()
            out = np.zeros((9, tiny.q_heads, HEAD_DIM), np.float32)
            model.decode(0, [(model.open(), k, v, q, out)])
            results.append(out)
        np.testing.assert_array_equal(*results)
        np.testing.assert_allclose(results[0], PlainCache(1).attend(0, *(np.float64(x) for x in of), False),
                                   atol=10 * TOLERANCE)

    def test_fork_truncate_and_close(self):
        model = engine()
        cache = EngineCache(model)
        expected = decoded(cache)
        copy = model.fork(cache.sequence)
        model.truncate(copy, PROMPT)
        self.assertEqual(model.length(copy, 1), PROMPT)
        self.assertEqual(model.length(cache.sequence, 1), PROMPT + STEPS)
        again = EngineCache(model, copy)
        for i in range(PROMPT, PROMPT + STEPS):
            np.testing.assert_allclose(tiny.forward(ids[i:i + 1], again, first=i)[0], expected[1 + i - PROMPT],
                                       atol=TOLERANCE)
        model.close(copy)
        with self.assertRaisesRegex(instinfer_llm.UnknownSequence, f"sequence {copy} is not open"):
            model.close(copy)

    def test_pages_on_a_real_drive(self):
        random = np.random.default_rng(5)
        k, v = (random.normal(size=(400, tiny.kv_heads, HEAD_DIM)).astype(np.float32) for _ in range(2))
        q = random.normal(size=(1, tiny.q_heads, HEAD_DIM)).astype(np.float32)
        outs = []
        with tempfile.TemporaryDirectory() as folder:
            for drive in (None, folder):
                model = Model(layers("quest", 0.25), storage=STORAGE, bytes=16 << 20, drive=drive)
                sequence = model.open()
                model.prefill(0, [(sequence, k, v, None, None)])
                outs.append(np.zeros_like(q))
                model.decode(0, [(sequence, k[:1], v[:1], q, outs[-1])])
        np.testing.assert_array_equal(*outs)

    def test_the_clock_times_what_it_is_asked_to(self):
        model = engine("sparf", budget=0.25)
        cache = EngineCache(model)
        tiny.forward(ids[:PROMPT], cache, prompt=True)
        k = np.ones((1, tiny.kv_heads, HEAD_DIM), np.float32)
        out = np.zeros((1, tiny.q_heads, HEAD_DIM), np.float32)
        model.decode(0, [(cache.sequence, k, k, out, out.copy())], timed=True)
        usage = model.usage()
        self.assertEqual((usage["attends"], usage["timed_attends"]), (1, 1))
        self.assertGreater(usage["attend_ns"], 100e3)  # one array read of the paper's flash takes 60 us
        model.reset_usage()
        self.assertEqual(model.usage()["attends"], 0)


class Errors(unittest.TestCase):
    def refuses(self, error, sentence, call):
        with self.assertRaisesRegex(error, sentence):
            call()

    def test_what_cannot_be_made(self):
        bad = instinfer_llm.BadArgument
        self.refuses(bad, "no method 'sparse'; there are: dense top_values", lambda: engine("sparse"))
        self.refuses(bad, r"a budget must lie in \(0, 1\], got 1.5", lambda: engine("sparf", budget=1.5))
        self.refuses(bad, "a budget must lie", lambda: engine("sparf", budget=float("nan")))
        self.refuses(bad, "sparf has no setting 'k'; it has: keep_dims, keep_tokens, local, dims_over",
                     lambda: engine("sparf", 0.5, settings="k=1"))
        self.refuses(bad, "'local=half' of sparf must be name=number", lambda: engine("sparf", settings="local=half"))
        self.refuses(bad, "quest has no setting ''", lambda: engine("quest", settings="=3"))
        self.refuses(bad, "least_pages is a count, got 0.5", lambda: engine("quest", settings="least_pages=0.5"))
        self.refuses(bad, "blend is 0 or 1, got 2", lambda: engine("sparf", settings="blend=2"))
        self.refuses(bad, "top_values reads all of K", lambda: engine("top_values", budget=0.25))
        self.refuses(bad, "storage 'int3' with head size 64 is not in this build, which has: .*:64",
                     lambda: Model(layers(), storage="int3"))
        self.refuses(bad, "kv_heads must divide q_heads, got 3 query heads over 2",
                     lambda: Model([Layer(3, 2, HEAD_DIM)], storage=STORAGE))
        self.refuses(bad, "threads must be 1 to 1024, got 0", lambda: Model(layers(), storage=STORAGE, threads=0))
        self.refuses(bad, "keeps a window of its own", lambda: engine("h2o", budget=0.5, windows=(16, 0)))
        self.refuses(bad, "layers must be positive", lambda: Model([], storage=STORAGE))
        self.refuses(instinfer_llm.Error, "no/such/folder",
                     lambda: Model(layers(), storage=STORAGE, drive="/no/such/folder"))

    def test_what_cannot_be_called(self):
        bad = instinfer_llm.BadArgument
        model = engine()
        sequence = model.open()
        k = np.ones((1, tiny.kv_heads, HEAD_DIM), np.float32)
        q = np.ones((1, tiny.q_heads, HEAD_DIM), np.float32)
        out = np.zeros_like(q)
        self.refuses(bad, r"layer must be in \[0, 2\), got 2", lambda: model.decode(2, [(sequence, k, k, q, out)]))
        self.refuses(bad, r"v must be \[1, 2, 64\], is \[1, 4, 64\]",
                     lambda: model.decode(0, [(sequence, k, q, q, out)]))
        self.refuses(bad, "are float64", lambda: model.decode(0, [(sequence, k.astype(float), k, q, out)]))
        self.refuses(bad, "one element type", lambda: model.decode(0, [(sequence, k.astype(np.float16), k, q, out)]))
        self.refuses(bad, "out must be float32 without gaps",
                     lambda: model.decode(0, [(sequence, k, k, q, out.astype(np.float16))]))
        self.refuses(bad, "side by side", lambda: model.decode(0, [(sequence, k, k, q[..., ::-1], out)]))
        self.refuses(bad, "there is no out", lambda: model.decode(0, [(sequence, k, k, q, None)]))
        self.refuses(bad, "q: there are no rows", lambda: model.decode(0, [(sequence, k, k, None, out)]))
        self.refuses(bad, "q must be finite", lambda: model.decode(0, [(sequence, k, k, q * np.nan, out)]))
        self.assertEqual(model.length(sequence, 0), 0)  # what was refused has left nothing behind
        self.refuses(bad, "cannot keep the first 9", lambda: model.truncate(sequence, 9))
        self.refuses(instinfer_llm.UnknownSequence, "sequence 77", lambda: model.decode(0, [(77, k, k, q, out)]))
        self.refuses(instinfer_llm.UnknownSequence, "sequence 77", lambda: model.fork(77))

    def test_a_full_drive(self):
        model = Model(layers(), storage=STORAGE, bytes=256 << 10)
        sequence = model.open()
        k = np.ones((4096, tiny.kv_heads, HEAD_DIM), np.float32)
        self.refuses(instinfer_llm.DriveFull, "the drive has [0-9]+ free of",
                     lambda: model.prefill(0, [(sequence, k, k, None, None)]))
        self.assertEqual(model.length(sequence), 0)


if __name__ == "__main__":
    unittest.main(verbosity=1 if os.environ.get("CI") else 2)
