// Layers that differ: one drive, one budget and one handle over layers of two kinds. A plain model
// of vectors says what is right.

#include <doctest/doctest.h>

#include <random>
#include <sstream>
#include <vector>

#include "instinfer/engine/layered_engine.hpp"
#include "instinfer/flash.hpp"
#include "instinfer/reference.hpp"
#include "tests/support/definitions.hpp"
#include "tests/support/normals.hpp"

namespace instinfer::test_layered_engine {

namespace {

using point =
    design<attention::dense, layout::token_indexed<>, flash::instcsd, transfer::in_storage>;
template <class Format, class Store>
using reference_engine = engine<point, Format, reference::path, Store>;
template <class Format, class Store>
using timed_engine =
    flash::engine<point, Format, flash::random_selection, flash::data_out_first, Store>;

using narrow = kv_format<fp16, 32>;
using wide = kv_format<fp16, 64>;
constexpr std::uint32_t window = 40;
// Four query heads over two KV heads of 32 dims with a window, then two over one of 64 dims.
constexpr std::array<layer_kind, 2> kinds{layer_kind{4, 2, {.window = window}}, layer_kind{2, 1}};
const std::vector<std::uint32_t> kind_of_layer{0, 0, 1, 0};

using engine_type = layered_engine<reference_engine, store::memory, narrow, wide>;

struct layer_values {  // of one layer of one sequence, in vectors
  int kv_heads, q_heads, dim, window;
  std::vector<fp16> k, v;  // [tokens, kv_heads, dim]

