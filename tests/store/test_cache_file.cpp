// A sequence that was saved and loaded goes on bit by bit, with every summary there is; damaged and
// foreign files are refused.

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <random>
#include <sstream>
#include <streambuf>

#include "instinfer/codec/scaled_pages.hpp"
#include "instinfer/flash/engine.hpp"
#include "tests/support/normals.hpp"
#include "tests/support/refusal.hpp"
#include "tests/support/saved_engine.hpp"

namespace instinfer::test_cache_file {

namespace {

void check_says(const std::string& message, const std::string& part) {
  INFO(message);
  CHECK(message.find(part) != std::string::npos);
}

// Another sequence takes pages and loses some, another keeps its own.
void use_other_pages(engine_type& engine) {
  decoder before(engine, engine.open(), 99);
  decoder beside(engine, engine.open(), 98);
  before.append(0, 50);
  beside.append(0, 30);
  beside.append(1, 33);
  engine.reclaim(before.seq);
}

// `by_tokens`: the method answers by the tokens alone, not by what was built and attended before.
void check_goes_on(const any_method& policy, bool by_tokens, std::uint32_t reclaimed = 0) {
  engine_type first(shape, room, policy);
  decoder a(first, first.open(), 1);
  a.begin(reclaimed);

  engine_type second(shape, room, policy);
  use_other_pages(second);
  const std::uint64_t free_before = second.cache().pages().free_pages();
  decoder b(second, second.open(), 1);
  const std::string file = saved(first, a.seq);
  std::istringstream in(file);
  const traffic loaded = second.load(b.seq, in, "model A").traffic;
  CHECK(saved(second, b.seq) == file);
  CHECK(loaded.pages_written == free_before - second.cache().pages().free_pages());
  CHECK(loaded.pages_written == second.written().size());
  CHECK(loaded.written_bytes == 512 * second.written().size());
  CHECK(loaded.link_bytes == file.size());
  CHECK(second.tokens(b.seq, 1) == first.tokens(a.seq, 1));
  // What no output shows.
  CHECK(state_of<attention::page_bounds<16>>(second, b.seq).bytes() ==
        state_of<attention::page_bounds<16>>(first, a.seq).bytes());
  for (std::uint32_t token = reclaimed; token < first.tokens(a.seq, 1); ++token) {
    REQUIRE(state_of<attention::cluster_index>(second, b.seq).position(token) ==
            state_of<attention::cluster_index>(first, a.seq).position(token));
  }

  // The same tokens, without what came between.
  engine_type third(shape, room, policy);
  decoder c(third, third.open(), 1);
  c.attends = c.with_index_keys = false;
  c.begin(reclaimed);
  c.attends = true;

  b.random = a.random;
  for (int i = 0; i < 70; ++i) {
    CAPTURE(i);
    const std::vector<float> expected = a.step();
    REQUIRE(b.step() == expected);
    if (i == 0) {
      CHECK((c.step() == expected) == by_tokens);
    }
    if (i == 35) {
      CHECK(first.build(a.seq, 1).traffic == second.build(b.seq, 1).traffic);
    }
    if (i == 40 && reclaimed > 0) {
      first.reclaim(a.seq, {.tokens_before = reclaimed + 170});
      second.reclaim(b.seq, {.tokens_before = reclaimed + 170});
    }
  }
  CHECK(saved(second, b.seq) == saved(first, a.seq));
  second.reclaim(b.seq);
  CHECK(second.cache().pages().free_pages() == free_before);
}

const attention::retro_infer small_retro{.window = 16,
                                         .retrieved = 0.1,
                                         .estimated = 0.3,
                                         .cluster_tokens = 8,
                                         .segment_tokens = 128,
                                         .update_tokens = 32};

}  // namespace

TEST_CASE("a loaded sequence goes on bit by bit") {
  SUBCASE("sparf: K by dim, mean of V") { check_goes_on({attention::sparf{}}, true); }
  SUBCASE("sparf after old tokens went") { check_goes_on({attention::sparf{}}, true, 130); }
  SUBCASE("quest: page bounds") {
    check_goes_on({attention::basic_quest<16>{.keep_pages = 0.2, .dense_layers = 0}}, true);
  }
  SUBCASE("squeezed: two levels of clusters") {
    check_goes_on(
        {attention::squeezed{
            .threshold = 0.01, .coarse_threshold = 0.02, .coarse_clusters = 0.02, .window = 20}},
        false);
  }
  SUBCASE("retro_infer: clusters that grow, wave buffer") { check_goes_on({small_retro}, false); }
  SUBCASE("h2o: heavy hitters") {
    check_goes_on({attention::h2o{.heavy = 40, .recent = 40}}, false);
  }
  SUBCASE("h2o after old tokens went") {
    check_goes_on({attention::h2o{.heavy = 40, .recent = 40}}, false, 130);
  }
  // Two tokens leave the window with every other query, the first after the load among them.
  const attention::hgca hgca{.window = 64, .block = 1, .salience = {.beta = 0.3, .least_kept = 1}};
  SUBCASE("hgca: moving weights") { check_goes_on({hgca}, false); }
  SUBCASE("hgca after old tokens went, to be judged anew") {
    attention::hgca judging = hgca;
    judging.judge_every = 9;
    check_goes_on({judging}, false, 130);
  }
  SUBCASE("misa: index keys and their block means") {
    check_goes_on({attention::basic_misa<64, 32>{.keep_tokens = budget::at_most(50)}}, false);
  }
}

namespace {

const model_shape one_head{.layers = 1, .q_heads = 2, .kv_heads = 1};

// An engine with a sequence of 41 tokens: sealed pages and open ones of each stream, and every
// summary with something in it.
struct small_engine {
  explicit small_engine(const store::capacity& capacity = room, const model_shape& of = one_head)
      : engine(of, capacity, {small_retro}), seq{engine.open()} {}

