// The load of attention on drives: bytes by hand, and what is left out of the simulation.

#include <doctest/doctest.h>

#include "instinfer/engine/design.hpp"
#include "instinfer/system/kv_access.hpp"
#include "instinfer/system/spec/models.hpp"
#include "tests/support/shared_timelines.hpp"

namespace instinfer::test_kv_access {

using system::kv_access;
using system::kv_load;
using system::workload;

namespace {

// OPT-13B with a quarter of its heads, so that whole batches can be simulated here.
constexpr system::model_spec small_model() {
  system::model_spec model = system::opt_13b;
  model.name = "ten heads";
  model.shape = {.layers = 4, .q_heads = 10, .kv_heads = 10};
  return model;
}

// One layer of the whole batch on one drive, without any shortcut, for sequences of exactly this
// length.
template <class D>
flash::receipt full_batch(const system::model_spec& model, std::int64_t batch,
                          std::uint64_t context, std::uint32_t expected_tokens) {
  flash::engine<D> drive(
      {.layers = 1, .q_heads = model.shape.q_heads, .kv_heads = model.shape.kv_heads},
      {.bytes = std::uint64_t{4} << 30, .context_tokens = expected_tokens}, {}, {}, D::drive, {},
      flash::independent_planes);
  const std::vector<float> q(static_cast<std::size_t>(model.q_width()), 1.0f);
  std::vector<float> out(q.size());
  std::vector<typename flash::engine<D>::request> requests;
  for (std::int64_t i = 0; i < batch; ++i) {
    requests.push_back({drive.open(), q, out});
    drive.append_count(requests.back().seq, 0, context);
  }
  return drive.attend_batch(0, requests);
}

}  // namespace

TEST_CASE("dense attention reads every byte of the cache once") {
  const workload job{.batch = 3, .input_tokens = 512, .output_tokens = 512};
  const kv_access<insta> kv(small_model(), job, 1);
  for (const double context : {512.0, 640.0, 768.0, 1000.0, 1024.0}) {
    const kv_load load = kv.at(context);
    const double dense = 3 * context * 10 * 512;
    // The sequence that the bytes are counted on has exactly the context, so all of its entries are
    // wanted.
    CHECK(load.wanted_bytes + load.buffered_bytes == doctest::Approx(dense));
    // Neighbours are up to 8 tokens longer or shorter, and a last group of less than 16 is not in
    // flash.
    CHECK(load.page_bytes <= dense * (1 + 8.0 / context));
    CHECK(load.page_bytes >= dense * (1 - 24.0 / context));
    // q.K^T and s.V: 2 x 2 FLOP for each of 128 dims.
    const auto& units = insta::drive.units;
    const double flops = 3 * context * 10 * 4 * 128;
    CHECK(load.gemv_s == doctest::Approx(flops / static_cast<double>(units.gemv_flops_per_s) /
                                         units.attention_kernels)
                             .epsilon(8.0 / context));
  }
  CHECK(kv.footprint() == 1);
}

TEST_CASE("of 17 sequences as many are longer as are shorter than the context") {
  // A page holds 16 tokens of a head's K or V: the 9 that are as long or longer have 32 full pages,
  // the 8 that are shorter have 31.
  const kv_access<insta> kv(small_model(), {.batch = 17, .input_tokens = 512, .output_tokens = 64},
                            1);
  CHECK(kv.at(512).page_bytes == doctest::Approx((9 * 32 + 8 * 31) * 10 * 2 * 4096.0));
}

TEST_CASE("between two simulated contexts every cost is on the line between theirs") {
  const kv_access<insta_sparf> kv(small_model(),
                                  {.batch = 2, .input_tokens = 64, .output_tokens = 2048}, 1);
  const kv_load a = kv.at(64), b = kv.at(576), quarter = kv.at(192);
  for (const auto field :
       {&kv_load::flash_s, &kv_load::stalled_s, &kv_load::filter_s, &kv_load::gemv_s,
        &kv_load::softmax_s, &kv_load::top_k_s, &kv_load::drive_s, &kv_load::page_bytes,
        &kv_load::wanted_bytes, &kv_load::buffered_bytes}) {
    CHECK(quarter.*field == doctest::Approx(0.75 * a.*field + 0.25 * b.*field));
  }
  for (std::size_t u = 0; u < flash::unit_count; ++u) {
    CHECK(quarter.units.busy_ns[u] ==
          doctest::Approx(0.75 * a.units.busy_ns[u] + 0.25 * b.units.busy_ns[u]));
  }
  for (std::size_t r = 0; r < flash::resource_count; ++r) {
    CHECK(quarter.bounds.busy_ns[r] ==
          doctest::Approx(0.75 * a.bounds.busy_ns[r] + 0.25 * b.bounds.busy_ns[r]));
  }
  CHECK(a.top_k_s < b.top_k_s);
  CHECK(a.gemv_s < b.gemv_s);
}

TEST_CASE("the bottleneck is that of the nearest simulated context") {
  const kv_access<insta> kv(small_model(), {.batch = 2, .input_tokens = 64, .output_tokens = 2048},
                            1);  // 64, 576, 1088, 1600 and 2112 tokens
  double before_ns = 0;
  for (const double context : {64.0, 576.0, 1088.0, 1600.0, 2112.0}) {
    CAPTURE(context);
    const double here_ns = kv.bottleneck(context).ns;
    CHECK(here_ns > before_ns);
    CHECK(kv.bottleneck(context - 255).ns == here_ns);
    CHECK(kv.bottleneck(context + 255).ns == here_ns);
    before_ns = here_ns;
  }
}

TEST_CASE("SparF wants an eighth, and keeps K twice") {
  const workload job{.batch = 2, .input_tokens = 1024, .output_tokens = 1024};
  const kv_access<insta_sparf> kv(small_model(), job, 1);
  const double dense = 2 * 2048.0 * 10 * 512;
  const kv_load load = kv.at(2048);
  CHECK((load.wanted_bytes + load.buffered_bytes) / dense == doctest::Approx(1.0 / 8));
  CHECK(load.page_bytes < 0.7 * dense);
  CHECK(load.page_bytes > load.wanted_bytes);
  CHECK(kv.footprint() == 1.5);
  // A page holds 16 tokens of 128 dims, or 2 dims of 1024 tokens; an L2P entry takes 4 bytes.
  CHECK(kv.l2p_bytes() == 4.0 * 10 * (2 * (2048 / 16) + (2048 / 1024) * (128 / 2)));
}

TEST_CASE("tokens of an open page are wanted from the group buffer") {
  // A page holds 16 tokens of a head's K or V: of 520 tokens, 8 wait for theirs.
  const kv_access<insta> kv(small_model(), {.batch = 3, .input_tokens = 520, .output_tokens = 64},
                            1);
  const kv_load load = kv.at(520);
  CHECK(load.wanted_bytes == 3 * 10 * 512 * 512);
  CHECK(load.buffered_bytes == 3 * 10 * 8 * 512);
}

TEST_CASE("prompts are written at the rate at which a drive takes one") {
  const workload job{.batch = 1, .input_tokens = 1024, .output_tokens = 1024};
  const kv_access<insta> kv(small_model(), job, 1);
  flash::engine<insta> drive({.layers = 1, .q_heads = 10, .kv_heads = 10},
                             {.bytes = 64 << 20, .context_tokens = 2048}, {}, {}, insta::drive, {},
                             flash::independent_planes);
  const flash::receipt written = drive.append_count(drive.open(), 0, 2048);
  const double bytes = 2048 * 10 * 512.0;  // K and V of 128 dims, fp16
  CHECK(kv.write_bytes_per_s() == doctest::Approx(bytes * 1e9 / written.total_ns()));
  CHECK(kv.write_bytes_per_s() < static_cast<double>(insta::drive.link_bytes_per_s));
}

TEST_CASE("a few sequences stand for the batch, and lines for the contexts between") {
  const workload job{.batch = 48, .input_tokens = 1024, .output_tokens = 1024};
  const system::model_spec model = small_model();
  const kv_access<insta> dense(model, job, 1);
  const kv_access<insta_sparf> sparf(model, job, 1);
  double dense_sum = 0, sparf_sum = 0, dense_full = 0, sparf_full = 0;
  for (std::uint64_t context = 1088; context < 2048; context += 128) {
    CAPTURE(context);
    const double d = full_batch<insta>(model, 48, context, 2048).attention_ns * 1e-9;
    const double s = full_batch<insta_sparf>(model, 48, context, 2048).attention_ns * 1e-9;
    // Sequences that are copies of each other, as here, collide on dies more than those of
    // different lengths: SparF's bound is wider. Its open tiles of 512 tokens make a saw-tooth,
    // which the lines cut through.
    CHECK(dense.at(static_cast<double>(context)).drive_s == doctest::Approx(d).epsilon(0.02));
    CHECK(sparf.at(static_cast<double>(context)).drive_s == doctest::Approx(s).epsilon(0.15));
    dense_sum += dense.at(static_cast<double>(context)).drive_s;
    sparf_sum += sparf.at(static_cast<double>(context)).drive_s;
    dense_full += d;
    sparf_full += s;
  }
  MESSAGE("over a run: dense " << dense_sum / dense_full - 1 << ", SparF "
                               << sparf_sum / sparf_full - 1);
  CHECK(dense_sum == doctest::Approx(dense_full).epsilon(0.01));
  CHECK(sparf_sum == doctest::Approx(sparf_full).epsilon(0.08));
}

TEST_CASE("a drive is never faster than one of its units, and many sequences overlap") {
  const system::model_spec model = small_model();
  const kv_load one = kv_access<insta_sparf>(model, {1, 1024, 1024}, 1).at(1024);
  const kv_load many = kv_access<insta_sparf>(model, {64, 1024, 1024}, 1).at(1024);
  for (const kv_load& load : {one, many}) {
    CHECK(load.drive_s >=
          std::max({load.flash_s, load.filter_s, load.gemv_s, load.softmax_s, load.top_k_s}));
  }
  CHECK(many.drive_s < 64 * one.drive_s);
}

TEST_CASE("the model splits as a running cluster does") {
  const model_shape shape{.layers = 1, .q_heads = 14, .kv_heads = 7};
  constexpr std::int64_t batch = 10;
  constexpr std::uint64_t context = 5'000;
  // What the busiest drive has, asked of each drive.
  const auto check = [&](const auto& split, int drives) {
    const system::drive_split model = system::split_of(split, drives, shape, batch);
    int heads = 0, used = 0;
    std::int64_t sequences = 0;
    std::uint64_t tokens = 0;
    for (int d = 0; d < drives; ++d) {
      std::int64_t mine = 0;
      for (std::uint32_t home = 0; home < batch; ++home) {
        mine += split.holds(home, d, drives) ? 1 : 0;
      }
      heads = std::max(heads, split.heads(shape, d, drives).size());
      sequences = std::max(sequences, mine);
      tokens = std::max(tokens, split.tokens_of(context, d, drives));
      used += mine > 0 ? 1 : 0;
    }
    CHECK(model.kv_heads == heads);
    CHECK(model.sequences == sequences);
    CHECK(model.tokens_of(context) == tokens);
    CHECK(model.drives_used() == used);
  };
  for (const int drives : {1, 4, 7}) {
    check(cluster::by_heads{}, drives);
  }
  for (const int drives : {1, 3, 10, 16}) {
    check(cluster::by_sequences{}, drives);
    check(cluster::by_tokens{.block = 256}, drives);
  }
  for (const int drives : {2, 4, 10}) {
    check(cluster::by_heads_and_sequences{.head_groups = 2}, drives);
    check(cluster::by_heads_and_tokens{.head_groups = 2, .block = 16}, drives);
  }
  CHECK_THROWS_AS(system::split_of(cluster::by_heads{}, 8, shape, batch), bad_argument);
}

TEST_CASE("drives that share tokens read the bytes of one, each its part of the time") {
  const system::model_spec model = small_model();
  const workload job{32, 4096, 1024};
  const system::drive_split split =
      system::split_of(cluster::by_tokens{.block = 64}, 4, model.shape, job.batch);
  const kv_load whole = kv_access<insta>(model, job, 1).at(4608);
  const kv_load quarters = kv_access<insta>(model, job, split).at(4608);
  CHECK(quarters.page_bytes == doctest::Approx(whole.page_bytes).epsilon(0.01));
  CHECK(quarters.drive_s == doctest::Approx(whole.drive_s / 4).epsilon(0.05));
  CHECK_THROWS_WITH_AS(
      kv_access<insta_sparf>(model, job, split),
      "kv_access: drives share the tokens of a head only where the method folds all visible tokens",
      bad_argument);
}

TEST_CASE("drives split heads, then sequences") {
  const model_shape shape{.layers = 1, .q_heads = 40, .kv_heads = 40};
  CHECK(system::split_over(1, shape, 8).kv_heads == 40);
  CHECK(system::split_over(2, shape, 8).kv_heads == 20);
  const system::drive_split three = system::split_over(3, shape, 8);
  CHECK(three.kv_heads == 14);  // 14, 14 and 12
  CHECK(three.head_parts == 3);
  const system::drive_split hundred = system::split_over(100, shape, 8);
  CHECK(hundred.kv_heads == 1);
  CHECK(hundred.head_parts == 40);
  CHECK(hundred.sequence_parts == 2);
  CHECK(hundred.sequences == 4);
  // No more than heads x sequences.
  CHECK(system::split_over(100'000, shape, 8).drives_used() == 320);
  const system::drive_split grouped =
      system::split_over(4, {.layers = 1, .q_heads = 64, .kv_heads = 8}, 5);
  CHECK(grouped.kv_heads == 2);
  CHECK(grouped.sequences == 5);
  CHECK_THROWS_WITH_AS(system::split_over(0, shape, 8),
                       doctest::Contains("must be positive, got 0 and 8"), bad_argument);
  CHECK_THROWS_WITH_AS(system::split_over(8, shape, 0),
                       doctest::Contains("must be positive, got 8 and 0"), bad_argument);
  const system::drive_split whole_drive;
  CHECK(whole_drive.kv_heads == 1);
  CHECK(whole_drive.sequences == 1);
  CHECK(whole_drive.drives_used() == 1);

  // Work is conserved: two drives read the bytes of one, in half the time.
  const system::model_spec model = small_model();
  const kv_load whole = kv_access<insta>(model, {32, 1024, 1024}, 1).at(1536);
  const kv_load halves = kv_access<insta>(model, {32, 1024, 1024}, 2).at(1536);
  CHECK(halves.page_bytes == doctest::Approx(whole.page_bytes).epsilon(0.01));
  CHECK(halves.drive_s == doctest::Approx(whole.drive_s / 2).epsilon(0.03));
}

TEST_CASE("a model of another head size is refused") {
  system::model_spec model = small_model();
  model.head_dim = 64;
  CHECK_THROWS_WITH_AS(
      (kv_access<insta>(model, {1, 64, 64}, 1)),
      doctest::Contains("ten heads has heads of 64 dims of 2 bytes, the format has 128 of 2"),
      bad_argument);
}

}  // namespace instinfer::test_kv_access
