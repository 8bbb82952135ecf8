// Rows as operands of matrix tiles: where each value goes, stored as bf16 and as codes. Processors
// without matrix tiles have no such operands.

#include <doctest/doctest.h>

#include <random>
#include <vector>

#include "instinfer/core/shape.hpp"
#include "instinfer/cpu/fold/row_tiles-inl.hpp"

#if INSTINFER_MATRIX_TILES

using namespace instinfer;

namespace {

constexpr std::uint32_t rows = cpu::matrix_rows;

template <class Packed>
struct random_rows {
  std::vector<Packed> packed;
  std::array<const Packed*, rows> at{};
  static constexpr std::uint32_t dims = std::max(packed_elements<Packed>, 64u);

  // The code of a value, or a row of them. DeepSeek's rows get `scale`.
  explicit random_rows(unsigned seed, float scale = 0.25f) {
    std::mt19937 random(seed);
    std::uniform_int_distribution<int> codes(-100, 100);
    packed.resize(rows * dims / packed_elements<Packed>);
    for (Packed& p : packed) {
      if constexpr (std::is_same_v<Packed, bf16>) {
        p = from_float<bf16>(static_cast<float>(codes(random)) * 0.125f);
      } else if constexpr (std::is_same_v<Packed, std::int8_t>) {
        p = static_cast<std::int8_t>(codes(random));
      } else if constexpr (std::is_same_v<Packed, fp8>) {
        p = to_fp8(static_cast<float>(codes(random)));
      } else {
        std::ranges::generate(p.codes, [&] { return to_fp8(static_cast<float>(codes(random))); });
        std::ranges::generate(p.rotated,
                              [&] { return from_float<bf16>(static_cast<float>(codes(random))); });
        p.scales.fill(scale);
      }
    }
    for (std::uint32_t t = 0; t < rows; ++t) {
      at[t] = packed.data() + t * dims / packed_elements<Packed>;
    }
  }

  // As the kernels take it: codes of fp8 go without load_factor, which is in the page's scale.
  float value(std::uint32_t t, std::uint32_t d) const {
    if constexpr (std::is_same_v<Packed, std::int8_t>) {
      return static_cast<float>(at[t][d]);
    } else if constexpr (std::is_same_v<Packed, fp8_latent_row>) {
      return fp8_latent_rows::value(at[t], d);
    } else {
      return to_float(at[t][d]) / cpu::load_factor<Packed>;
    }
  }
};

}  // namespace

TEST_CASE_TEMPLATE("every value is in its place", packed, bf16, std::int8_t, fp8, fp8_latent_row) {
  const random_rows<packed> data(5);
  constexpr std::uint32_t dims = random_rows<packed>::dims;
  constexpr std::uint32_t stride = 2;
  constexpr std::uint32_t first = 1;
  constexpr std::uint32_t tiles = dims / 32 - first;
  std::vector<cpu::bf16_tile> left(tiles * stride);
  cpu::rows_by_dims<packed>(data.at, first, tiles, left.data(), stride);
  std::vector<cpu::bf16_tile> right(dims / cpu::matrix_rows);
  cpu::pair_of_rows(data.at[4], data.at[5], dims / cpu::matrix_rows, 2, right.data());
  for (std::uint32_t d = 0; d < dims; ++d) {
    CAPTURE(d);
    for (std::uint32_t t = 0; t < rows && d >= 32 * first; ++t) {
      const auto& tile = left[(d / 32 - first) * stride];
      CHECK(to_float(tile.values[t][d % 32]) == data.value(t, d));
    }
    const auto& pairs = right[d / cpu::matrix_rows].values[2];
    CHECK(to_float(pairs[d % cpu::matrix_rows * 2]) == data.value(4, d));
    CHECK(to_float(pairs[d % cpu::matrix_rows * 2 + 1]) == data.value(5, d));
  }
}

TEST_CASE("DeepSeek's rows with scales that are no powers of two are rounded to nearest") {
  const random_rows<fp8_latent_row> data(6, 0.3f);
  std::vector<cpu::bf16_tile> left(18);
  cpu::rows_by_dims<fp8_latent_row>(data.at, 0, 18, left.data(), 1);
  for (std::uint32_t d = 0; d < 576; ++d) {
    CAPTURE(d);
    const float exact = data.value(3, d);
    CHECK(to_float(left[d / 32].values[3][d % 32]) == to_float(from_float<bf16>(exact)));
  }
}

#else

TEST_CASE("without matrix tiles no format is folded by them") {
  CHECK(!instinfer::cpu::folds_by_matrix<instinfer::kv_format<instinfer::bf16, 128>>);
  CHECK(!instinfer::cpu::matrix_tiles_allowed());
}

#endif
