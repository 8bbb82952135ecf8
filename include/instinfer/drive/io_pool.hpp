#pragma once
// Requests by threads that call pread and pwrite, for systems without io_uring.

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>

#include "instinfer/drive/io_queue.hpp"

namespace instinfer::drive {

// The threads of a store, for all of its queues.
class io_pool {
 public:
  class queue;

  explicit io_pool(unsigned threads) {
    try {
      for (unsigned i = 0; i < threads; ++i) {
        threads_.emplace_back([this] { work(); });
      }
    } catch (...) {
      stop();
      throw;
    }
  }
  io_pool(const io_pool&) = delete;
  io_pool& operator=(const io_pool&) = delete;
  ~io_pool() { stop(); }

 private:
  struct job {
    queue* of = nullptr;
    io_request* request = nullptr;
  };

  void work();
  void stop() {
    {
      const std::lock_guard lock(mutex_);
      stopped_ = true;
    }
    added_.notify_all();
    for (std::thread& thread : threads_) {
      thread.join();
    }
  }

  std::mutex mutex_;
  std::condition_variable added_;
  std::deque<job> jobs_;
  bool stopped_ = false;
  std::vector<std::thread> threads_;
};

// It must not outlive the pool.
class io_pool::queue : public io_queue {
 public:
  queue(system_calls& calls, io_pool& pool) : io_queue{calls}, pool_{pool} {}

  void start(io_request& request) override {
    ++under_way_;
    {
      const std::lock_guard lock(pool_.mutex_);
      pool_.jobs_.push_back({this, &request});
    }
    pool_.added_.notify_one();
  }
  void wait() override {
    if (under_way_ == 0) {
      return;
    }
    std::unique_lock lock(mutex_);
    finished_one_.wait(lock, [&] { return !finished_.empty(); });
    for (io_request* request : finished_) {
      request->finished = true;
      --under_way_;
    }
    finished_.clear();
  }
  std::size_t under_way() const override { return under_way_; }

 private:
  friend class io_pool;

  // On a thread of the pool. The owner's thread sees `finished` only when it waits.
  void run(io_request& request) {
    io_request own = request;
    transfer(own);
    request.done = own.done;
    request.error = own.error;
    const std::lock_guard lock(mutex_);
    finished_.push_back(&request);
    finished_one_.notify_one();
  }

  io_pool& pool_;
  std::size_t under_way_ = 0;
  std::mutex mutex_;
  std::condition_variable finished_one_;
  std::vector<io_request*> finished_;
};

inline void io_pool::work() {
  for (;;) {
    job next;
    {
      std::unique_lock lock(mutex_);
      added_.wait(lock, [&] { return stopped_ || !jobs_.empty(); });
      if (jobs_.empty()) {
        return;
      }
      next = jobs_.front();
      jobs_.pop_front();
    }
    next.of->run(*next.request);
  }
}

}  // namespace instinfer::drive
