#pragma once
// System calls that fail when a test says so, and the files that were made, for tests that damage
// them.

#include <algorithm>
#include <atomic>
#include <climits>
#include <mutex>
#include <vector>

#include "instinfer/drive/system_calls.hpp"

namespace instinfer::test {

enum class call { open, reserve, read, write, sync, lock };

class faulty_calls : public drive::system_calls {
 public:
  // From the n-th call of its kind on (0 is the first), `times` calls give this result: a negative
  // error number, or the bytes of a short transfer.
  void fail(call kind, int n, std::int64_t result, int times = 1) {
    kind_ = kind;
    result_ = result;
    last_ = times > INT_MAX - n ? INT_MAX : n + times;
    first_ = n;
    calls_ = 0;
  }
  void stop_failing() { first_ = INT_MAX; }
  // Calls of the kind since fail().
  int calls() const { return calls_; }
  bool failed() const { return calls_ > first_; }

  const std::vector<int>& files() const { return files_; }
  bool ring = true;
  bool direct = true;

  int open(const char* path, int flags) override {
    std::int64_t result = 0;
    if (hit(call::open, result)) {
      return static_cast<int>(result);
    }
    const int file = (flags & O_DIRECT) != 0 && !direct ? -EINVAL : system_calls::open(path, flags);
    if (file >= 0) {
      files_.push_back(file);
    }
    return file;
  }
  int reserve(int file, std::uint64_t bytes) override {
    std::int64_t result = 0;
    return hit(call::reserve, result) ? static_cast<int>(result)
                                      : system_calls::reserve(file, bytes);
  }
  // Nobody cuts the power of the test's machine: a sync that does not fail takes no time.
  int sync(int /*file*/) override {
    std::int64_t result = 0;
    return hit(call::sync, result) ? static_cast<int>(result) : 0;
  }
  int lock(int file) override {
    std::int64_t result = 0;
    return hit(call::lock, result) ? static_cast<int>(result) : system_calls::lock(file);
  }
  std::int64_t read(int file, std::byte* to, std::size_t bytes, std::uint64_t offset) override {
    std::int64_t result = 0;
    if (!hit(call::read, result)) {
      return system_calls::read(file, to, bytes, offset);
    }
    return result < 0 ? result
                      : system_calls::read(
                            file, to, std::min(bytes, static_cast<std::size_t>(result)), offset);
  }
  std::int64_t write(int file, const std::byte* from, std::size_t bytes,
                     std::uint64_t offset) override {
    std::int64_t result = 0;
    if (!hit(call::write, result)) {
      return system_calls::write(file, from, bytes, offset);
    }
    return result < 0 ? result
                      : system_calls::write(
                            file, from, std::min(bytes, static_cast<std::size_t>(result)), offset);
  }
  bool may_use_ring() override { return ring; }
  std::int64_t completed(bool write, std::size_t bytes, std::int64_t done) override {
    std::int64_t result = 0;
    if (!hit(write ? call::write : call::read, result)) {
      return done;
    }
    return result < 0 ? result : std::min({done, result, static_cast<std::int64_t>(bytes)});
  }

 private:
  bool hit(call kind, std::int64_t& result) {
    if (kind != kind_) {
      return false;
    }
    const int n = calls_++;
    result = result_;
    return n >= first_ && n < last_;
  }

  std::atomic<call> kind_ = call::open;
  std::atomic<std::int64_t> result_ = 0;
  std::atomic<int> first_ = INT_MAX;
  std::atomic<int> last_ = 0;
  std::atomic<int> calls_ = 0;
  std::vector<int> files_;
};

}  // namespace instinfer::test
