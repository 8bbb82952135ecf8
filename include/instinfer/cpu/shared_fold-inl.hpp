#pragma once
// The fold of a head's rows by a team: each part of the plan goes into its own state, then all
// states are merged in order.

#include <vector>

#include "instinfer/core/team.hpp"
#include "instinfer/cpu/plan_parts-inl.hpp"
#include "instinfer/cpu/row_fold-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace instinfer::cpu {
inline namespace HWY_NAMESPACE {

template <class Format>
class shared_fold {
 public:
  // Folds reads [0, last) of the plan into heads [first_head, ...) of `to`. q [heads, k_dim] is
  // multiplied by the logits' scale.
  template <class Pages>
  void fold(std::span<const float> q, float soft_cap, const access_plan& plan, std::size_t last,
            const Pages& pages, const team& with, group_state& to, std::uint32_t first_head) {
    const std::uint32_t parts = with.parts_of(bytes_of(plan, last, with));
    if (folds_.size() < parts) {
      folds_.resize(parts);
      states_.resize(parts);
    }
    if (parts == 1) {
      folds_[0].fold(q, soft_cap, plan, 0, last, pages, to, first_head);
      return;
    }
    cut_plan(plan, 0, last, parts, cuts_);
    const auto heads = static_cast<std::uint32_t>(q.size() / Format::k_dim);
    with.for_each_part(parts, [&](std::uint32_t part) {
      states_[part].reset(heads, Format::v_dim);
      folds_[part].fold(q, soft_cap, plan, cuts_[part], cuts_[part + 1], pages, states_[part], 0);
    });
    for (std::uint32_t part = 0; part < parts; ++part) {
      to.merge(states_[part], first_head);
    }
  }

 private:
  // Bytes that reads [0, last) want; not counted if there is one part anyway.
  static std::uint64_t bytes_of(const access_plan& plan, std::size_t last, const team& with) {
    using packed = typename Format::packed;
    return with.parts() == 1
               ? 0
               : wanted_elements(plan, 0, last) * sizeof(packed) / packed_elements<packed>;
  }

  std::vector<row_fold<Format>> folds_;  // [parts]
  std::vector<group_state> states_;      // [parts]
  std::vector<std::size_t> cuts_;        // [parts + 1]
};

}  // namespace HWY_NAMESPACE
}  // namespace instinfer::cpu
HWY_AFTER_NAMESPACE();
