// Given the choices of another path, the shared machine plans, counts and reports the same for the
// GPU as it did there.
#include <doctest/doctest.h>

#include "../paths/random_cache.hpp"
#include "../paths/watched.hpp"
#include "instinfer/cuda/engine/device_choices.hpp"
#include "instinfer/engine/head_attend.hpp"
#include "instinfer/reference/engine.hpp"

using namespace instinfer;

namespace {

using format = kv_format<fp16, 64>;
using worker = workspace<cuda::device_choices_path, format>::worker;

std::vector<std::uint32_t> chosen_by(const test::head_record& head, attention::operation op) {
  const auto& sets = head.chosen[static_cast<int>(op)];
  return sets.empty() ? std::vector<std::uint32_t>{}
                      : std::vector<std::uint32_t>(sets.at(0).begin(), sets.at(0).end());
}

template <class D>
void check_as_reference(const logit_rule& rule) {
  const int tokens = 700;
  const test::random_cache<format> data(11, tokens, 8, 2);
  reference::engine<D, format> engine({.layers = 1, .q_heads = 8, .kv_heads = 2}, {}, {}, rule);
  const sequence seq = engine.open();
  engine.append(seq, 0, data.k, data.v);
  engine.reclaim(seq, store::reclaim_range{.tokens_before = 70});
  std::vector<float> out(data.q.size());
  test::recorder expected(2);
  typename reference::engine<D, format>::scratch work;
  const receipt done = engine.attend(seq, 0, data.q, out, work, parallel::serial{}, expected);

  const std::vector<float> before = out;
  traffic moved;
  for (std::uint32_t h = 0; h < 2; ++h) {
    const auto dims = chosen_by(expected.heads[h], attention::operation::top_dims);
    const auto kept = chosen_by(expected.heads[h], attention::operation::top_tokens);
    const auto& layer = engine.cache().at(seq, 0);
    const attend_request request{seq, data.q, out};
    worker device;
    const auto run = [&](std::span<const std::uint32_t> listed, test::head_record& seen,
                         traffic& of_head) {
      device.arithmetic.set(dims, listed);
      const head_attend head(engine.attention(), engine.logits(), engine.cache(), layer, 0, h,
                             request, device, of_head);
      head(1, out, {}, seen);
    };
    test::head_record seen;
    run(kept, seen, moved);
    CHECK(seen.pages == expected.heads[h].pages);
    REQUIRE(seen.plans.size() == expected.heads[h].plans.size());
    for (std::size_t p = 0; p < seen.plans.size(); ++p) {
      CHECK(seen.plans[p].reads().size() == expected.heads[h].plans[p].reads().size());
    }
    CHECK(std::ranges::equal(seen.chosen, expected.heads[h].chosen));
    if (!kept.empty()) {  // a missing choice is not made up
      traffic ignored;
      CHECK_THROWS_WITH_AS(run(std::span(kept).first(kept.size() - 1), seen, ignored),
                           doctest::Contains("the kernels chose"), bad_argument);
    }
  }
  CHECK(out == before);  // the kernels write it, not this
  CHECK(moved.pages_read == done.traffic.pages_read);
  CHECK(moved.array_bytes == done.traffic.array_bytes);
  CHECK(moved.channel_bytes == done.traffic.channel_bytes);
  CHECK(moved.buffer_bytes == done.traffic.buffer_bytes);
}

}  // namespace

TEST_CASE(
    "plans, traffic and observations from recorded choices are those of the path that chose") {
  for (const logit_rule& rule : {logit_rule{}, logit_rule{.window = 100, .sinks = 4}}) {
    check_as_reference<insta>(rule);
    check_as_reference<insta_sparf>(rule);
    check_as_reference<flexgen_sparq>(rule);
  }
}
