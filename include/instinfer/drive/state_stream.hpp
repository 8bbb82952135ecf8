#pragma once
// The file of a commit as a stream: what store::file_writer and store::file_reader take.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "instinfer/drive/errors.hpp"
#include "instinfer/drive/io_queue.hpp"
#include "instinfer/store/sequences/checked_stream.hpp"

namespace instinfer::drive {

// A whole request by calls that block. Returns errno, 0 on success, io_request::ended_early.
inline int transfer_all(system_calls& calls, int file, bool write, std::byte* data,
                        std::size_t bytes, std::uint64_t offset) {
  io_request request;
  request.file = file;
  request.write = write;
  request.data = data;
  request.bytes = bytes;
  request.offset = offset;
  if (bytes > 0) {
    io_in_turn(calls).start(request);
  }
  return request.error;
}

// The sum of a state is that of its bytes in chunks of this size, after the number of its commit.
inline constexpr std::size_t state_chunk = std::size_t{1} << 18;

inline store::checksum begin_state_sum(std::uint64_t commit) {
  store::checksum sum;
  sum.add(std::as_bytes(std::span(&commit, 1)));
  return sum;
}

class state_writer {
 public:
  state_writer(system_calls& calls, int file, std::string path, std::uint64_t commit)
      : calls_{calls}, file_{file}, path_{std::move(path)}, sum_{begin_state_sum(commit)} {
    chunk_.reserve(state_chunk);
  }

  // Throws io_error.
  void write(const char* from, std::ptrdiff_t count) {
    auto left = static_cast<std::size_t>(count);
    while (left > 0) {
      const std::size_t now = std::min(left, state_chunk - chunk_.size());
      const auto* bytes = reinterpret_cast<const std::byte*>(from);
      chunk_.insert(chunk_.end(), bytes, bytes + now);
      from += now;
      left -= now;
      if (chunk_.size() == state_chunk) {
        write_chunk();
      }
    }
  }
  void flush() {
    if (!chunk_.empty()) {
      write_chunk();
    }
  }
  bool good() const { return true; }  // otherwise a call has thrown

  // After flush(): no write may follow it.
  std::uint64_t bytes() const { return written_; }
  std::uint64_t sum() const { return sum_.value(); }

 private:
  void write_chunk() {
    const int error = transfer_all(calls_, file_, true, chunk_.data(), chunk_.size(), written_);
    if (error != 0) {
      throw io_error("drive_files: writing " + path_ + " failed after " + std::to_string(written_) +
                         " bytes, the commit before stays: " + reason(std::max(error, 0)),
                     std::max(error, 0));
    }
    sum_.add(chunk_);
    written_ += chunk_.size();
    chunk_.clear();
  }

  system_calls& calls_;
  int file_;
  std::string path_;
  store::checksum sum_;
  std::vector<std::byte> chunk_;
  std::uint64_t written_ = 0;
};

class state_reader {
 public:
  state_reader(system_calls& calls, int file, std::string path, std::uint64_t bytes)
      : calls_{calls}, file_{file}, path_{std::move(path)}, left_{bytes} {}

  // Fewer bytes at the end of the state. Throws io_error.
  void read(char* to, std::ptrdiff_t count) {
    got_ = 0;
    while (got_ < count) {
      if (at_ == chunk_.size() && !next_chunk()) {
        return;
      }
      const std::size_t now = std::min(static_cast<std::size_t>(count - got_), chunk_.size() - at_);
      std::memcpy(to + got_, chunk_.data() + at_, now);
      at_ += now;
      got_ += static_cast<std::ptrdiff_t>(now);
    }
  }
  std::ptrdiff_t gcount() const { return got_; }
  bool good() const { return true; }

  // The checksum of what is left, which must be all; it reads to the end.
  std::uint64_t sum_of_all(std::uint64_t commit) {
    store::checksum sum = begin_state_sum(commit);
    while (next_chunk()) {
      sum.add(chunk_);
    }
    return sum.value();
  }

 private:
  bool next_chunk() {
    chunk_.resize(static_cast<std::size_t>(std::min<std::uint64_t>(left_, state_chunk)));
    at_ = 0;
    const int error = transfer_all(calls_, file_, false, chunk_.data(), chunk_.size(), offset_);
    if (error != 0) {
      chunk_.clear();
      throw io_error("drive_files: reading " + path_ + " failed after " + std::to_string(offset_) +
                         " bytes: " + reason(std::max(error, 0)),
                     std::max(error, 0));
    }
    offset_ += chunk_.size();
    left_ -= chunk_.size();
    return !chunk_.empty();
  }

  system_calls& calls_;
  int file_;
  std::string path_;
  std::uint64_t left_;
  std::uint64_t offset_ = 0;
  std::vector<std::byte> chunk_;
  std::size_t at_ = 0;
  std::ptrdiff_t got_ = 0;
};

}  // namespace instinfer::drive
