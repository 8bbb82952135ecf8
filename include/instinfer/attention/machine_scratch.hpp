#pragma once
// The scratch of a machine, apart from its path's arithmetic: the plan, selections, and queries
// that a policy derived.

#include <vector>

#include "instinfer/core/access_plan.hpp"

namespace instinfer::attention {

// For one attend at a time on one worker. Keeps its memory between calls. A view of a selection or
// query stays valid when others are added: moving a vector does not move its elements.
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
