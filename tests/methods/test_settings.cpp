// The settings that methods have, by default and for a share of dense's bytes.

#include <doctest/doctest.h>

#include "instinfer/methods/at_budget.hpp"

namespace instinfer::test_settings {

using namespace attention;
using methods::at_budget;

// The table in at_budget.hpp, at a quarter of 1024 tokens.
TEST_CASE("at_budget: how each method spends it") {
  CHECK(at_budget<top_values>(0.75, 1024).keep_values == budget(0.5));
  const auto sinks = at_budget<streaming_llm>(0.25, 1024);
  CHECK(sinks.sinks == 4);
  CHECK(sinks.window == budget::at_most(252));
  const auto heavy = at_budget<h2o>(0.25, 1024);  // and the query's own token
  CHECK(heavy.heavy == 127);
  CHECK(heavy.recent == 128);
  const auto judged = at_budget<hgca>(0.25, 1024);
  CHECK(judged.block == 128 / 8);
  CHECK(judged.window == 128 + 16 / 2);
  CHECK(judged.salience.most_kept.of(896, "") == 128);
  CHECK(at_budget<sparf>(0.25, 1024).keep_dims == budget(0.25));
  CHECK(at_budget<sparf>(0.25, 1024).keep_tokens == budget(0.125));
  CHECK(at_budget<sparf>(0.25, 1024, 2).keep_dims == budget(0.75 * 0.25));  // for groups
  CHECK(at_budget<quest>(0.25, 1024).keep_pages == budget(0.25));
  CHECK(at_budget<quest>(0.25, 1).keep_pages == budget(0.25));
  CHECK(at_budget<per_query_head<quest>>(0.25, 1024, 2).keep_pages == budget(0.125));
  CHECK(at_budget<squeezed>(0.25, 1024).window == 64);  // a quarter of the share; at most 100
  CHECK(at_budget<squeezed>(0.5, 1024).window == 100);
  const auto clusters = at_budget<retro_infer>(0.25, 1024);  // an eighth and a quarter of the share
  CHECK(clusters.window == 32);
  CHECK(clusters.update_tokens == 64);
  // 4 + 32 + 64/2 tokens are not in clusters, 188 of the other 956 are wanted.
  CHECK(clusters.retrieved.of(956'000, "") == 188'000);
  CHECK(clusters.estimated == budget(0.232));
  CHECK(at_budget<retro_infer>(0.004, 1024).retrieved == budget(0.0));
  CHECK(at_budget<retro_infer>(1.0, 1024).estimated == budget(0.0));
  CHECK(at_budget<dsa>(0.25, 1024).keep_tokens == budget(0.25));
  CHECK(at_budget<misa>(0.25, 1024).keep_tokens == budget(0.25));
}

// Of the papers and their authors' code: docs/methods.md.
TEST_CASE("the settings that methods have unless others are given") {
  CHECK(top_values{}.keep_values == budget(0.1));
  CHECK(streaming_llm{}.sinks == 4);
  CHECK(streaming_llm{}.window == budget::at_most(1020));
  CHECK(h2o{}.heavy == 512);
  CHECK(h2o{}.recent == 512);
  CHECK(hgca{}.window == 1024);
  CHECK(hgca{}.block == 64);
  CHECK(hgca{}.judge_every == 0);
  CHECK(sparq{}.keep_dims == budget(0.125));
  CHECK(sparq{}.keep_tokens == budget(0.0625));
  CHECK(sparq{}.local == budget(0.25));
  CHECK(sparf{}.keep_dims == budget(0.125));
  CHECK(sparf{}.keep_tokens == budget(0.0625));
  CHECK(sparf{}.local == budget(0.0));
  CHECK(quest{}.keep_pages == budget(0.125));
  CHECK(quest{}.least_pages == 3);
  CHECK(quest{}.dense_layers == 2);
  CHECK(squeezed{}.clusters == budget(0.05));
  CHECK(squeezed{}.window == 100);
  CHECK(squeezed{}.segment_tokens == 8192);
  const retro_infer retro;
  CHECK(retro.sinks == 4);
  CHECK(retro.window == 64);
  CHECK(retro.retrieved == budget(0.018));
  CHECK(retro.estimated == budget(0.232));
  CHECK(retro.cluster_tokens == 16);
  CHECK(retro.segment_tokens == 8192);
  CHECK(retro.update_tokens == 1024);
  CHECK(retro.cached == budget(0.05));
  CHECK(dsa{}.keep_tokens == budget::at_most(2048));
  CHECK(misa{}.active_heads == budget::at_most(8));
  CHECK(misa{}.candidates == budget::at_most(0));
}

}  // namespace instinfer::test_settings
