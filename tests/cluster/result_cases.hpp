#pragma once
// Results of clusters of each split, beside those of one engine.

#include "tests/cluster/cases.hpp"

namespace instinfer::test {

template <class Engine, class Split>
void check_life(const Split& split, double tolerance, const logit_rule& logits = {}) {
  for (const cluster::options& role : roles()) {
    CAPTURE(role.host_holds);
    if (!can_share(split, role)) {
      continue;
    }
    many<Engine, Split> c(MPI_COMM_WORLD, shape, memory, {}, logits, split, role);
    on_host(c, [&] {
      Engine one(shape, memory, {}, logits);
      beside_one_engine both(c, one, 1, tolerance);
      const auto a = both.open();
      const auto b = both.open();
      both.attend({a, b}, 0, 1);  // nothing there
      both.append_all(a, 333);
      both.append_all(b, 1);
      both.append(b, 1, 70);
      CHECK(both.attend({a, b}, 0, 1).filtered_bytes > 0);
      both.attend({b, a}, 1, 3);
      both.attend({a}, 1, 5, false);
      both.attend({a, b}, 1, 2, true, true);
      both.attend({a}, 0, 3, false, true);
      const auto f = both.fork(a);
      const auto g = both.open();
      both.append_all(f, 40);
      both.append_all(g, 200);
      both.attend({g, f, a, b}, 0, 1);
      both.reclaim(a, store::reclaim_range{.tokens_before = 100});
      both.reclaim(f, store::reclaim_range{.first_layer = 1, .tokens_before = 201});
      both.check_counts(a, 0);
      both.check_counts(f, 0);
      both.check_counts(f, 1);
      both.attend({a, f}, 0, 2);
      both.attend({f, a}, 0, 2, true, true);
      both.attend({a, f}, 1, 1);
      both.truncate(f, 350);
      both.append_all(f, 3);
      both.attend({f}, 0, 3);
      both.decode(f, 0, 2);
      both.attend({f, a}, 0, 1);
      both.reclaim(b);
      const auto again = both.open();  // in b's slot
      both.prefill(again, 0, 64, 64);
      both.prefill(again, 1, 70, 66);  // more queries than attend together
      both.attend({again, g}, 1, 1);
      both.prefill(again, 1, 5, 3, false);
      both.prefill(again, 1, 40, 0);
      both.attend({again, g}, 1, 2);
      if constexpr (std::is_same_v<Engine, sparf>) {
        attention::sparf less = c.attention();
        CHECK(less.keep_tokens == one.attention().keep_tokens);
        less.keep_tokens = 0.25;
        both.set_policy(less);
        CHECK(c.attention().keep_tokens == budget(0.25));
        both.attend({again, g}, 1, 2);
      }
      CHECK_THROWS_AS(c.tokens(b.many, 0), unknown_sequence);
    });
  }
}

TEST_CASE("by_heads has the bits of one engine: dense, and SparF with shared choices") {
  if (world_size() <= 7) {
    check_life<dense>(cluster::by_heads{}, 0);
    check_life<sparf>(cluster::by_heads{}, 0);
  }
}

TEST_CASE("by_heads gives each drive the logit rule of its own heads") {
  std::vector<float> slopes, sinks;
  for (int h = 0; h < 14; ++h) {
    slopes.push_back(0.01f * static_cast<float>(h));
  }
  for (int h = 0; h < 28; ++h) {
    sinks.push_back(0.5f * static_cast<float>(h % 5));
  }
  check_life<dense>(cluster::by_heads{}, 0,
                    {.window = 60, .sinks = 4, .slopes = slopes, .sink_logits = sinks});
}

TEST_CASE("by_sequences has the bits of one engine") {
  check_life<dense>(cluster::by_sequences{}, 0);
  check_life<sparf>(cluster::by_sequences{}, 0);
}

TEST_CASE("by_heads_and_sequences has the bits of one engine") {
  check_life<dense>(cluster::by_heads_and_sequences{.head_groups = 2}, 0);
}

TEST_CASE("by_tokens is within rounding of one engine") {
  // Each output is a mean of up to 400 values, summed in another order: 2^-24 times a few tens.
  check_life<dense>(cluster::by_tokens{.block = 16}, 1e-5);
  check_life<dense>(cluster::by_tokens{.block = 1}, 1e-5);
  check_life<dense>(cluster::by_tokens{.block = 1000}, 1e-5);  // most drives have nothing
}

TEST_CASE("by_heads_and_tokens is within rounding of one engine") {
  check_life<dense>(cluster::by_heads_and_tokens{.head_groups = 2, .block = 16}, 1e-5);
}

TEST_CASE("by_tokens refuses rules that need a token's distance, on all ranks") {
  using cluster_type = many<dense, cluster::by_tokens>;
  CHECK_THROWS_WITH_AS(
      cluster_type(MPI_COMM_WORLD, shape, memory, {}, {.window = 8}, {}, {.host_holds = true}),
      "rank 0: cluster: where tokens are split, a drive does not know the distances of its tokens; logit_rule must have no window, slopes, distance_bias and sink_logits",
      bad_argument);
}

TEST_CASE("of engines that model time, a receipt has the time of the slowest drive") {
  using timed = flash::engine<insta, format>;  // holds no data
  for (const cluster::options& role : roles()) {
    cluster::engine<timed, cluster::by_heads> c(MPI_COMM_WORLD, shape, memory, {}, {}, {}, role);
    on_host(c, [&] {
      const int drives = world_size() - (role.host_holds ? 0 : 1);
      const int heads = (7 + drives - 1) / drives;
      timed slowest({.layers = 2, .q_heads = 2 * heads, .kv_heads = heads}, memory);
      const auto rows = [](int n) { return std::vector<fp16>(static_cast<std::size_t>(n) * 64); };
      const sequence many_seq = c.open();
      const sequence one_seq = slowest.open();
      const auto written = c.append(many_seq, 0, rows(300 * 7), rows(300 * 7));
      const double write_ns =
          slowest.append(one_seq, 0, rows(300 * heads), rows(300 * heads)).total_ns();
      CHECK(written.modelled_ns == doctest::Approx(write_ns));
      std::vector<float> q(14 * 64, 1.0f), out(q.size());
      const double attend_ns =
          slowest
              .attend(one_seq, 0, std::span(q).first(static_cast<std::size_t>(heads) * 128),
                      std::span(out).first(static_cast<std::size_t>(heads) * 128))
              .total_ns();
      const auto done = c.attend(many_seq, 0, q, out);
      CHECK(attend_ns > 0);
      CHECK(done.modelled_ns == doctest::Approx(attend_ns));
      CHECK(done.traffic.link_bytes == 2 * 14 * 64 * sizeof(fp16));  // q down, outputs up
    });
  }
}

}  // namespace instinfer::test
