#pragma once
// The parts that a head's plans are split into, and the workers that share them: a parallel policy
// with its type erased, so that one type of arithmetic works with every policy.

#include <algorithm>
#include <cstdint>
#include <exception>
#include <vector>

#include "instinfer/core/parallel.hpp"

namespace instinfer {

class team {
 public:
  team() = default;  // one part, on the caller's thread

  // The parts of in_parts, one after the other on the caller's thread.
  explicit team(std::uint32_t parts) : parts_{parts}, fixed_{true} {}

  // Splits work into `parts` parts on the policy's workers. The policy and `failures` (scratch)
  // must outlive the team.
  template <parallel::Parallel P>
  team(const P& policy, std::uint32_t parts, std::vector<std::exception_ptr>& failures)
      : parts_{parts},
        fixed_{parallel::fixes_parts<P>},
        failures_{&failures},
        policy_{&policy},
        run_{[](const void* p, std::size_t n, task part) {
          static_cast<const P*>(p)->for_each(
              n, [part](std::size_t i, std::size_t) { part.call(part.f, i); });
        }} {}

  // The most parts.
  std::uint32_t parts() const { return parts_; }
  // Parts of a fold over `bytes` of K and V. Its bits depend on this number.
  std::uint32_t parts_of(std::uint64_t bytes) const {
    const std::uint64_t fitting = bytes / parallel::least_part_bytes;
    return fixed_ ? static_cast<std::uint32_t>(std::clamp<std::uint64_t>(fitting, 1, parts_))
                  : parts_;
  }

  // Calls f(part) for every part in [0, n), n <= parts(), and returns when all are done. Rethrows
  // the exception of the lowest-numbered part that failed.
  template <class F>
  void for_each_part(std::uint32_t n, F&& f) const {
    if (run_ == nullptr || n == 1) {
      for (std::uint32_t part = 0; part < n; ++part) {
        f(part);
      }
      return;
    }
    failures_->assign(n, nullptr);
    const auto guarded = [&](std::size_t part) {
      try {
        f(static_cast<std::uint32_t>(part));
      } catch (...) {
        (*failures_)[part] = std::current_exception();
      }
    };
    run_(policy_, n, {&guarded, [](const void* g, std::size_t part) {
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
  bool fixed_ = false;
  std::vector<std::exception_ptr>* failures_ = nullptr;
  const void* policy_ = nullptr;
  void (*run_)(const void*, std::size_t, task) = nullptr;
};

}  // namespace instinfer
