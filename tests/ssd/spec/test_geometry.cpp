// Counts, validity and use as a template argument.

#include <doctest/doctest.h>

#include <string>

#include "instinfer/ssd/spec/geometry.hpp"

namespace instinfer::test_geometry {

using flash::geometry;

namespace {

constexpr geometry small{.channels = 3,
                         .chips = 2,
                         .dies = 2,
                         .planes = 4,
                         .blocks = 5,
                         .pages = 7,
                         .page_bytes = 4096,
                         .spare_bytes = 128,
                         .codeword_bytes = 1024};

template <geometry G>
struct at_compile_time {
  static constexpr std::int64_t pages = G.pages_total();
};

static_assert(flash::valid(small));
static_assert(flash::valid(geometry{}));
static_assert(!flash::valid(geometry{.channels = 0}));
static_assert(at_compile_time<small>::pages == 3 * 2 * 2 * 4 * 5 * 7);

std::string complaint(const geometry& g) {
  try {
    flash::validate(g);
  } catch (const instinfer::bad_argument& e) {
    return e.what();
  }
  return "";
}

}  // namespace

TEST_CASE("geometry: counts multiply up") {
  CHECK(small.dies_per_channel() == 4);
  CHECK(small.dies_total() == 12);
  CHECK(small.pages_per_channel() == 4 * 4 * 35);
  CHECK(small.pages_total() == 3 * small.pages_per_channel());
  CHECK(small.blocks_total() == 3 * 4 * 4 * 5);
  CHECK(small.bytes() == small.pages_total() * 4096);
  CHECK(small.bus_bytes() == 4224);
  CHECK(small.codewords_per_page() == 4);
}

TEST_CASE("geometry: large drives do not overflow") {
  const geometry big{.channels = 64,
                     .chips = 16,
                     .dies = 8,
                     .planes = 4,
                     .blocks = 4096,
                     .pages = 4096,
                     .page_bytes = 16384,
                     .codeword_bytes = 16384};
  CHECK(flash::valid(big));
  CHECK(big.bytes() == std::int64_t{1} << (6 + 4 + 3 + 2 + 12 + 12 + 14));
}

TEST_CASE("geometry: a bad field is named with its value") {
  CHECK(complaint(small).empty());
  const auto names = [](geometry g, const char* field, const char* value) {
    const std::string text = complaint(g);
    INFO(text);
    CHECK(text.find(field) != std::string::npos);
    CHECK(text.find(value) != std::string::npos);
    CHECK(!flash::valid(g));
  };
  names({.channels = 0}, "channels", "0");
  names({.chips = -1}, "chips", "-1");
  names({.dies = 0}, "dies", "0");
  names({.planes = 65}, "planes", "65");
  names({.blocks = 0}, "blocks", "0");
  names({.pages = -7}, "pages", "-7");
  names({.page_bytes = 0}, "page_bytes", "0");
  names({.spare_bytes = -5}, "spare_bytes", "-5");
  names({.page_bytes = 4096, .codeword_bytes = 1000}, "codeword_bytes", "1000");
  names({.channels = 1 << 20, .chips = 1 << 20}, "chips", "2^31");
  names({.channels = 1 << 10, .chips = 1 << 10, .blocks = 1 << 30, .pages = 1 << 30}, "blocks",
        "2^63");
}

}  // namespace instinfer::test_geometry
