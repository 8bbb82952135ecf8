// How far a store reads ahead: deeper as long as the drive gains, and no deeper.

#include <algorithm>
#include <cstddef>

#include <doctest/doctest.h>

#include "instinfer/drive/read_depth.hpp"

namespace instinfer::test_read_depth {

namespace {

constexpr std::size_t mib = std::size_t{1} << 20;

// After many operations on a drive whose rate grows with the bytes on their way up to `enough`.
std::size_t learned(std::size_t enough, drive::read_depth depth = {}) {
  for (int i = 0; i < 50; ++i) {
    const double rate = 1e9 * static_cast<double>(std::min(depth.bytes(), enough)) / (32 * mib);
    depth.learn(256 * mib, 256 * mib / rate, true);
  }
  return depth.bytes();
}

}  // namespace

TEST_CASE("a drive that needs depth gets it, another one does not") {
  CHECK(learned(32 * mib) == 32 * mib);
  CHECK(learned(64 * mib) == 32 * mib);  // the most
  // One step further brings nothing, so it goes back, and never below half of what is needed.
  CHECK(learned(8 * mib) == 8 * mib);
  CHECK(learned(1 * mib) <= 4 * mib);
}

TEST_CASE("a drive that becomes deeper is followed within 64 operations") {
  drive::read_depth depth;
  for (int i = 0; i < 50; ++i) {
    depth.learn(256 * mib, 1.0, true);  // the same rate at every depth
  }
  CHECK(depth.bytes() <= 4 * mib);
  std::size_t most = 0;
  for (int i = 0; i < 64 * 4; ++i) {
    depth.learn(256 * mib, 1.0 / static_cast<double>(depth.bytes()), true);
    most = std::max(most, depth.bytes());
  }
  CHECK(most == 32 * mib);
}

TEST_CASE("short operations, and those whose kernel never waited, teach nothing") {
  drive::read_depth depth;
  const std::size_t before = depth.bytes();
  depth.learn(256 * mib, 1.0, false);
  depth.learn(2 * before - 1, 1.0, true);
  depth.learn(256 * mib, 0.0, true);
  CHECK(depth.bytes() == before);
  depth.learn(2 * before, 1.0, true);
  CHECK(depth.bytes() == 2 * before);
}

}  // namespace instinfer::test_read_depth
