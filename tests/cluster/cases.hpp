#pragma once
// What the cases of engines over MPI share: engines, shapes, and workers that are watched. Every
// rank runs the same cases; rank 0 checks results, all ranks check what the construction refuses.

#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "beside_one_engine.hpp"
#include "instinfer/flash.hpp"
#include "tests/support/counted_allocations.hpp"
#include "tests/support/shared_attends.hpp"

namespace instinfer::test {

using format = kv_format<fp16, 64>;
using dense = cpu::engine<insta, format>;
using sparf = cpu::engine<insta_sparf, format>;

// 7 KV heads on 1 to 5 drives, two query heads each.
inline constexpr model_shape shape{.layers = 2, .q_heads = 14, .kv_heads = 7};
inline const store::capacity memory{.bytes = 24 << 20, .context_tokens = 1024};

// The allocations of this rank at the start of each attend, which may fail.
struct watched {
  static inline std::vector<std::int64_t> at_start;
  static inline int until_failure = 0;  // the first to count down to 0 fails
  std::size_t workers() const { return 1; }
  template <class Task>
  void for_each(std::size_t count, Task&& task) const {
    if (at_start.size() < at_start.capacity()) {
      at_start.push_back(allocations);
    }
    if (until_failure > 0 && --until_failure == 0) {
      throw io_error("page 5 cannot be read", 5);
    }
    parallel::serial{}.for_each(count, task);
  }
};

template <class Engine, class Split>
using many = cluster::engine<Engine, Split, watched>;

inline std::vector<cluster::options> roles() {
  std::vector<cluster::options> both{{.host_holds = true}};
  if (world_size() > 1) {
    both.push_back({.host_holds = false});
  }
  return both;
}

// Whether as many drives can share the model.
template <class Split>
bool can_share(const Split& split, const cluster::options& role) {
  if constexpr (requires { split.head_groups; }) {
    return (world_size() - (role.host_holds ? 0 : 1)) % split.head_groups == 0;
  } else {
    return true;
  }
}

}  // namespace instinfer::test
