#pragma once
// Parallel policies: who runs independent tasks. The library starts no thread by itself.
//
//   serial        one after the other on the caller's thread (the default)
//   openmp        an OpenMP team; needs -fopenmp
//   on_pool<F>    your thread pool, wrapped by a callable: pool(count, task) runs task(i, worker) for every i
//   in_parts<P>   another policy, with results that do not depend on its number of workers

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

// for_each(count, task) calls task(index, worker) once for every index in [0, count) and returns when all are done.
// worker < workers(); two tasks that run at the same time have different workers. Engines sort tasks, longest first: whoever
// hands them out one by one to idle workers balances them. Tasks of engines do not throw.
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

// Long heads are cut into page ranges and the partial sums merged. By default there are as many parts as workers, so that the
// last bits of a result may change with their number. In a fixed number of parts they do not; 1 part gives the bits of a
// serial attend. Not less than the number of workers keeps all of them busy.
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

// Most workers, and most parts of a head, that an engine takes: each has scratch of its own.
inline constexpr std::size_t most_workers = 1 << 16;

// Page ranges that a long head is cut into. Throws bad_argument unless workers and parts are 1 to most_workers.
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
  if constexpr (requires { policy.parts(); }) {
    return checked(policy.parts(), "parts");
  } else {
    return workers;
  }
}

}  // namespace instinfer::parallel
