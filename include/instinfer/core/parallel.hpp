#pragma once
// Parallel policies: what runs independent tasks. The library itself starts no thread.
//
//   serial        one task after the other on the caller's thread (the default)
//   openmp        an OpenMP team; needs -fopenmp
//   on_pool<F>    your thread pool, as a callable: pool(count, task) runs task(i, worker) for all i
//   in_parts<P>   another policy, with results that do not depend on its number of workers

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <utility>

#if defined(_OPENMP)
#include <omp.h>
#endif

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

// Engines split long heads into page ranges and merge the partial sums. By default the number of
// parts is the number of workers, so the last bits of a result may change with it. A fixed number
// of parts removes this dependence; 1 part gives the bits of a serial attend. Use at least as many
// parts as workers to keep all workers busy.
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

// Number of page ranges that a long head is split into.
template <Parallel P>
std::uint32_t parts_of(const P& policy) {
  if constexpr (requires { policy.parts(); }) {
    return policy.parts();
  } else {
    return static_cast<std::uint32_t>(policy.workers());
  }
}

}  // namespace instinfer::parallel
