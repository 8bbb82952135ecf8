// Engines over a drive: the bits of an attend are those over memory, whatever else the engine does,
// and an error of the drive leaves the engine usable.

#include <random>
#include <sstream>
#include <vector>

#include <doctest/doctest.h>

#include "faulty_calls.hpp"
#include "instinfer/drive.hpp"
#include "instinfer/engine/layered_engine.hpp"
#include "instinfer/layout/fused.hpp"
#include "own_folder.hpp"
#include "tests/support/normals.hpp"
#include "tests/support/refusal.hpp"
#include "tests/support/shared_attends.hpp"

namespace instinfer::test_drive_engine {

using store::drive_files;

namespace {

using format = kv_format<fp16, 64>;
template <class D, class Path, class Store>
using engine_of = engine<D, format, Path, Store>;

using fused = design<attention::dense, layout::fused<>, flash::instcsd, transfer::in_storage>;

constexpr model_shape shape{.layers = 2, .q_heads = 6, .kv_heads = 2};
constexpr int channels = 3;
const store::capacity room{.bytes = 8 << 20, .context_tokens = 2048};

// Readers with room for 120 pages of 4 KiB, so that a plan is many times larger.
drive_files::options small_buffers() {
  return {.folders = {"."}, .readers = 2, .buffer_bytes = 256 * 4096};
}

drive_files pages_on(const drive_files::options& options) {
  return {options, channels, room.bytes / channels / 4096, 4096};
}

std::vector<fp16> drawn(std::mt19937& random, std::size_t tokens) {
  normal_distribution normal;
  std::vector<fp16> x(tokens * 2 * 64);
  for (fp16& e : x) {
    e = from_float<fp16>(normal(random));
  }
  return x;
}
std::vector<float> drawn_q(std::mt19937& random, std::size_t queries = 1) {
  normal_distribution normal;
  std::vector<float> q(queries * 6 * 64);
  for (float& x : q) {
    x = normal(random);
  }
  return q;
}

template <class Engine, class P>
std::vector<float> attend(Engine& e, sequence seq, int layer, const std::vector<float>& q,
                          const P& workers) {
  std::vector<float> out(q.size());
  typename Engine::scratch work;
  e.attend(seq, layer, q, out, work, workers);
  return out;
}

}  // namespace

// Paths of both kinds of kernels: rows and columns on the CPU, elements on the reference.
TEST_CASE_TEMPLATE("attends over a drive have the bits of those over memory", Engine,
                   engine_of<insta, cpu::path, drive_files>,
                   engine_of<fused, cpu::path, drive_files>,
                   engine_of<insta_sparf, cpu::path, drive_files>,
                   engine_of<insta_sparf, reference::path, drive_files>) {
  using in_memory = engine_of<typename Engine::design_type, typename Engine::path, store::memory>;
  Engine on_drive(shape, room, pages_on(small_buffers()));
  in_memory expected(shape, room, {}, {}, channels);
  std::mt19937 random(1);
  std::vector<sequence> seqs{on_drive.open(), on_drive.open()};
  const std::vector<sequence> same{expected.open(), expected.open()};
  const auto append = [&](std::size_t s, int layer, std::size_t tokens) {
    const std::vector<fp16> k = drawn(random, tokens);
    const std::vector<fp16> v = drawn(random, tokens);
    const receipt r = on_drive.append(seqs[s], layer, k, v);
    CHECK(r.traffic == expected.append(same[s], layer, k, v).traffic);
  };
  const auto compare = [&](std::size_t s, int layer, std::size_t queries) {
    const std::vector<float> q = drawn_q(random, queries);
    CHECK(attend(on_drive, seqs[s], layer, q, parallel::serial{}) ==
          attend(expected, same[s], layer, q, parallel::serial{}));
    const parallel::in_parts parts(3, parallel::serial{});
    CHECK(attend(on_drive, seqs[s], layer, q, parts) == attend(expected, same[s], layer, q, parts));
#if defined(_OPENMP)
    const parallel::in_parts both(2, parallel::openmp{.threads = 2});
    CHECK(attend(on_drive, seqs[s], layer, q, both) == attend(expected, same[s], layer, q, both));
#endif
  };
  for (const std::size_t tokens : {1500u, 1u, 30u, 300u}) {
    for (std::size_t s = 0; s < 2; ++s) {
      append(s, 0, tokens);
      append(s, 1, tokens / 2 + 1);
      compare(s, 0, 1);
      compare(s, 1, 1);
    }
  }
  compare(0, 0, 5);
  CHECK(on_drive.pages().bytes_read() > 0);

  // A file of a sequence on the drive goes on in memory, and the other way round.
  std::stringstream file;
  on_drive.save(seqs[0], file, "model");
  const sequence loaded = expected.open();
  expected.load(loaded, file, "model");
  const std::vector<float> q = drawn_q(random);
  CHECK(attend(on_drive, seqs[0], 0, q, parallel::serial{}) ==
        attend(expected, loaded, 0, q, parallel::serial{}));
  expected.reclaim(loaded);
  on_drive.reclaim(seqs[0]);
  seqs[0] = on_drive.open();
  std::stringstream back;
  expected.save(same[0], back);
  on_drive.load(seqs[0], back);
  compare(0, 0, 1);

  // The tokens at the begin are given up, and their pages are used for others.
  on_drive.reclaim(seqs[1], {.tokens_before = 333});
  expected.reclaim(same[1], {.tokens_before = 333});
  append(1, 1, 400);
  compare(1, 0, 1);
  compare(1, 1, 1);

  // Some of the newest are taken back, and a fork goes on for itself.
  on_drive.truncate(seqs[1], {.tokens = 700});
  expected.truncate(same[1], {.tokens = 700});
  const sequence fork = on_drive.fork(seqs[1]);
  const sequence same_fork = expected.fork(same[1]);
  append(1, 0, 50);
  compare(1, 0, 1);
  const std::vector<float> fork_q = drawn_q(random);
  CHECK(attend(on_drive, fork, 0, fork_q, parallel::serial{}) ==
        attend(expected, same_fork, 0, fork_q, parallel::serial{}));

  const std::vector<float> qs[] = {drawn_q(random), drawn_q(random)};
  std::vector<float> out[] = {std::vector<float>(6 * 64), std::vector<float>(6 * 64)};
  std::vector<float> expected_out[] = {std::vector<float>(6 * 64), std::vector<float>(6 * 64)};
  const attend_request batch[] = {{seqs[0], qs[0], out[0]}, {seqs[1], qs[1], out[1]}};
  const attend_request same_batch[] = {{same[0], qs[0], expected_out[0]},
                                       {same[1], qs[1], expected_out[1]}};
  typename Engine::scratch work;
  typename in_memory::scratch same_work;
  on_drive.attend(batch, 0, work, parallel::serial{});
  expected.attend(same_batch, 0, same_work, parallel::serial{});
  CHECK(out[0] == expected_out[0]);
  CHECK(out[1] == expected_out[1]);
}

template <class Format, class Store>
using engine_of_kind = engine<insta, Format, cpu::path, Store>;
template <class Store>
using two_kinds = layered_engine<engine_of_kind, Store, format, format>;
const std::array<layer_kind, 2> kinds{layer_kind{6, 2, {.window = 100}}, layer_kind{6, 2}};

TEST_CASE("layers of two kinds share a drive, with the bits of those over memory") {
  const std::vector<std::uint32_t> kind_of_layer{0, 1};
  two_kinds<drive_files> on_drive(kind_of_layer, kinds, room, pages_on(small_buffers()));
  two_kinds<store::memory> in_memory(kind_of_layer, kinds, room, channels);
  const auto results_of = [](auto& engine) {
    std::mt19937 random(8);
    std::vector<float> all, out(6 * 64);
    const auto attend = [&](sequence seq) {
      for (int l = 0; l < 2; ++l) {
        engine.attend(seq, l, drawn_q(random), out);
        all.insert(all.end(), out.begin(), out.end());
      }
    };
    const auto append = [&](sequence seq, std::size_t tokens) {
      for (int l = 0; l < 2; ++l) {
        engine.append(seq, l, drawn(random, tokens), drawn(random, tokens));
      }
    };
    const sequence seq = engine.open();
    append(seq, 700);
    const sequence copy = engine.fork(seq);
    engine.truncate(copy, 333);
    append(copy, 90);
    attend(copy);
    engine.reclaim(seq, {.tokens_before = 600});
    attend(seq);
    engine.reclaim(seq);
    attend(copy);
    return all;
  };
  CHECK(results_of(on_drive) == results_of(in_memory));
  CHECK(on_drive.pages().bytes_read() > 0);
}

TEST_CASE("layers of two kinds are committed as one, and reopened with the bits of the commit") {
  const test::own_folder folder;
  const auto open = [&](std::vector<std::uint32_t> kind_of_layer = {0, 1}) {
    drive_files::options options = small_buffers();
    options.folders = {folder.path()};
    options.name = "m";
    return two_kinds<drive_files>(std::move(kind_of_layer), kinds, room, pages_on(options));
  };
  two_kinds<store::memory> expected({0, 1}, kinds, room, channels);
  // Step n of an engine; at the end of each there is another sequence in slot 1.
  const auto step = [](auto& engine, unsigned n) {
    std::mt19937 random(n);
    const auto append = [&](sequence seq, std::size_t tokens) {
      for (int l = 0; l < 2; ++l) {
        engine.append(seq, l, drawn(random, tokens), drawn(random, tokens));
      }
    };
    const sequence seq = n == 0 ? engine.open() : engine.sequences().at(0);
    append(seq, 200 + random() % 100);
    if (n > 0) {
      engine.reclaim(engine.sequences().at(1));
    }
    const sequence fork = engine.fork(seq);
    append(fork, 33);
    engine.reclaim(seq, {.end_layer = 1, .tokens_before = engine.positions(seq, 0) - 100});
    if (n == 1) {  // handles of its parts differ from its own
      std::stringstream file;
      engine.save(fork, file);
      engine.reclaim(fork);
      const sequence loaded = engine.open();
      engine.load(loaded, file);
    }
  };
  const auto seen = [](auto& engine) {
    std::mt19937 random(8);
    std::vector<float> all, out(6 * 64);
    for (const sequence seq : engine.sequences()) {
      all.push_back(static_cast<float>(seq.slot));
      all.push_back(static_cast<float>(seq.generation));
      for (int l = 0; l < 2; ++l) {
        all.push_back(static_cast<float>(engine.positions(seq, l)));
        engine.attend(seq, l, drawn_q(random), out);
        all.insert(all.end(), out.begin(), out.end());
      }
    }
    return all;
  };
  for (unsigned n = 0; n < 4; ++n) {
    CAPTURE(n);
    two_kinds<drive_files> engine = open();
    REQUIRE(seen(engine) == seen(expected));
    CHECK(engine.pages().free_pages() == expected.pages().free_pages());
    step(engine, n);
    step(expected, n);
    engine.commit();
    CHECK(engine.pages().commits() == n + 1);
    step(engine, n + 1);  // which no commit has
  }
  CHECK(test::refusal_of<bad_file>([&] { open({1, 0}); }) ==
        "reopen: the drive is of another cache: it has \"kinds of layers: 0 1\", the engine "
        "\"kinds of layers: 1 0\"");
  two_kinds<drive_files> engine = open();
  for (const sequence seq : engine.sequences()) {
    engine.reclaim(seq);
  }
  engine.commit();
  CHECK(engine.pages().free_pages() == engine.pages().capacity_pages());
}

TEST_CASE("parts of sequences that do not fit are refused") {
  const auto slot = [](std::uint32_t n) { return sequence{n, 7, nullptr}; };
  const std::vector<std::vector<sequence>> of_kinds{{slot(0), slot(2)}, {slot(1), slot(3)}};
  const auto read = [&](const std::vector<std::uint32_t>& slots) {
    sequence_parts_reader parts(of_kinds, slots);
    std::vector<sequence> all = parts.next();
    const std::vector<sequence> second = parts.next();
    all.insert(all.end(), second.begin(), second.end());
    parts.require_all();
    return all;
  };
  CHECK(read({2, 1, 0, 3}) == std::vector{slot(2), slot(1), slot(0), slot(3)});
  const auto refusal = [&](const std::vector<std::uint32_t>& slots) {
    return test::refusal_of<bad_file>([&] { read(slots); });
  };
  const std::string no_part = "reopen: a sequence has no part of its own in each kind of layer";
  CHECK(refusal({2, 1, 2, 3}) == no_part);
  CHECK(refusal({2, 1, 0}) == no_part);
  CHECK(refusal({3, 1, 0, 3}) == no_part);
  const std::string left = "reopen: a kind of layer has a sequence that the engine does not have";
  CHECK(refusal({2, 1, 0, 3, 0}) == left);
  const std::vector<std::uint32_t> one{2, 1};
  sequence_parts_reader parts(of_kinds, one);
  parts.next();
  CHECK(test::refusal_of<bad_file>([&] { parts.require_all(); }) == left);
}

TEST_CASE("a read error ends one attend, and the next one works") {
  test::faulty_calls calls;
  drive_files::options options = small_buffers();
  options.calls = &calls;
  engine_of<insta_sparf, cpu::path, drive_files> e(shape, room, pages_on(options));
  std::mt19937 random(2);
  const sequence seq = e.open();
  e.append(seq, 0, drawn(random, 700), drawn(random, 700));
  const std::vector<float> q = drawn_q(random);
  const std::vector<float> expected = attend(e, seq, 0, q, parallel::serial{});
  // The n-th read fails, for n = 0, 1, ... until an attend makes fewer reads.
  int n = 0;
  for (;; ++n) {
    std::vector<float> out(q.size(), 7.0f);
    calls.fail(test::call::read, n, -EIO);
    try {
      e.attend(seq, 0, q, out);
      break;
    } catch (const io_error& error) {
      CHECK(error.code == EIO);
      CHECK(out == std::vector<float>(q.size(), 7.0f));
    }
    calls.stop_failing();
    CHECK(attend(e, seq, 0, q, parallel::serial{}) == expected);
  }
  CHECK(n >= 6);  // at least K by dim, K and V of two heads
}

TEST_CASE("an append that the drive refuses is read from memory, and the next one is refused") {
  test::faulty_calls calls;
  drive_files::options options = small_buffers();
  options.calls = &calls;
  engine_of<insta, cpu::path, drive_files> e(shape, room, pages_on(options));
  engine_of<insta, cpu::path, store::memory> expected(shape, room, {}, {}, channels);
  std::mt19937 random(3);
  const sequence seq = e.open();
  const sequence same = expected.open();
  const std::vector<fp16> k = drawn(random, 900);
  const std::vector<fp16> v = drawn(random, 900);
  const std::vector<float> q = drawn_q(random);
  calls.fail(test::call::write, 1, -EIO, INT_MAX);
  e.append(seq, 0, k, v);
  expected.append(same, 0, k, v);
  CHECK(attend(e, seq, 0, q, parallel::serial{}) ==
        attend(expected, same, 0, q, parallel::serial{}));
  CHECK(e.pages().kept_pages() > 0);

  const std::uint64_t free_pages = e.pages().free_pages();
  CHECK_THROWS_AS(e.append(seq, 0, k, v), io_error);
  CHECK(e.tokens(seq, 0) == 900);
  CHECK(e.pages().free_pages() == free_pages);
  CHECK(attend(e, seq, 0, q, parallel::serial{}) ==
        attend(expected, same, 0, q, parallel::serial{}));

  calls.stop_failing();
  e.append(seq, 0, k, v);
  expected.append(same, 0, k, v);
  CHECK(e.pages().kept_pages() == 0);
  CHECK(attend(e, seq, 0, q, parallel::serial{}) ==
        attend(expected, same, 0, q, parallel::serial{}));
}

}  // namespace instinfer::test_drive_engine
