// The threshold that keeps a wanted share of the tokens.

#include "instinfer/methods/squeezed.hpp"
#include "instinfer/methods/threshold_calibration.hpp"
#include "tests/support/decoder.hpp"

namespace instinfer::test_threshold_calibration {

using namespace test;
using attention::squeezed;

namespace {

// Clusters of 3 keys and of 1, as an index of one dim.
struct two_clusters {
  static constexpr std::size_t row_dim = 1;
  static constexpr std::size_t row_bytes = 4;
  std::array<float, 2> rows;
  std::uint32_t chunks() const { return 2; }
  std::span<const float> row(std::uint32_t u, std::span<float>) const {
    return std::span(rows).subspan(u, 1);
  }
  static void prepare(std::span<const float>, std::span<float>) {}
  std::uint32_t weight(std::uint32_t u) const { return u == 0 ? 3 : 1; }
  index_run members(std::uint32_t u) const { return u == 0 ? index_run{0, 3} : index_run{3, 4}; }
};

}  // namespace

TEST_CASE("a calibrated threshold keeps the wanted share of all heads' tokens together") {
  const int tokens = 700;
  const test::random_cache<method_format> data(83, tokens, 3, 3);
  const squeezed policy{.clusters = 0.2};
  decoder<squeezed, cpu::path> d(policy, 3, 3);
  d.append(data.k, data.v);
  d.build();
  attention::threshold_calibration calibration;
  std::uint32_t largest = 0;
  for (std::uint32_t h = 0; h < 3; ++h) {
    const auto& index = d.summary<attention::cluster_index>(h);
    calibration.add(index, rows_of(data.q, h, 1));
    for (std::uint32_t u = 0; u < index.chunks(); ++u) {
      largest = std::max(largest, index.weight(u));
    }
  }
  for (const double dropped : {0.0, 0.3, 0.5, 0.9, 0.97}) {
    squeezed calibrated = policy;
    calibrated.threshold = calibration.threshold(dropped);
    decoder<squeezed, cpu::path> kept(calibrated, 3, 3);
    kept.append(data.k, data.v);
    kept.build();
    kept.attend(data.q);
    double tokens_kept = -300.0;  // windows
    for (std::uint32_t h = 0; h < 3; ++h) {
      tokens_kept += static_cast<double>(kept.folded(h).size());
    }
    CHECK(tokens_kept >= 1800 * (1 - dropped) - 1e-6);
    CHECK(tokens_kept <= 1800 * (1 - dropped) + largest);
  }
}

TEST_CASE("calibration: by hand, and what it refuses") {
  attention::threshold_calibration calibration;
  CHECK(test::says(test::refusal_of([&] { (void)calibration.threshold(0.5); }), "no clusters"));
  const two_clusters head{{0.0f, std::log(2.0f)}};
  const std::array<float, 1> query{1.0f};
  calibration.add(head, query);              // of 3 + 2: each of the three 0.2, the other 0.4
  CHECK(calibration.threshold(0.5) == 0.0);  // dropping the three would be too much
  CHECK(calibration.threshold(0.75) == doctest::Approx(0.3));  // half-way
  for (const double bad : {1.0, -0.1, std::nan("")}) {
    CHECK(test::says(test::refusal_of([&] { (void)calibration.threshold(bad); }),
                     "the share to drop must lie in [0, 1), got"));
  }
  CHECK(test::says(test::refusal_of([&] { calibration.add(head, std::span<const float>{}); }),
                   "queries must be [n, 1], n > 0, got 0 values"));
  attention::threshold_calibration flat;  // all keys alike: whatever drops one drops all
  flat.add(two_clusters{{1.0f, 1.0f}}, query);
  CHECK(test::says(test::refusal_of([&] { (void)flat.threshold(0.8); }), "would keep nothing"));
  CHECK(flat.threshold(0.0) == 0.0);
}

}  // namespace instinfer::test_threshold_calibration