  void fill() {
    std::mt19937 random(7);
    const auto draw = [&]<class E>(std::vector<E> x) {
      for (E& value : x) {
        value = from_float<E>(static_cast<float>(random() % 128) / 64 - 1);
      }
      return x;
    };
    const auto k = draw(std::vector<fp16>(41 * 64));
    engine.append(seq, 0, k, draw(k), draw(std::vector<float>(41 * 64)));
    engine.build(seq, 0);
    std::vector<float> out(2 * 64);
    engine.attend(seq, 0, draw(out), out);
  }
  void load(const std::string& file, std::string_view model = "model A") {
    std::istringstream in(file);
    engine.load(seq, in, model);
  }
  std::uint64_t free_pages() const { return engine.cache().pages().free_pages(); }

  engine_type engine;
  sequence seq;
};

std::string small_file() {
  small_engine e;
  e.fill();
  return saved(e.engine, e.seq);
}

// The file is refused, and the engine is as before: it loads the good one.
template <class Error = bad_file>
std::string refusal(small_engine& e, const std::string& file, const std::string& good,
                    std::string_view model = "model A") {
  const std::uint64_t free_before = e.free_pages();
  const std::string message = test::refusal_of<Error>([&] { e.load(file, model); });
  CHECK(e.free_pages() == free_before);
  CHECK(e.engine.written().empty());
  CHECK(e.engine.tokens(e.seq, 0) == 0);
  if (!good.empty()) {
    e.load(good);
    CHECK(saved(e.engine, e.seq) == good);
    e.engine.reclaim(e.seq);
    e.seq = e.engine.open();
  }
  return message;
}

}  // namespace

TEST_CASE(
    "a file that ends anywhere too early is refused, and so is one with a changed byte anywhere") {
  const std::string good = small_file();
  small_engine e;
  const sequence other = e.engine.open();
  e.engine.append(other, 0, std::vector<fp16>(50 * 64), std::vector<fp16>(50 * 64),
                  std::vector<float>(50 * 64));
  for (std::size_t length = 0; length < good.size(); ++length) {
    CAPTURE(length);
    REQUIRE(refusal(e, good.substr(0, length), "") != "no error of this kind");
  }
  std::mt19937 random(3);
  for (std::size_t at = 0; at < good.size(); ++at) {
    CAPTURE(at);
    std::string damaged = good;
    damaged[at] = static_cast<char>(damaged[at] ^ static_cast<char>(1u << random() % 8));
    REQUIRE(refusal(e, damaged, "") != "no error of this kind");
  }
  check_says(refusal(e, good.substr(0, 1000), good), "truncated, it ends after 1000 bytes");
  std::string damaged = good;
  damaged[good.size() - 100] ^= 1;
  check_says(refusal(e, damaged, good),
             "damaged somewhere before byte " + std::to_string(good.size()));
}

TEST_CASE("files of others are refused by name") {
  const std::string good = small_file();
  small_engine e;
  std::string other = good;
  other[3] = 'x';
  check_says(refusal(e, other, good), "not a cache file");
  check_says(refusal(e, "a text that somebody took for a cache", good), "not a cache file");
  other = good;
  other[8] = 9;
  check_says(refusal(e, other, good), "version 9, this library reads version 3");
  other = good;
  std::reverse(other.begin() + 8, other.begin() + 12);   // version
  std::reverse(other.begin() + 12, other.begin() + 16);  // byte order
  check_says(refusal(e, other, good), "another byte order");
  check_says(refusal(e, good, good, "model B"),
             "it has \"model: model A\", the engine \"model: model B\"");

  small_engine wider(room, {.layers = 1, .q_heads = 4, .kv_heads = 2});
  check_says(refusal(wider, good, ""), "\"query heads: 2\", the engine \"query heads: 4\"");
  small_engine longer({.bytes = 4 << 20, .context_tokens = 4096});
  check_says(refusal(longer, good, ""),
             "\"K by dim: 32 tokens x 8 dims a page, strides 1 and 32\"");
  check_says(
      refusal(longer, good, ""),
      "another context: context_tokens = 128 would do, the engine's is 4096: it has \"K by dim");

  // Engines of other formats and summaries, as far as files know them.
  using mean = attention::mean_value::state<format>;
  store::kv_cache<format, layout_type, std::tuple<mean>, store::memory> other_method(one_head, room,
                                                                                     8);
  std::vector<page_id> written;
  const auto load = [&](auto& cache) {
    std::istringstream in(good);
    store::load(cache, cache.open(), "model A", in, written);
  };
  check_says(
      test::refusal_of<bad_file>([&] { load(other_method); }),
      "page_bounds of 16, cluster_index, cluster_tree, wave_buffer, heavy_hitters, "
      "moving_weights, index_keys of 64 dims in blocks of 32\", the engine \"summaries: mean_value\"");
  using int8 = kv_format<int8_pages<fp16>, 64>;
  store::kv_cache<int8, layout_type, std::tuple<>, store::memory> coded(one_head, room, 8);
  check_says(test::refusal_of<bad_file>([&] { load(coded); }),
             "\"stored as: fp16\", the engine \"stored as: int8\"");
}

// Each word of 8 bytes is mixed in by xor, times 2^64 / golden ratio, rotated by 29; the first
// value is 1. The numbers come from Python.
TEST_CASE("checksums are those of the definition, so that files of other builds can be read") {
  const std::array<std::byte, 8> zeros{};
  store::checksum of_zeros;
  of_zeros.add(zeros);
  CHECK(of_zeros.value() == 0x2FE9'4F82'B3C6'EF37u);
  std::array<std::byte, 10> bytes;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = static_cast<std::byte>(i + 1);
  }
  store::checksum of_bytes;
  of_bytes.add(bytes);  // the last word is filled with zeros
  CHECK(of_bytes.value() == 0x6214'B88B'7A12'B9DFu);
}

TEST_CASE("load refuses what it cannot do, and leaves everything as it was") {
  const std::string good = small_file();
  small_engine full;
  std::vector<fp16> k(4 * 64);
  while (full.free_pages() > 20) {  // the file has 30 pages
    full.engine.append(full.seq, 0, k, k, std::vector<float>(4 * 64));
  }
  const sequence empty = full.engine.open();
  const std::uint64_t free_before = full.free_pages();
  std::istringstream in(good);
  check_says(test::refusal_of<drive_full>([&] { full.engine.load(empty, in, "model A"); }),
             "load: the sequence needs");
  CHECK(full.free_pages() == free_before);
  CHECK(full.engine.tokens(empty, 0) == 0);

  in.seekg(0);
  check_says(test::refusal_of<bad_argument>([&] { full.engine.load(full.seq, in, "model A"); }),
             "tokens already; open another one");
  CHECK(in.tellg() == 0);
  full.engine.reclaim(full.seq);
  CHECK_THROWS_AS(full.engine.load(full.seq, in, "model A"), unknown_sequence);
  CHECK_THROWS_AS(saved(full.engine, full.seq), unknown_sequence);
  full.engine.load(empty, in, "model A");
  CHECK(saved(full.engine, empty) == good);

  small_engine near(
      {.bytes = 4 << 20, .context_tokens = 64, .address = address_codec({.token = 8})});
  CHECK_FALSE(refusal<address_overflow>(near, good, "").empty());

  std::ifstream missing("there is no such file");
  check_says(test::refusal_of<bad_file>([&] { near.engine.load(near.seq, missing, "model A"); }),
             "was it opened?");
}

TEST_CASE("save says when the stream does not take it") {
  struct small_disk : std::streambuf {
    int left = 5000;
    int overflow(int c) override { return left-- > 0 ? c : traits_type::eof(); }
  } disk;
  std::ostream out(&disk);
  small_engine e;
  e.fill();
  check_says(test::refusal_of<bad_file>([&] { e.engine.save(e.seq, out); }), "is the disk full?");
  CHECK(saved(e.engine, e.seq) == small_file());
}

TEST_CASE("one stream may have many sequences, also empty ones") {
  small_engine e;
  const std::string empty = saved(e.engine, e.seq);
  e.fill();
  const std::string full = saved(e.engine, e.seq);
  std::istringstream in(empty + full + full + "and more");
  small_engine to;
  for (const std::string& expected : {empty, full, full}) {
    const sequence seq = to.engine.open();
    to.engine.load(seq, in, "model A");
    CHECK(saved(to.engine, seq) == expected);
  }
  std::string rest;
  std::getline(in, rest);
  CHECK(rest == "and more");
}

TEST_CASE("pages of a codec go as they are") {
  using int8 = kv_format<int8_pages<fp16>, 64>;
  using coded_engine = engine_of<attention::sparf, int8>;
  coded_engine first(one_head, room);
  coded_engine second(one_head, room);
  const sequence a = first.open();
  const sequence b = second.open();
  std::mt19937 random(5);
  normal_distribution normal;
  const auto draw = [&]<class E>(std::vector<E> x) {
    for (E& value : x) {
      value = from_float<E>(normal(random));
    }
    return x;
  };
  const std::vector<fp16> prompt = draw(std::vector<fp16>(101 * 64));
  first.append(a, 0, prompt, draw(prompt));
  std::stringstream file;
  first.save(a, file);
  second.load(b, file);
  for (int i = 0; i < 80; ++i) {
    const auto k = draw(std::vector<fp16>(64));
    const auto v = draw(k);
    const auto q = draw(std::vector<float>(2 * 64));
    first.append(a, 0, k, v);
    second.append(b, 0, k, v);
    std::vector<float> expected(q.size());
    std::vector<float> out(q.size());
    first.attend(a, 0, q, expected);
    second.attend(b, 0, q, out);
    REQUIRE(out == expected);
  }
}

// Engines whose store has no data have nothing to save.
template <class E>
concept Saves = requires(E& e, sequence seq, std::ostream& out, std::istream& in) {
  e.save(seq, out);
  e.load(seq, in);
};
static_assert(Saves<engine_type>);
static_assert(!Saves<flash::engine<insta>::inner_type>);

}  // namespace instinfer::test_cache_file
