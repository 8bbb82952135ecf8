// SparF, and layouts by dim, by mixed tiles and by none of the shapes that kernels know, over
// quantised pages.

#include "instinfer/layout/dim_indexed.hpp"
#include "odd_layouts.hpp"
#include "quantised.hpp"

using namespace instinfer;

namespace {

template <class Policy, class Layout>
using in_drive = design<Policy, Layout, flash::instcsd, transfer::in_storage>;

using int8_64 = kv_format<int8_pages<fp16>, 64>;
using fp8_64 = kv_format<fp8_pages<fp16>, 64>;
using int4_64 = kv_format<int4_groups<fp16>, 64>;

}  // namespace

TEST_CASE_TEMPLATE(
    "SparF: K by dim and by token are rounded apart, and the mean is that of stored V", Format,
    int8_64, int4_64) {
  const attention::sparf policy{.keep_dims = 0.25, .keep_tokens = 0.2};
  test::check_life<reference::engine<insta_sparf, Format>, Format>(41, 3, policy);
  test::check_life<cpu::engine<insta_sparf, Format>, Format>(42, 1, policy);
  test::check_life<cpu::engine<insta_sparf, Format>, Format>(43, 4, policy);
}

TEST_CASE("SparF over fp8, from one copy of K") {
  using by_dim = in_drive<attention::sparf, layout::dim_indexed<>>;
  test::check_life<cpu::engine<by_dim, fp8_64>, fp8_64>(44, 2);
  test::check_coded_traffic<by_dim, fp8_64, cpu::path>(700);
  test::check_coded_traffic<insta_sparf, int4_64, cpu::path>(700);
}

TEST_CASE("any tile") {
  test::check_life<cpu::engine<in_drive<attention::dense, test::long_k_rows>, int8_64>, int8_64>(45,
                                                                                                 3);
  test::check_life<reference::engine<in_drive<attention::dense, test::scattered>, int4_64>,
                   int4_64>(46, 3);
  test::check_life<cpu::engine<in_drive<attention::dense, test::scattered>, int4_64>, int4_64>(47,
                                                                                               3);
}

TEST_CASE("dim-indexed tiles begin their dims at whole groups") {
  for (const std::uint32_t context : {1000u, 3000u, 5000u, 40000u}) {
    const layout::tiling tiles = layout::checked_tiles<int4_64, layout::dual<>>(context);
    CHECK(tiles.k_by_dim.dim_stride % int4_group::size == 0);
    CHECK(tiles.k_by_dim.dim_stride >= tiles.k_by_dim.tokens);
    CHECK(tiles.k_by_dim.tokens % tiles.v_by_token.tokens == 0);
  }
}
