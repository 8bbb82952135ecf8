#pragma once
// The budget of the group buffer: how many bytes open pages may take, and take.

#include <cstdint>
#include <string>

#include "instinfer/core/errors.hpp"

namespace instinfer::store {

class group_buffer {
 public:
  explicit group_buffer(std::uint64_t bytes) : bytes_{bytes} {}

  std::uint64_t used() const { return used_; }

  // Throws drive_full unless `more` bytes are free. who() returns the start of the message: what
  // needs them.
  template <class Who>
  void require_free(std::uint64_t more, Who&& who) const {
    const std::uint64_t free = bytes_ > used_ ? bytes_ - used_ : 0;
    require<drive_full>(more <= free, [&] {
      return who() + std::to_string(more) + " bytes of the group buffer, " + std::to_string(free) +
             " of " + std::to_string(bytes_) + " are free; see capacity.buffer_bytes";
    });
  }
  // Open pages took `before` bytes, and take `after`.
  void count(std::uint64_t before, std::uint64_t after) noexcept { used_ += after - before; }

 private:
  std::uint64_t bytes_;
  std::uint64_t used_ = 0;
};

// Counts what open pages take more or less at the end of its scope, also after an exception.
template <class Layer>
class counted_growth {
 public:
  counted_growth(group_buffer& buffer, const Layer& layer)
      : buffer_{buffer}, layer_{layer}, before_{layer.open_bytes()} {}
  counted_growth(const counted_growth&) = delete;
  counted_growth& operator=(const counted_growth&) = delete;
  ~counted_growth() { buffer_.count(before_, layer_.open_bytes()); }

 private:
  group_buffer& buffer_;
  const Layer& layer_;
  std::uint64_t before_;
};

}  // namespace instinfer::store
