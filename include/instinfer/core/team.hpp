#pragma once
// The workers that share one head: a parallel policy with its type erased, so that one type of
// arithmetic works with every policy.

#include <cstdint>
#include <exception>
#include <vector>

#include "instinfer/core/parallel.hpp"

namespace instinfer {

class team {
 public:
  team() = default;  // one part, on the caller's thread

  // Splits work into `parts` parts on the policy's workers. The policy and `failures` (scratch)
  // must outlive the team.
  template <parallel::Parallel P>
  team(const P& policy, std::uint32_t parts, std::vector<std::exception_ptr>& failures)
      : parts_{parts},
        failures_{&failures},
        policy_{&policy},
        run_{[](const void* p, std::size_t n, task part) {
          static_cast<const P*>(p)->for_each(
              n, [part](std::size_t i, std::size_t) { part.call(part.f, i); });
        }} {}

  std::uint32_t parts() const { return parts_; }

  // Calls f(part) for every part in [0, parts()) and returns when all are done. Rethrows the
  // exception of the lowest-numbered part that failed.
  template <class F>
  void for_each_part(F&& f) const {
    if (run_ == nullptr) {
      f(std::uint32_t{0});
      return;
    }
    failures_->assign(parts_, nullptr);
    const auto guarded = [&](std::size_t part) {
      try {
        f(static_cast<std::uint32_t>(part));
      } catch (...) {
        (*failures_)[part] = std::current_exception();
      }
    };
    run_(policy_, parts_, {&guarded, [](const void* g, std::size_t part) {
                             (*static_cast<const decltype(guarded)*>(g))(part);
                           }});
    for (const std::exception_ptr& failure : *failures_) {
      if (failure) {
        std::rethrow_exception(failure);
      }
    }
  }

 private:
  struct task {
    const void* f;
    void (*call)(const void*, std::size_t);
  };

  std::uint32_t parts_ = 1;
  std::vector<std::exception_ptr>* failures_ = nullptr;
  const void* policy_ = nullptr;
  void (*run_)(const void*, std::size_t, task) = nullptr;
};

}  // namespace instinfer
