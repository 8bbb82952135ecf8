#pragma once
// Parallel policies: who runs independent tasks. The library starts no thread by itself.
//
//   serial        one after the other on the caller's thread (the default)
//   openmp        an OpenMP team; needs -fopenmp
//   on_pool<F>    your thread pool, wrapped by a callable: pool(count, task) runs task(i, worker) for every i

#include <concepts>
#include <cstddef>
#include <utility>

#if defined(_OPENMP)
#include <omp.h>
#endif

namespace instinfer::parallel {

// for_each(count, task) calls task(index, worker) once for every index in [0, count) and returns when all are done.
// worker < workers(); two tasks that run at the same time have different workers. Exceptions that a task throws are
// the policy's to carry; engines pass tasks that throw only on internal errors.
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

}  // namespace instinfer::parallel
