#pragma once
// Persistent threads: a parallel policy whose calls take microseconds, not the time to start
// threads. Tasks go one by one to whoever is idle.

#include <atomic>
#include <thread>
#include <vector>

#include <instinfer/core/parallel.hpp>

namespace instinfer::bench {

class worker_pool {
 public:
  explicit worker_pool(std::size_t workers) {
    for (std::size_t w = 1; w < workers; ++w) {
      threads_.emplace_back([this, w] { serve(w); });
    }
  }
  ~worker_pool() {
    stop_ = true;
    start();
  }
  worker_pool(const worker_pool&) = delete;
  worker_pool& operator=(const worker_pool&) = delete;

  std::size_t workers() const { return threads_.size() + 1; }

  // One caller at a time.
  template <class Task>
  void for_each(std::size_t count, Task&& task) const {
    if (threads_.empty()) {
      parallel::serial{}.for_each(count, task);
      return;
    }
    count_ = count;
    task_ = &task;
    call_ = [](const void* t, std::size_t i, std::size_t w) {
      (*static_cast<std::remove_reference_t<Task>*>(const_cast<void*>(t)))(i, w);
    };
    next_ = 0;
    busy_ = threads_.size();
    start();
    work(0);
    for (std::size_t left = busy_; left > 0; left = busy_) {
      std::this_thread::yield();
    }
  }

 private:
  void start() const {
    ++round_;
    round_.notify_all();
  }
  void work(std::size_t w) const {
    for (std::size_t i = next_++; i < count_; i = next_++) {
      call_(task_, i, w);
    }
  }
  void serve(std::size_t w) const {
    for (unsigned seen = 0;;) {
      for (int spins = 0; round_ == seen && spins < 20'000; ++spins) {
      }
      round_.wait(seen);
      ++seen;
      if (stop_) {
        return;
      }
      work(w);
      --busy_;
    }
  }

  mutable std::atomic<unsigned> round_{0};
  mutable std::atomic<std::size_t> next_{0};
  mutable std::atomic<std::size_t> busy_{0};
  mutable std::size_t count_ = 0;
  mutable const void* task_ = nullptr;
  mutable void (*call_)(const void*, std::size_t, std::size_t) = nullptr;
  std::atomic<bool> stop_{false};
  std::vector<std::jthread> threads_;
};

}  // namespace instinfer::bench
