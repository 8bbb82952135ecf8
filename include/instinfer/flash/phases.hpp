#pragma once
// The load of attention on the drive, phase by phase: a phase is one reading operation of all heads together, since the
// drive interleaves heads and no head's next operation can start before its selection is made.

#include <algorithm>
#include <span>
#include <utility>
#include <vector>

#include "instinfer/attention/machine.hpp"

namespace instinfer::flash {

struct phase_load {
  attention::operation op = attention::operation::fold;
  std::vector<page_id> pages;         // flash reads in the order of the plan
  std::uint64_t buffer_bytes = 0;     // wanted entries in the group buffer
  std::uint64_t gemv_flops = 0;       // 2 a wanted element and query head
  std::uint64_t scores = 0;           // softmax inputs
  std::uint64_t ranked_elements = 0;  // that arg-top-k sees before this phase

  // Heads after one another; both are the same phase of the same program.
  void add(const phase_load& head) {
    op = head.op;
    pages.insert(pages.end(), head.pages.begin(), head.pages.end());
    buffer_bytes += head.buffer_bytes;
    gemv_flops += head.gemv_flops;
    scores += head.scores;
    ranked_elements += head.ranked_elements;
  }
};

// Observes one head's machine.
class head_phases {
 public:
  head_phases(std::uint32_t group, std::uint32_t k_dim, std::uint32_t element_bytes)
      : group_{group}, k_dim_{k_dim}, element_bytes_{element_bytes} {}

  void chose(attention::operation op, index_view chosen) {
    if (op == attention::operation::all_tokens) {
      visible_ = chosen.count();
    } else if (op == attention::operation::top_dims) {
      ranked_ += k_dim_;
    } else if (op == attention::operation::top_tokens) {
      ranked_ += visible_;
    }
  }

  void accessed(attention::operation op, const access_plan& plan) {
    phase_load& phase = phases_.emplace_back();
    phase.op = op;
    phase.ranked_elements = std::exchange(ranked_, 0);
    std::uint32_t scored_tile = no_tile;
    for (const page_read& read : plan.reads()) {
      if (read.from != tier::flash) {
        continue;  // attended where the copy is, not in the drive
      }
      if (read.buffered) {
        phase.buffer_bytes += read.wanted_elements() * element_bytes_;
      } else {
        phase.pages.push_back(read.page);
      }
      phase.gemv_flops += 2 * read.wanted_elements() * group_;
      if (read.kind != stream::v_by_token &&
          read.token_tile != scored_tile) {  // one score a token, however many dim tiles
        scored_tile = read.token_tile;
        phase.scores += std::uint64_t{read.tokens.count} * group_;
      }
    }
  }

  std::span<const phase_load> phases() const { return phases_; }

 private:
  static constexpr std::uint32_t no_tile = 0xFFFF'FFFFu;
  std::uint32_t group_;
  std::uint32_t k_dim_;
  std::uint32_t element_bytes_;
  std::uint32_t visible_ = 0;
  std::uint64_t ranked_ = 0;
  std::vector<phase_load> phases_;
};

// Observes an attend call: one head_phases a KV head.
class attend_phases {
 public:
  attend_phases(std::uint32_t kv_heads, std::uint32_t group, std::uint32_t k_dim,
                std::uint32_t element_bytes)
      : heads_(kv_heads, head_phases{group, k_dim, element_bytes}) {}

  head_phases& head(std::uint32_t h) { return heads_[h]; }

  // Adds phase i of every head to all[i].
  void add_to(std::vector<phase_load>& all) const {
    for (const head_phases& head : heads_) {
      all.resize(std::max(all.size(), head.phases().size()));
      for (std::size_t i = 0; i < head.phases().size(); ++i) {
        all[i].add(head.phases()[i]);
      }
    }
  }

 private:
  std::vector<head_phases> heads_;
};

}  // namespace instinfer::flash
