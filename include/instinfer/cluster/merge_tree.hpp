#pragma once
// Merges the results of drives that have tokens of the same heads, along a tree: that of
// MPI_Reduce.

#include <algorithm>
#include <cstddef>
#include <limits>
#include <span>

#include "instinfer/cluster/communicator.hpp"
#include "instinfer/core/merge_attention.hpp"

namespace instinfer::cluster {

// The host and some drives. Which ranks merge first is MPI's choice, and changes results by
// rounding only. The host reads one result, whatever the number of drives.
template <int v_dim>
class merge_tree {
 public:
  // A row is an output [v_dim] and its log_sum_exp.
  static constexpr std::size_t row = v_dim + 1;

  // Collective over all ranks. The host is rank 0, and always a member.
  merge_tree(const communicator& all, bool member) : ranks_{all, member || all.rank() == 0} {
    MPI_Type_contiguous(static_cast<int>(row), MPI_FLOAT, &type_);
    MPI_Type_commit(&type_);
    MPI_Op_create(&merge_rows, 1, &op_);
  }
  ~merge_tree() {
    MPI_Op_free(&op_);
    MPI_Type_free(&type_);
  }
  merge_tree(const merge_tree&) = delete;
  merge_tree& operator=(const merge_tree&) = delete;

  // Collective over the members, with as many rows on each. The host's become the merged ones.
  void merge(std::span<float> rows) { ranks_.reduce(rows, row, type_, op_); }

  // The results over no tokens.
  static void clear(std::span<float> rows) {
    std::fill(rows.begin(), rows.end(), 0.0f);
    for (std::size_t sum = row - 1; sum < rows.size(); sum += row) {
      rows[sum] = -std::numeric_limits<float>::infinity();
    }
  }

 private:
  static void merge_rows(void* from, void* to, int* count, MPI_Datatype*) noexcept {
    auto* other = static_cast<float*>(from);
    auto* out = static_cast<float*>(to);
    for (int r = 0; r < *count; ++r, other += row, out += row) {
      merge_attention(std::span(out, row - 1), std::span(out + (row - 1), 1),
                      std::span<const float>(other, row - 1),
                      std::span<const float>(other + (row - 1), 1));
    }
  }

  communicator ranks_;
  MPI_Datatype type_ = MPI_DATATYPE_NULL;
  MPI_Op op_ = MPI_OP_NULL;
};

}  // namespace instinfer::cluster
