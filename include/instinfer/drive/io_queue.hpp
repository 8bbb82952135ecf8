#pragma once
// Requests that are under way on a drive, by whichever interface the system has.

#include <cerrno>
#include <cstddef>
#include <cstdint>

#include "instinfer/drive/system_calls.hpp"

namespace instinfer::drive {

// A read or write of a file. The queue sets the last part.
struct io_request {
  int file = -1;
  bool write = false;
  std::uint64_t offset = 0;
  std::byte* data = nullptr;
  std::size_t bytes = 0;

  std::size_t done = 0;  // bytes
  int error = 0;         // errno, or ended_early
  bool finished = false;
  std::uint32_t attempts = 0;

  static constexpr int ended_early = -1;
};

// For one thread at a time. A request must stay where it is until it is finished.
class io_queue {
 public:
  explicit io_queue(system_calls& calls) : calls_{calls} {}
  virtual ~io_queue() = default;

  // Takes a request; submit() starts all that were taken.
  virtual void start(io_request& request) = 0;
  virtual void submit() {}
  // Returns when at least one request that was under way is finished.
  virtual void wait() = 0;
  virtual std::size_t under_way() const = 0;

  void wait_for(const io_request& request) {
    submit();
    while (!request.finished) {
      wait();
    }
  }
  void drain() {
    submit();
    while (under_way() > 0) {
      wait();
    }
  }

 protected:
  // Takes the result of one system call. Returns whether the request is finished; otherwise the
  // rest of it must be started again.
  static bool take(io_request& request, std::int64_t result) {
    const bool again = result == -EINTR || result == -EAGAIN || result == -ECANCELED;
    if (result > 0) {
      request.done += static_cast<std::size_t>(result);
      request.attempts = 0;
    } else if (result == 0) {
      request.error = io_request::ended_early;
    } else if (!again || ++request.attempts == most_attempts) {
      request.error = static_cast<int>(-result);
    }
    request.finished = request.error != 0 || request.done >= request.bytes;
    return request.finished;
  }

  // The rest of a request by a call that blocks.
  void transfer(io_request& request) {
    do {
      std::byte* at = request.data + request.done;
      const std::size_t bytes = request.bytes - request.done;
      const std::uint64_t offset = request.offset + request.done;
      if (take(request, request.write ? calls_.write(request.file, at, bytes, offset)
                                      : calls_.read(request.file, at, bytes, offset))) {
        return;
      }
    } while (true);
  }

  system_calls& calls_;

 private:
  static constexpr std::uint32_t most_attempts = 1000;  // without a byte of progress
};

// Requests that are done at once, one after the other.
class io_in_turn : public io_queue {
 public:
  using io_queue::io_queue;
  void start(io_request& request) override { transfer(request); }
  void wait() override {}
  std::size_t under_way() const override { return 0; }
};

}  // namespace instinfer::drive
