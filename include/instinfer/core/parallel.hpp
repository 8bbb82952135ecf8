#pragma once
// Parallel policies: what runs independent tasks. The library itself starts no thread.
//
//   serial        one task after the other on the caller's thread (the default)
//   openmp        an OpenMP team; needs -fopenmp
//   on_pool<F>    your thread pool, as a callable: pool(count, task) runs task(i, worker) for all i
//   in_parts<P>   another policy, with results that depend neither on its number of workers nor on
//                 the other sequences of a batch

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#if defined(_OPENMP)
#include <omp.h>
#endif

#include "instinfer/core/errors.hpp"

namespace instinfer::parallel {

// for_each(count, task) calls task(index, worker) once for every index in [0, count), and returns
// when all calls are done. worker < workers(); two tasks that run at the same time have different
// workers. Engines sort their tasks longest first, so giving them one by one to idle workers
// balances the load. The tasks of engines do not throw.
template <class P>
concept Parallel = requires(const P& p, void (*task)(std::size_t, std::size_t)) {
  { p.workers() } -> std::convertible_to<std::size_t>;
  p.for_each(std::size_t{}, task);
};

struct serial {
  std::size_t workers() const { return 1; }
  template <class Task>
  void for_each(std::size_t count, Task&& task) const {
    for (std::size_t i = 0; i < count; ++i) {
      task(i, std::size_t{0});
    }
  }
};

#if defined(_OPENMP)
struct openmp {
  int threads = omp_get_max_threads();

  std::size_t workers() const { return static_cast<std::size_t>(threads); }
  template <class Task>
  void for_each(std::size_t count, Task&& task) const {
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
    for (std::size_t i = 0; i < count; ++i) {
      task(i, static_cast<std::size_t>(omp_get_thread_num()));
    }
  }
};
#endif

template <class Run>
class on_pool {
 public:
  on_pool(std::size_t workers, Run run) : workers_{workers}, run_{std::move(run)} {}

  std::size_t workers() const { return workers_; }
  template <class Task>
  void for_each(std::size_t count, Task&& task) const {
    run_(count, task);
  }

 private:
  std::size_t workers_;
  Run run_;
};

// Engines split long heads into page ranges and merge the partial sums. By default a head is split
// where whole heads would leave workers idle, into as many parts as there are workers. So the last
// bits of a result may change with the workers and with the batch. Under in_parts every plan is
// split, into a number of parts that depends on its own size alone: one for each least_part_bytes,
// at most `parts`. So a sequence has the same bits alone, in any batch, and by any workers; 1 part
// gives the bits of a serial attend. Use at least as many parts as workers to keep all workers
// busy. A head that one worker computes takes up to 2.5 % more instructions in parts.
template <Parallel P>
class in_parts {
 public:
  in_parts(std::uint32_t parts, P policy) : parts_{parts}, policy_{std::move(policy)} {}

  std::uint32_t parts() const { return parts_; }
  std::size_t workers() const { return policy_.workers(); }
  template <class Task>
  void for_each(std::size_t count, Task&& task) const {
    policy_.for_each(count, task);
  }

 private:
  std::uint32_t parts_;
  P policy_;
};

// The least part under in_parts. A part costs 0.3 us for one query head and 1.3 us for 8 (Zen 4,
// fp16, head size 128); reading 512 KiB takes 12 and 40 us there.
inline constexpr std::uint64_t least_part_bytes = 512 << 10;

// Whether results of the policy are to depend on neither workers nor batch.
template <class P>
inline constexpr bool fixes_parts = requires(const P& p) { p.parts(); };

// The most workers, and the most parts of a head, that an engine takes. Each has its own scratch.
inline constexpr std::size_t most_workers = 1 << 16;

// Number of page ranges that a long head is split into. Throws bad_argument unless the policy has 1
// to most_workers workers and parts.
template <Parallel P>
std::uint32_t parts_of(const P& policy) {
  const auto checked = [](std::size_t n, const char* what) {
    require(n > 0 && n <= most_workers, [&] {
      return std::string("attend: the parallel policy must have 1 to ") +
             std::to_string(most_workers) + " " + what + ", has " +
             std::to_string(static_cast<std::ptrdiff_t>(n));
    });
    return static_cast<std::uint32_t>(n);
  };
  const std::uint32_t workers = checked(policy.workers(), "workers");
  if constexpr (fixes_parts<P>) {
    return checked(policy.parts(), "parts");
  } else {
    return workers;
  }
}

}  // namespace instinfer::parallel
