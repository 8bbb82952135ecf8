#pragma once
// The fold of a head's rows by a team: each part of the plan goes into its own state, then all
// states are merged in order.

#include <type_traits>
#include <variant>
#include <vector>

#include "instinfer/core/team.hpp"
#include "instinfer/cpu/fold/matrix_fold-inl.hpp"
#include "instinfer/cpu/fold/plan_parts-inl.hpp"
#include "instinfer/cpu/fold/row_fold-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace instinfer::cpu {
inline namespace HWY_NAMESPACE {

// The fold of one part: by matrix tiles where the processor has them and the group fills them, or
// by rows.
template <class Format, tuning T>
class part_fold {
 public:
  template <class Pages>
  void fold(const attention::query_group& q, std::span<const float> scaled_q,
            const access_plan& plan, std::size_t first, std::size_t last, const Pages& pages,
            group_state& to, std::uint32_t first_head) {
    if constexpr (folds_by_matrix<Format>) {
      if (q.group >= T.matrix_heads && matrix_tiles_allowed()) {
        by_matrix_.fold(q, scaled_q, plan, first, last, pages, to, first_head);
        return;
      }
    }
    by_rows_.fold(q, scaled_q, plan, first, last, pages, to, first_head);
  }

 private:
  row_fold<Format, T> by_rows_;
  std::conditional_t<folds_by_matrix<Format>, matrix_fold<Format, T>, std::monostate> by_matrix_;
};

template <class Format, tuning T>
class shared_fold {
 public:
  // Folds reads [0, last) of the plan into heads [q.first_head, ...) of `to`. scaled_q [heads,
  // k_dim]: the values of q times the scale.
  template <class Pages>
  void fold(const attention::query_group& q, std::span<const float> scaled_q,
            const access_plan& plan, std::size_t last, const Pages& pages, const team& with,
            group_state& to) {
    const std::uint32_t parts = with.parts_of(bytes_of(plan, last, with));
    if (folds_.size() < parts) {
      folds_.resize(parts);
      states_.resize(parts);
    }
    if (parts == 1) {
      folds_[0].fold(q, scaled_q, plan, 0, last, pages, to, q.first_head);
      return;
    }
    cut_plan(plan, 0, last, parts, cuts_);
    with.for_each_part(parts, [&](std::uint32_t part) {
      states_[part].reset(q.group, Format::v_dim);
      folds_[part].fold(q, scaled_q, plan, cuts_[part], cuts_[part + 1], pages, states_[part], 0);
    });
    for (std::uint32_t part = 0; part < parts; ++part) {
      to.merge(states_[part], q.first_head);
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

  std::vector<part_fold<Format, T>> folds_;  // [parts]
  std::vector<group_state> states_;          // [parts]
  std::vector<std::size_t> cuts_;            // [parts + 1]
};

}  // namespace HWY_NAMESPACE
}  // namespace instinfer::cpu
HWY_AFTER_NAMESPACE();
