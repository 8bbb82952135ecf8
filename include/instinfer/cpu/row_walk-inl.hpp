#pragma once
// Walks a plan in blocks that kernels can take at once: K and V rows of a fold, K columns of a score pass.

#include <vector>

#include "instinfer/core/access_plan.hpp"
#include "instinfer/cpu/score-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace instinfer::cpu {
inline namespace HWY_NAMESPACE {

// Wanted tokens of some pages as rows, [k_dim] and [v_dim]. Up to a multiple of lanes the arrays repeat their last row.
template <Element E>
struct row_block {
  // 64 rows amortise the maximum and the rescaling of a block, and at 16 KiB of K and of V fit L1 or nearly so.
  static constexpr std::size_t enough = 64;

  std::vector<const E*> k;
  std::vector<const E*> v;
  std::size_t count = 0;

  // Takes whole K tiles with the V pages under them from plan.reads()[at...] until there are enough rows.
  template <class Pages>
  void fill(const access_plan& plan, std::size_t& at, const Pages& pages) {
    k.clear();
    v.clear();
    const auto reads = plan.reads();
    while (at < reads.size() && (v.size() < enough || reads[at].kind == stream::v_by_token)) {
      const auto page = pages(reads[at]);
      std::vector<const E*>& rows = reads[at].kind == stream::v_by_token ? v : k;
      for (const index_run run : plan.tokens(reads[at]).runs()) {
        for (std::uint32_t t = run.first; t < run.last; ++t) {
          rows.push_back(page.data + std::size_t{t} * page.shape.token_stride);
        }
      }
      ++at;
    }
    count = k.size();
    while (k.size() % lanes != 0) {
      k.push_back(k.back());
      v.push_back(v.back());
    }
  }
};

// The wanted dims of one token tile as columns.
template <Element E>
struct column_block {
  std::vector<column<E>> columns;
  index_view tokens;  // wanted ones, local to the tile
  std::uint32_t first_token = 0;

  template <class Pages>
  void fill(const access_plan& plan, std::size_t& at, const Pages& pages) {
    columns.clear();
    const auto reads = plan.reads();
    for (const std::size_t begin = at;
         at < reads.size() && reads[at].token_tile == reads[begin].token_tile; ++at) {
      const auto page = pages(reads[at]);
      tokens = plan.tokens(reads[at]);
      first_token = reads[at].token_tile * page.shape.tokens;
      const std::uint32_t first_dim = reads[at].dim_tile * page.shape.dims;
      plan.dims(reads[at]).for_each([&](std::uint32_t i) {
        columns.push_back({page.data + std::size_t{i} * page.shape.dim_stride, first_dim + i});
      });
    }
  }
};

}  // namespace HWY_NAMESPACE
}  // namespace instinfer::cpu
HWY_AFTER_NAMESPACE();