  void check(engine_type& engine, sequence seq, int layer, std::mt19937& random) const {
    normal_distribution normal;
    std::vector<float> q(static_cast<std::size_t>(q_heads * dim));
    for (float& x : q) {
      x = normal(random);
    }
    std::vector<float> out(q.size());
    engine.attend(seq, layer, q, out);
    const auto tokens = static_cast<Eigen::Index>(k.size()) / (kv_heads * dim);
    for (int h = 0; h < q_heads; ++h) {
      test::matrix K(tokens, dim), V(tokens, dim);
      const int kv_head = h / (q_heads / kv_heads);
      for (Eigen::Index t = 0; t < tokens; ++t) {
        for (int i = 0; i < dim; ++i) {
          const auto at = static_cast<std::size_t>((t * kv_heads + kv_head) * dim + i);
          K(t, i) = static_cast<double>(to_float(k[at]));
          V(t, i) = static_cast<double>(to_float(v[at]));
        }
      }
      test::row_vector query(dim);
      for (int i = 0; i < dim; ++i) {
        query[i] = static_cast<double>(q[static_cast<std::size_t>(h * dim + i)]);
      }
      test::no_rule rule;
      rule.window = window;
      const test::row_vector expected = test::defined_attention(query, K, V, rule);
      for (int i = 0; i < dim; ++i) {
        CHECK(static_cast<double>(out[static_cast<std::size_t>(h * dim + i)]) ==
              doctest::Approx(expected[i]).epsilon(1e-5).scale(1));
      }
    }
  }
};

layer_values values_of(int layer) {
  return layer == 2 ? layer_values{1, 2, 64, 0, {}, {}}
                    : layer_values{2, 4, 32, static_cast<int>(window), {}, {}};
}

void append(engine_type& engine, sequence seq, int layer, layer_values& to, int count,
            std::mt19937& random) {
  normal_distribution normal;
  std::vector<fp16> k(static_cast<std::size_t>(count * to.kv_heads * to.dim));
  std::vector<fp16> v(k.size());
  for (auto* x : {&k, &v}) {
    for (fp16& value : *x) {
      value = from_float<fp16>(normal(random));
    }
  }
  engine.append(seq, layer, k, v);
  to.k.insert(to.k.end(), k.begin(), k.end());
  to.v.insert(to.v.end(), v.begin(), v.end());
}

}  // namespace

TEST_CASE("layers of two kinds attend as their own vectors say, under one handle") {
  engine_type engine(kind_of_layer, kinds, {.bytes = 4 << 20, .context_tokens = 256},
                     point::drive.geometry.channels);
  std::mt19937 random(1);
  const sequence gone = engine.open();
  const sequence seqs[] = {engine.open(), engine.open()};
  engine.reclaim(gone);
  std::vector<std::vector<layer_values>> model(2);
  for (auto& layers : model) {
    for (int l = 0; l < engine.layers(); ++l) {
      layers.push_back(values_of(l));
    }
  }
  for (const int count : {1, 100, 57}) {
    for (std::size_t s = 0; s < 2; ++s) {
      for (int l = 0; l < engine.layers(); ++l) {
        append(engine, seqs[s], l, model[s][static_cast<std::size_t>(l)], count + l, random);
        model[s][static_cast<std::size_t>(l)].check(engine, seqs[s], l, random);
      }
    }
  }
  CHECK(engine.tokens(seqs[1], 2) == 158 + 3 * 2);
  CHECK_THROWS_AS(engine.tokens(gone, 2), unknown_sequence);
  CHECK_THROWS_AS(engine.tokens(sequence{}, 2), unknown_sequence);

  // A handle opened anew gets the free place in every kind.
  const sequence again = engine.open();
  CHECK(again.slot == gone.slot);
  CHECK_THROWS_AS(engine.positions(gone, 2), unknown_sequence);
  CHECK(engine.positions(again, 2) == 0);
  layer_values of_again = values_of(2);
  append(engine, again, 2, of_again, 70, random);
  of_again.check(engine, again, 2, random);
  model[0][2].check(engine, seqs[0], 2, random);
}

TEST_CASE("a batch of a layer goes to the layer's kind") {
  engine_type engine(kind_of_layer, kinds, {.bytes = 4 << 20, .context_tokens = 256},
                     point::drive.geometry.channels);
  std::mt19937 random(2);
  const sequence seqs[] = {engine.open(), engine.open()};
  layer_values a = values_of(2), b = values_of(2);
  append(engine, seqs[0], 2, a, 33, random);
  append(engine, seqs[1], 2, b, 65, random);
  std::vector<float> q(128, 0.5f), both(256), alone(128);
  const attend_request batch[] = {{seqs[1], q, std::span(both).first(128)},
                                  {seqs[0], q, std::span(both).last(128)}};
  engine_type::scratch work;
  engine.attend(batch, 2, work, parallel::serial{});
  engine.attend(seqs[1], 2, q, alone);
  CHECK(std::equal(alone.begin(), alone.end(), both.begin()));
  engine.attend(seqs[0], 2, q, alone);
  CHECK(std::equal(alone.begin(), alone.end(), both.begin() + 128));
}

TEST_CASE("prefill and decode of a layer go to its kind, and have the bits of append and attend") {
  const store::capacity capacity{.bytes = 4 << 20, .context_tokens = 256};
  engine_type in_one(kind_of_layer, kinds, capacity, point::drive.geometry.channels);
  engine_type apart(kind_of_layer, kinds, capacity, point::drive.geometry.channels);
  const sequence a = in_one.open();
  const sequence b = apart.open();
  for (int l = 0; l < 3; ++l) {
    const auto tokens = std::size_t{40};
    std::vector<fp16> k(tokens * 64), v(k.size());  // both kinds have 64 values a token
    for (std::size_t i = 0; i < k.size(); ++i) {
      k[i] = from_float<fp16>(static_cast<float>(i % 13) * 0.25f - 1.0f);
      v[i] = from_float<fp16>(static_cast<float>(i % 7));
    }
    const auto prompt = std::span<const fp16>(k).first(39 * 64);
    const auto of_v = std::span<const fp16>(v).first(39 * 64);
    in_one.prefill(a, l, prompt, of_v);
    apart.append(b, l, prompt, of_v);
    std::vector<float> q(128, 0.5f), out(128), expected(128);
    in_one.decode(a, l, std::span(k).last(64), std::span(v).last(64), q, out);
    apart.append(b, l, std::span(k).last(64), std::span(v).last(64));
    apart.attend(b, l, q, expected);
    CHECK(out == expected);

    engine_type::scratch work;
    const new_tokens<fp16> rows{std::span(k).first(64), std::span(v).first(64)};
    const attend_request queries{a, q, out};
    in_one.decode({&rows, 1}, {&queries, 1}, l, work, parallel::serial{});
    apart.append(b, l, rows.k, rows.v);
    apart.attend(b, l, q, expected);
    CHECK(out == expected);
    CHECK(in_one.tokens(a, l) == 41);
  }
  in_one.set_policy(in_one.attention());  // goes to all kinds
}

TEST_CASE("all kinds take pages and group buffer from one budget") {
  // 64 pages. A token of a narrow layer takes 128 bytes of K: 64 tokens a page of a head, two
  // heads, K and V; a wide one 32 tokens a page of one head.
  const store::capacity small{.bytes = 64 * 4096, .context_tokens = 256, .buffer_bytes = 100'000};
  layered_engine<timed_engine, store::ledger, narrow, wide> engine(kind_of_layer, kinds, small,
                                                                   point::drive.geometry.channels);
  const sequence seq = engine.open();
  engine.append_count(seq, 0, 64 * 8);
  CHECK(engine.pages().free_pages() == 64 - 8 * 4);
  engine.append_count(seq, 2, 32 * 15);
  CHECK(engine.pages().free_pages() == 2);
  CHECK_THROWS_AS(engine.append_count(seq, 1, 64), drive_full);
  CHECK_THROWS_AS(engine.append_count(seq, 2, 64), drive_full);
  engine.append_count(seq, 2, 32);
  CHECK(engine.pages().free_pages() == 0);

  // A window of 40 needs no token before the last 40. The range goes over layers of both kinds.
  CHECK_THROWS_AS(
      engine.reclaim(seq, {.first_layer = 0, .end_layer = 3, .tokens_before = 64 * 8 - 40}),
      bad_argument);  // layer 1 has no tokens
  CHECK(engine.pages().free_pages() == 0);
  engine.reclaim(seq, {.first_layer = 0, .end_layer = 1, .tokens_before = 64 * 8 - 40});
  CHECK(engine.pages().free_pages() == 7 * 4);
  CHECK(engine.tokens(seq, 0) == 40);
  engine.reclaim(seq);
  CHECK(engine.pages().free_pages() == 64);

  layered_engine<reference_engine, store::memory, narrow, wide> buffered(
      kind_of_layer, kinds,
      {.bytes = 64 * 4096, .context_tokens = 256, .buffer_bytes = 2 * 2 * 4 * 64 + 2 * 4 * 128},
      point::drive.geometry.channels);
  const sequence b = buffered.open();
  const std::vector<fp16> rows(64);
  buffered.append(b, 0, rows, rows);
  buffered.append(b, 2, rows, rows);  // and now the buffer is full
  CHECK_THROWS_AS(buffered.append(b, 1, rows, rows), drive_full);
  CHECK(buffered.positions(b, 1) == 0);
}

TEST_CASE("fork and truncate go through all kinds, or through none") {
  engine_type engine(kind_of_layer, kinds, {.bytes = 4 << 20, .context_tokens = 256},
                     point::drive.geometry.channels);
  std::mt19937 random(3);
  const sequence seq = engine.open();
  std::vector<layer_values> model;
  for (int l = 0; l < engine.layers(); ++l) {
    model.push_back(values_of(l));
    append(engine, seq, l, model.back(), 150, random);
  }
  const sequence copy = engine.fork(seq);
  std::vector<layer_values> of_copy = model;
  const auto receipts = engine.truncate(seq, 70);
  // Token 70 cuts a page of K and one of V of each head.
  REQUIRE(receipts.size() == 4);
  for (std::size_t l = 0; l < 4; ++l) {
    CHECK(receipts[l].traffic.pages_read == (l == 2 ? 2 : 4));
  }
  CHECK(engine.truncate(copy, {.first_layer = 1, .end_layer = 3, .tokens = 150}).size() == 2);
  for (layer_values& of : model) {
    of.k.resize(static_cast<std::size_t>(70 * of.kv_heads * of.dim));
    of.v.resize(of.k.size());
  }
  for (int l = 0; l < engine.layers(); ++l) {
    const auto at = static_cast<std::size_t>(l);
    CHECK(engine.positions(seq, l) == 70);
    append(engine, seq, l, model[at], 20, random);
    append(engine, copy, l, of_copy[at], 9, random);
    model[at].check(engine, seq, l, random);
    of_copy[at].check(engine, copy, l, random);
  }
  append(engine, copy, 2, of_copy[2], 1, random);
  CHECK_THROWS_AS(engine.truncate(copy, 160), bad_argument);  // the other layers have 159
  CHECK(engine.positions(copy, 2) == 160);
  engine.reclaim(seq);
  of_copy[0].check(engine, copy, 0, random);
  of_copy[2].check(engine, copy, 2, random);
}

TEST_CASE("a given store replaces the bytes of the capacity") {
  engine_type engine(kind_of_layer, kinds, {.bytes = 0, .context_tokens = 256},
                     store::memory(2, 3, 4096));
  CHECK(engine.pages().capacity_pages() == 6);
  const sequence seq = engine.open();
  const std::vector<fp16> rows(64 * 64);
  engine.append(seq, 2, rows, rows);  // two pages of K, two of V
  CHECK(engine.pages().free_pages() == 2);
  CHECK_THROWS_AS(engine.append(seq, 0, rows, rows), drive_full);  // two heads: four pages
}

TEST_CASE("save and load: all kinds, or none") {
  std::mt19937 random(4);
  const store::capacity room{.bytes = 4 << 20, .context_tokens = 256};
  engine_type engine(kind_of_layer, kinds, room, point::drive.geometry.channels);
  const sequence seq = engine.open();
  std::vector<layer_values> model;
  for (int l = 0; l < engine.layers(); ++l) {
    model.push_back(values_of(l));
    append(engine, seq, l, model.back(), 100 + l, random);
  }
  std::ostringstream out;
  engine.save(seq, out, "mine");
  const std::string file = out.str();

  engine_type other(kind_of_layer, kinds, room, point::drive.geometry.channels);
  const sequence to = other.open();
  const std::uint64_t free_pages = other.pages().free_pages();
  for (const std::size_t cut : {file.size() - 1, file.size() / 2, std::size_t{1}}) {
    std::istringstream half(file.substr(0, cut));
    CHECK_THROWS_AS(other.load(to, half, "mine"), bad_file);
    CHECK(other.pages().free_pages() == free_pages);
    CHECK(other.positions(to, 0) == 0);
  }
  std::istringstream in(file);
  other.load(to, in, "mine");
  for (int l = 0; l < engine.layers(); ++l) {
    model[static_cast<std::size_t>(l)].check(other, to, l, random);
  }
  std::istringstream again(file);
  CHECK_THROWS_WITH_AS(other.load(to, again, "mine"),
                       "load: the sequence has 100 tokens already; open another one", bad_argument);

  engine_type mixed_up({0, 1, 1, 0}, kinds, room, point::drive.geometry.channels);
  const sequence wrong = mixed_up.open();
  std::istringstream of_others(file);
  CHECK_THROWS_WITH_AS(mixed_up.load(wrong, of_others, "mine"),
                       "load: layer 1 of the file is of kind 0, the engine's of kind 1", bad_file);
  CHECK(mixed_up.pages().free_pages() == free_pages);
  CHECK(mixed_up.positions(wrong, 0) == 0);
}

TEST_CASE("endless: a visible set counts from where the layer's numbers begin") {
  // Addresses for 6 pages: 192 tokens of a wide layer have numbers.
  engine_type engine(
      kind_of_layer, kinds,
      {.bytes = 4 << 20, .context_tokens = 256, .address = address_codec({.token = 6})},
      point::drive.geometry.channels);
  const sequence seq = engine.open();
  const std::vector<fp16> k(10 * 64);  // equal keys: the output is the mean of V
  std::uint64_t tokens = 0;
  for (int round = 0; round < 60; ++round) {
    std::vector<fp16> v;
    for (std::uint64_t end = tokens + 10; tokens < end; ++tokens) {
      v.insert(v.end(), 64, from_float<fp16>(static_cast<float>(tokens)));
    }
    engine.append(seq, 2, k, v);
    engine.reclaim(seq, {.first_layer = 2, .end_layer = 3, .tokens_before = tokens - 10});
  }
  REQUIRE(engine.positions(seq, 2) == 600);
  const std::uint64_t from = engine.numbered_from(seq, 2);
  CHECK(from > 600 - 192);
  CHECK(from <= 590);
  CHECK(engine.numbered_from(seq, 1) == 0);
  index_set shown;
  for (const std::uint32_t position : {591u, 592u, 599u}) {
    shown.add(static_cast<std::uint32_t>(position - from));
  }
  const std::vector<float> q(128, 1.0f);
  std::vector<float> out(128);
  const attend_request request{.seq = seq, .q = q, .out = out, .visible = &shown};
  engine_type::scratch work;
  engine.attend({&request, 1}, 2, work, parallel::serial{});
  CHECK(out[0] == doctest::Approx((591 + 592 + 599) / 3.0));
}

TEST_CASE("the flash path times each layer with the heads and dims of its kind") {
  layered_engine<timed_engine, store::ledger, narrow, wide> engine(
      kind_of_layer, kinds, {.bytes = 64 << 20, .context_tokens = 4096},
      point::drive.geometry.channels);
  flash::engine<point, wide> alone({4, 2, 1}, {.bytes = 64 << 20, .context_tokens = 4096});
  const sequence seq = engine.open();
  const sequence of_alone = alone.open();
  for (int l = 0; l < 4; ++l) {
    engine.append_count(seq, l, 4096);
  }
  alone.append_count(of_alone, 2, 4096);
  const std::vector<float> q(128, 1.0f);
  std::vector<float> out(128);
  const flash::receipt windowed = engine.attend(seq, 0, q, out);
  const flash::receipt full = engine.attend(seq, 2, q, out);
  CHECK(windowed.traffic.pages_read == 4);  // two heads, K and V
  CHECK(full.traffic.pages_read == 256);
  CHECK(full.total_ns() == doctest::Approx(alone.attend(of_alone, 2, q, out).total_ns()));
  CHECK(windowed.total_ns() < full.total_ns());
  const attend_request one{seq, q, out};
  CHECK(engine.attend_batch(2, {&one, 1}).total_ns() == doctest::Approx(full.total_ns()));
}

TEST_CASE("a layer of a kind that does not exist is refused") {
  CHECK_THROWS_WITH_AS(
      engine_type({0, 2}, kinds, {.bytes = 1 << 20}, point::drive.geometry.channels),
      "layered_engine: layer 1 is of kind 2, there are kinds 0 to 1", bad_argument);
  CHECK_THROWS_AS(engine_type({}, kinds, {.bytes = 1 << 20}, point::drive.geometry.channels),
                  bad_argument);
}

}  // namespace instinfer::test_layered_engine
