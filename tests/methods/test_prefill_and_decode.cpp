// Every method: n new tokens at once are n single decodes bit for bit; a prompt teaches and builds
// what its tokens one by one would; a call that fails leaves the layer as it was.

#include <stdexcept>

#include "instinfer/methods.hpp"
#include "tests/support/decoder.hpp"
#include "tests/support/indexed.hpp"

namespace instinfer::test_prefill_and_decode {

using namespace test;

namespace {

constexpr int group = 2;
constexpr int kv_heads = 2;
constexpr int q_heads = group * kv_heads;
constexpr std::size_t row = kv_heads * 64;
constexpr std::size_t q_row = q_heads * 64;

// K, V and a query for each token.
struct stream_of_tokens {
  explicit stream_of_tokens(int n)
      : data{31, n, q_heads, kv_heads}, queries{32, 1, q_heads * n, 1} {}

  std::span<const float> k(int first, int last) const { return data.k_tokens(first, last); }
  std::span<const float> v(int first, int last) const { return data.v_tokens(first, last); }
  std::span<const float> q(int first, int last) const {
    return rows_of(queries.q, static_cast<std::size_t>(first * q_heads),
                   static_cast<std::size_t>((last - first) * q_heads));
  }

  random_cache<method_format> data;
  random_cache<method_format> queries;
};

template <class Policy>
struct one_sequence : decoder<Policy, cpu::path> {
  explicit one_sequence(const Policy& policy)
      : decoder<Policy, cpu::path>{policy, q_heads, kv_heads} {}

