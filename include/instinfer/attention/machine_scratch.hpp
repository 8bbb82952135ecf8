#pragma once
// What a machine works with besides its path's arithmetic: the plan, selections, and queries that a policy derived.

#include <vector>

#include "instinfer/core/access_plan.hpp"

namespace instinfer::attention {

// Of one attend on one worker. Keeps its memory between calls. Views of a selection stay valid while others are added: a set
// or a query that moves keeps its values where they are.
class machine_scratch {
 public:
  access_plan plan;

  void begin() {
    used_selections_ = 0;
    used_queries_ = 0;
  }

  index_set& next_selection() {
    if (used_selections_ == selections_.size()) {
      selections_.emplace_back();
    }
    selections_[used_selections_].clear();
    return selections_[used_selections_++];
  }

  std::vector<float>& next_query() {
    if (used_queries_ == queries_.size()) {
      queries_.emplace_back();
    }
    return queries_[used_queries_++];
  }

 private:
  std::vector<index_set> selections_;
  std::vector<std::vector<float>> queries_;
  std::size_t used_selections_ = 0;
  std::size_t used_queries_ = 0;
};

}  // namespace instinfer::attention
