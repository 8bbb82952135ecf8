// A larger budget holds at least the mass of a smaller one, and a constant added to all keys
// changes nothing.

#include "instinfer/methods/h2o.hpp"
#include "instinfer/methods/hgca.hpp"
#include "instinfer/methods/quest.hpp"
#include "instinfer/methods/retro_infer.hpp"
#include "instinfer/methods/squeezed.hpp"
#include "instinfer/methods/streaming_llm.hpp"
#include "instinfer/methods/top_values.hpp"
#include "tests/support/indexed.hpp"

namespace instinfer::test_budgets {

using namespace test;
using namespace attention;

namespace {

constexpr quest quest_of(budget keep) { return {.keep_pages = keep, .dense_layers = 0}; }

}  // namespace

TEST_CASE("larger budgets hold at least the mass of smaller ones") {
  const workload::sample s = workload::topics{.tokens = 1024, .queries = 5}();
  std::vector<quest> pages;
  std::vector<own_dsa> tokens;
  std::vector<own_misa> few;
  for (const double share : {0.05, 0.1, 0.3, 1.0}) {
    pages.push_back(quest_of(share));
    tokens.push_back({.keep_tokens = share});
    few.push_back({.keep_tokens = share, .active_heads = 1.0});
  }
  test::check_mass_grows(pages, s);
  test::check_mass_grows(tokens, s);
  test::check_mass_grows(few, s);
}

TEST_CASE("larger budgets hold at least the mass of smaller ones") {
  const workload::sample s = workload::topics{.tokens = 1024, .queries = 5}();
  std::vector<retro_infer> retro;
  for (const double r : {0.0, 0.02, 0.1, 0.5}) {
    retro.push_back({.retrieved = r, .estimated = 0.0, .update_tokens = 64});
  }
  test::check_mass_grows(retro, s);
  std::vector<squeezed> kept;
  for (const double threshold : {1e-2, 1e-3, 1e-5, 0.0}) {
    kept.push_back({.threshold = threshold, .window = 20});
  }
  test::check_mass_grows(kept, s);
}

TEST_CASE("an offset of all keys changes nothing") {
  test::check_offset_invariant<streaming_llm>({.sinks = 4, .window = budget::at_most(20)});
  test::check_offset_invariant<top_values>({});
  test::check_offset_invariant<h2o>({.heavy = 20, .recent = 12}, 64, 40);
  test::check_offset_invariant<hgca>({.window = 32, .block = 16}, 64, 60);
}

TEST_CASE("settings change at run time: attends are those of an engine that began with them") {
  const workload::sample s = workload::topics{.tokens = 1024, .queries = 5}();
  const auto check = [&](const auto& before, const auto& after) {
    decoder<std::remove_cvref_t<decltype(before)>, cpu::path> changed(before), fresh(after);
    for (auto* d : {&changed, &fresh}) {
      d->append(s.k, s.v);
      if constexpr (requires { d->build(); }) {
        d->build();
      }
    }
    const auto q = rows_of(s.q, 0, 1);
    const std::vector<float> old(changed.attend(q).begin(), changed.attend(q).end());
    changed.engine.set_policy(after);
    fresh.attend(q);
    CHECK(old != fresh.out);
    changed.attend(q);
    CHECK(changed.out == fresh.out);
    CHECK(changed.folded() == fresh.folded());
  };
  check(quest_of(0.05), quest_of(0.3));
  check(own_dsa{.keep_tokens = 0.3}, own_dsa{.keep_tokens = 0.05});
  check(squeezed{.threshold = 1e-2}, squeezed{.threshold = 1e-3});
  check(retro_infer{.retrieved = 0.01, .update_tokens = 64},
        retro_infer{.retrieved = 0.2, .estimated = 0.0, .update_tokens = 64});
}

TEST_CASE("settings by which an index was built stay as long as the index does") {
  const workload::sample s = workload::topics{.tokens = 512, .queries = 1}();
  decoder<squeezed, cpu::path> d({.threshold = 1e-2});
  d.append(s.k, s.v);
  d.engine.set_policy({.threshold = 1e-2, .clusters = 0.1});  // there is no index yet
  d.build();
  CHECK_THROWS_WITH_AS(
      d.engine.set_policy({.threshold = 1e-3, .clusters = 0.2}),
      "set_policy: a sequence has an index of other settings; keep clusters, coarse_clusters, "
      "window and seed, or reclaim the sequence",
      bad_argument);
  CHECK(d.engine.attention().threshold == 1e-2);
  d.engine.reclaim(d.seq);
  d.engine.set_policy({.threshold = 1e-3, .clusters = 0.2});
  CHECK(d.engine.attention().clusters == budget(0.2));

  decoder<retro_infer, cpu::path> retro({.update_tokens = 64});
  retro.append(s.k, s.v);
  retro.build();
  retro.engine.set_policy({.window = 32, .update_tokens = 128});
  CHECK_THROWS_AS(retro.engine.set_policy({.cluster_tokens = 8, .update_tokens = 64}),
                  bad_argument);
}

}  // namespace instinfer::test_budgets
