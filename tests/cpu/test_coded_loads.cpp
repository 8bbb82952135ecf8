// Vectors of codes against the codecs, element by element and to the bit: every 8-bit code, every
// place in a group.

#include <algorithm>
#include <random>
#include <vector>

#include <doctest/doctest.h>

#include "instinfer/cpu/coded_load-inl.hpp"

using namespace instinfer;

namespace {

template <class Codec>
void check_vectors(const std::vector<typename Codec::packed>& packed, std::size_t elements,
                   std::size_t step) {
  const float factor = cpu::load_factor<typename Codec::packed>;
  for (std::size_t i = 0; i + cpu::lanes <= elements; i += step) {
    float loaded[cpu::lanes];
    cpu::hn::StoreU(cpu::load_at(packed.data(), i), cpu::float_tag{}, loaded);
    for (std::size_t lane = 0; lane < cpu::lanes; ++lane) {
      REQUIRE(loaded[lane] * factor == Codec::value(packed.data(), i + lane));
      REQUIRE(cpu::value_at<Codec>(packed.data(), i + lane) == loaded[lane]);
    }
  }
}

}  // namespace

TEST_CASE("int8: every code, at any alignment") {
  std::vector<std::int8_t> codes;
  for (int c = -128; c < 128; ++c) {
    codes.push_back(static_cast<std::int8_t>(c));
  }
  check_vectors<int8_pages<>>(codes, codes.size(), 1);
}

TEST_CASE("fp8: every code that pages hold, at any alignment") {
  std::vector<fp8> codes;
  for (int c = 0; c < 256; ++c) {
    if (c % 128 != 127) {
      codes.push_back({static_cast<std::uint8_t>(c)});
    }
  }
  check_vectors<fp8_pages<>>(codes, codes.size(), 1);
}

TEST_CASE("int4: every place of groups with all codes, steps and minima of any size") {
  std::mt19937 random(5);
  std::vector<int4_group> groups(40);
  for (int4_group& g : groups) {
    std::ranges::generate(g.codes, [&] { return static_cast<std::uint8_t>(random()); });
    g.step = fp16{static_cast<std::uint16_t>(random() % 0x7000)};
    g.low = fp16{static_cast<std::uint16_t>(random() % 0x7000 | (random() % 2) << 15)};
  }
  check_vectors<int4_groups<>>(groups, groups.size() * int4_group::size, cpu::lanes);
}

TEST_CASE("fp8 latent rows: every dim of rows with any codes and scales") {
  std::mt19937 random(6);
  std::vector<fp8_latent_row> rows(5);
  for (fp8_latent_row& row : rows) {
    std::ranges::generate(row.codes, [&] {
      return fp8{static_cast<std::uint8_t>(random() % 127 | (random() & 128))};  // 127 is NaN
    });
    std::ranges::generate(row.scales, [&] { return static_cast<float>(random() % 1000) * 0.01f; });
    std::ranges::generate(row.rotated, [&] {
      return from_float<bf16>(static_cast<float>(random() % 1000) - 500.0f);
    });
  }
  check_vectors<fp8_latent_rows>(rows, rows.size() * fp8_latent_row::size, cpu::lanes);
}