  // Appends [first, last), and attends for each token when it is there.
  std::vector<float> one_by_one(const stream_of_tokens& s, int first, int last) {
    std::vector<float> all;
    for (int t = first; t < last; ++t) {
      this->append(s.k(t, t + 1), s.v(t, t + 1));
      this->attend(s.q(t, t + 1));
      all.insert(all.end(), this->out.begin(), this->out.end());
    }
    return all;
  }
  void append_and_build(const stream_of_tokens& s, int tokens) {
    this->append(s.k(0, tokens), s.v(0, tokens));
    if constexpr (Clustered<Policy>) {
      this->build();
    }
  }
};

// 200 tokens of prompt, 9 tokens in three ways, and a tenth that shows what was learned. Tiles have
// 32 tokens in fp32 of 64 dims, boxes of quest 16; so the nine cross both (200 to 209).
template <class Policy>
void check_new_tokens(const Policy& policy) {
  const stream_of_tokens s(210);
  one_sequence<Policy> single(policy), attended(policy), decoded(policy), stepped(policy);
  for (auto* d : {&single, &attended, &decoded, &stepped}) {
    d->append_and_build(s, 200);
    d->one_by_one(s, 200, 201);
  }
  const std::vector<float> expected = single.one_by_one(s, 201, 209);
  const std::vector<float> last = single.one_by_one(s, 209, 210);

  std::vector<float> out(expected.size());
  attended.append(s.k(201, 209), s.v(201, 209));
  attended.engine.attend(attended.seq, 0, s.q(201, 209), out);
  CHECK(out == expected);
  CHECK(attended.one_by_one(s, 209, 210) == last);

  std::ranges::fill(out, -1.0f);
  decoded.engine.decode(decoded.seq, 0, s.k(201, 209), s.v(201, 209), s.q(201, 209), out);
  CHECK(out == expected);
  CHECK(decoded.one_by_one(s, 209, 210) == last);

  for (int t = 201; t < 209; ++t) {
    const std::size_t at = static_cast<std::size_t>(t - 201) * q_row;
    stepped.engine.decode(stepped.seq, 0, s.k(t, t + 1), s.v(t, t + 1), s.q(t, t + 1),
                          std::span(out).subspan(at, q_row));
  }
  CHECK(out == expected);
  CHECK(stepped.engine.tokens(stepped.seq, 0) == 209);
}

// Some heads' programs throw after others have learned.
struct failing_watch {
  struct head_watch {
    std::uint32_t number;
    void chose(attention::operation, index_view) {}
    void accessed(attention::operation, const access_plan&) {
      if (number == 1) {
        throw std::runtime_error("watch: head 1");
      }
    }
  };
  std::vector<head_watch> heads{{0}, {1}};
  head_watch& head(std::uint32_t h) { return heads[h]; }
};

template <class Policy>
void check_undone(const Policy& policy) {
  const stream_of_tokens s(210);
  one_sequence<Policy> disturbed(policy), quiet(policy);
  for (auto* d : {&disturbed, &quiet}) {
    d->append_and_build(s, 200);
    d->one_by_one(s, 200, 205);
  }
  std::vector<float> out(q_row, 7.0f);
  const new_tokens<float> rows{s.k(205, 206), s.v(205, 206)};
  const attend_request queries{disturbed.seq, s.q(205, 206), out};
  CHECK_THROWS_WITH_AS(disturbed.engine.decode({&rows, 1}, {&queries, 1}, 0, disturbed.work,
                                               parallel::serial{}, failing_watch{}),
                       "watch: head 1", std::runtime_error);
  CHECK_THROWS_AS(disturbed.engine.attend({&queries, 1}, 0, disturbed.work, parallel::serial{},
                                          failing_watch{}),
                  std::runtime_error);
  CHECK(disturbed.engine.tokens(disturbed.seq, 0) == 205);
  CHECK(out == std::vector<float>(q_row, 7.0f));
  CHECK(disturbed.one_by_one(s, 205, 210) == quiet.one_by_one(s, 205, 210));
}

constexpr attention::h2o small_h2o{.heavy = 20, .recent = 12};
constexpr attention::hgca small_hgca{.window = 48, .block = 16, .salience = {.least_kept = 4}};
constexpr attention::retro_infer small_retro{
    .window = 20, .retrieved = 0.2, .estimated = 0.3, .update_tokens = 64};
constexpr attention::squeezed small_squeezed{
    .threshold = 0.005, .clusters = 0.1, .coarse_clusters = 0.03, .window = 20};

}  // namespace

TEST_CASE("new tokens: n at once are n single decodes, for methods that choose by rows") {
  check_new_tokens(attention::sparf{.local = 0.25});
  check_new_tokens(attention::sparq{});
  check_new_tokens(attention::top_values{});
  check_new_tokens(attention::streaming_llm{.window = budget::at_most(40)});
  check_new_tokens(attention::quest{.dense_layers = 0});
  check_new_tokens(attention::per_query_head<attention::quest>{{.dense_layers = 0}});
  check_new_tokens(own_dsa{.keep_tokens = 0.1});
  check_new_tokens(own_misa{.keep_tokens = 0.1, .active_heads = 1.0});
}
TEST_CASE("new tokens: n at once are n single decodes, for clusters and methods that learn") {
  check_new_tokens(small_retro);
  check_new_tokens(small_squeezed);
  check_new_tokens(small_h2o);
  check_new_tokens(small_hgca);
}

TEST_CASE("new tokens: of trained index queries, each token has its own") {
  const workload::index_sample s = workload::index_topics{.tokens = 300, .queries = 3}();
  indexed<dsa> at_once(s, {.keep_tokens = 0.1});
  const auto dims = s.q.size() / 3;
  const auto heads = s.weights.size() / 3;
  const std::vector<float> q(3 * 64, 0.5f);
  std::vector<float> out(3 * 64);
  const attend_request r{.seq = at_once.d.seq,
                         .q = q,
                         .out = out,
                         .index = {std::span(s.q).first(3 * dims), s.weights},
                         .causal = false};
  at_once.d.engine.attend({&r, 1}, 0, at_once.d.work, parallel::serial{});
  for (std::size_t i = 0; i < 3; ++i) {
    CHECK(heads > 1);
    at_once.d.attend(std::span(q).first(64), at_once.query(i));
    CHECK(at_once.d.out == std::vector<float>(out.begin() + std::ptrdiff_t(i) * 64,
                                              out.begin() + std::ptrdiff_t(i + 1) * 64));
  }
  attend_request bad = r;
  bad.index.weights = bad.index.weights.first(3 * heads - 1);
  CHECK_THROWS_AS(at_once.d.engine.attend({&bad, 1}, 0, at_once.d.work, parallel::serial{}),
                  bad_argument);
}

TEST_CASE("new tokens: what a query has seen, or an index holds, cannot be left out") {
  const stream_of_tokens s(210);
  const std::string why =
      "attend: one query a call, got 3; the policy's summaries cannot leave out the tokens after a query's own";
  std::vector<float> out(3 * q_row, 7.0f);
  one_sequence<attention::h2o> learned(small_h2o);
  learned.append(s.k(0, 200), s.v(0, 200));
  learned.one_by_one(s, 200, 201);
  learned.append(s.k(201, 202), s.v(201, 202));
  CHECK_THROWS_WITH_AS(learned.engine.attend(learned.seq, 0, s.q(0, 3), out), why.c_str(),
                       bad_argument);
  one_sequence<attention::squeezed> built({.window = 1});
  built.append_and_build(s, 200);
  CHECK_THROWS_WITH_AS(built.engine.attend(built.seq, 0, s.q(0, 3), out), why.c_str(),
                       bad_argument);
  CHECK(out == std::vector<float>(3 * q_row, 7.0f));
}

TEST_CASE("prefill: methods that learn do so from each query of the prompt") {
  const stream_of_tokens s(210);
  const auto check = [&](const auto& policy, int queries) {
    using policy_type = std::remove_cvref_t<decltype(policy)>;
    one_sequence<policy_type> at_once(policy), single(policy);
    at_once.engine.prefill(at_once.seq, 0, s.k(0, 200), s.v(0, 200), s.q(200 - queries, 200));
    single.append(s.k(0, 200 - queries), s.v(0, 200 - queries));
    single.one_by_one(s, 200 - queries, 200);
    CHECK(at_once.one_by_one(s, 200, 210) == single.one_by_one(s, 200, 210));
  };
  for (const int queries : {1, 63, 64, 65, 200}) {  // it appends 64 tokens at a time
    CAPTURE(queries);
    check(small_h2o, queries);
    check(small_hgca, queries);
  }
}

TEST_CASE("prefill: outputs are exact causal attention, whatever the method") {
  const stream_of_tokens s(150);
  const auto check = [&](const auto& policy, int queries) {
    one_sequence<std::remove_cvref_t<decltype(policy)>> d(policy);
    std::vector<float> out(static_cast<std::size_t>(queries) * q_row);
    d.engine.prefill(d.seq, 0, s.k(0, 150), s.v(0, 150), s.q(150 - queries, 150), out);
    CHECK(d.engine.tokens(d.seq, 0) == 150);
    for (int i = 0; i < queries; ++i) {
      const int seen = 150 - queries + i + 1;
      for (int h = 0; h < q_heads; ++h) {
        const auto at = static_cast<std::size_t>(i * q_heads + h);
        const row_vector q =
            matrix_of(rows_of(s.queries.q, static_cast<std::size_t>((seen - 1) * q_heads + h), 1))
                .row(0);
        CHECK(
            relative_error(rows_of(out, at, 1), defined_attention(q, s.data.K(h / group, 0, seen),
                                                                  s.data.V(h / group, 0, seen))) <=
            tolerance<cpu::path>(seen));
      }
    }
  };
  check(attention::sparf{}, 150);
  check(small_h2o, 70);
  check(attention::streaming_llm{.window = budget::at_most(40)}, 1);
}

TEST_CASE("prefill: builds the index that is due, of the prompt and of what follows") {
  const stream_of_tokens s(210);
  one_sequence<attention::retro_infer> retro(small_retro), later(small_retro);
  const receipt done = retro.engine.prefill(retro.seq, 0, s.k(0, 200), s.v(0, 200));
  CHECK(done.traffic.link_bytes == 2 * 200 * row * sizeof(float));
  CHECK(retro.engine.written().size() == done.traffic.pages_written);
  CHECK(retro.summary<attention::cluster_index>().indexed() == index_run{4, 180});
  later.append_and_build(s, 200);
  CHECK(retro.one_by_one(s, 200, 210) == later.one_by_one(s, 200, 210));
  retro.engine.prefill(retro.seq, 0, s.k(0, 74), s.v(0, 74));  // 284 tokens, 264 out of the window
  CHECK(retro.summary<attention::cluster_index>().indexed() == index_run{4, 244});

  one_sequence<attention::squeezed> squeezed(small_squeezed);
  squeezed.engine.prefill(squeezed.seq, 0, s.k(0, 100), s.v(0, 100));
  squeezed.engine.prefill(squeezed.seq, 0, s.k(100, 200), s.v(100, 200));
  CHECK(squeezed.summary<attention::cluster_index>().indexed() == index_run{0, 80});
}

TEST_CASE("decode and attend: a failure leaves tokens, summaries and outputs as they were") {
  check_undone(attention::sparf{});
  check_undone(attention::quest{.dense_layers = 0});
  check_undone(small_retro);
  check_undone(small_h2o);
  check_undone(small_hgca);
}

TEST_CASE("prefill: a failure leaves tokens and summaries as they were") {
  const stream_of_tokens s(210);
  one_sequence<attention::h2o> disturbed(small_h2o), quiet(small_h2o);
  for (auto* d : {&disturbed, &quiet}) {
    d->append_and_build(s, 40);
    d->one_by_one(s, 40, 45);
  }
  std::vector<float> q(s.q(45, 205).begin(), s.q(45, 205).end());
  q.back() = std::numeric_limits<float>::infinity();  // of the last of three parts
  std::vector<float> out(q.size(), 7.0f);
  auto& engine = disturbed.engine;
  CHECK_THROWS_AS(engine.prefill(disturbed.seq, 0, s.k(45, 205), s.v(45, 205), q, out),
                  bad_argument);
  CHECK_THROWS_WITH_AS(
      engine.prefill(disturbed.seq, 0, s.k(45, 46), s.v(45, 46), s.q(45, 47)),
      "prefill: q must be [n, 4, 64], n at most 1, and out empty or [n, 4, 64], got 512 and 0 "
      "elements",
      bad_argument);
  CHECK(engine.tokens(disturbed.seq, 0) == 45);
  CHECK(out == std::vector<float>(q.size(), 7.0f));
  CHECK(disturbed.one_by_one(s, 45, 60) == quiet.one_by_one(s, 45, 60));

  // Clusters of a share that leaves none: the prompt goes with its index.
  one_sequence<attention::squeezed> none({.clusters = budget::exactly(1000), .window = 20});
  CHECK_THROWS_AS(none.engine.prefill(none.seq, 0, s.k(0, 200), s.v(0, 200)), bad_argument);
  CHECK(none.engine.tokens(none.seq, 0) == 0);
}

TEST_CASE("decode: what it can know before it appends anything") {
  const stream_of_tokens s(210);
  one_sequence<attention::sparf> d({.keep_tokens = budget::exactly(1000)});
  d.append(s.k(0, 200), s.v(0, 200));
  std::vector<float> out(2 * q_row, 7.0f);
  CHECK_THROWS_WITH_AS(
      d.engine.decode(d.seq, 0, s.k(200, 201), s.v(200, 201), s.q(200, 202), out),
      "decode: q must be of the new tokens, one query each, got 2 queries for 1 tokens",
      bad_argument);
  const new_tokens<float> rows[]{{s.k(200, 201), s.v(200, 201)}, {s.k(201, 202), s.v(201, 202)}};
  const attend_request twice[]{{d.seq, s.q(200, 201), std::span(out).first(q_row)},
                               {d.seq, s.q(201, 202), std::span(out).last(q_row)}};
  CHECK_THROWS_WITH_AS(
      d.engine.decode(rows, twice, 0, d.work, parallel::serial{}),
      "decode: sequence 0 stands twice in the batch; its new tokens go into one request",
      bad_argument);
  CHECK_THROWS_AS(d.engine.decode(rows, std::span(twice).first(1), 0, d.work, parallel::serial{}),
                  bad_argument);
  // What only the attend finds.
  CHECK_THROWS_WITH_AS(
      d.engine.decode(d.seq, 0, s.k(200, 201), s.v(200, 201), s.q(200, 201),
                      std::span(out).first(q_row)),
      "keep_tokens: exactly 1000 were asked for, but there are only 201 (budget::at_most takes what "
      "there is)",
      bad_argument);
  CHECK(d.engine.tokens(d.seq, 0) == 200);
  CHECK(out == std::vector<float>(2 * q_row, 7.0f));
}

}  // namespace instinfer::test_prefill_and_decode
