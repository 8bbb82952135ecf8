#pragma once
// Reading and writing of values on a binary stream, with a checksum after each block: the base of
// cache files.

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <type_traits>

#include "instinfer/core/errors.hpp"

namespace instinfer::store {

// A checksum of words of 8 bytes; zeros fill up the last word of each call. Every step is
// invertible, so it always detects a change within one word. It misses other changes with
// probability 2^-64.
class checksum {
 public:
  void add(std::span<const std::byte> bytes) {
    for (; bytes.size() >= sizeof(std::uint64_t); bytes = bytes.subspan(sizeof(std::uint64_t))) {
      step(bytes);
    }
    if (!bytes.empty()) {
      step(bytes);
    }
  }
  std::uint64_t value() const { return value_; }

 private:
  void step(std::span<const std::byte> bytes) {
    std::uint64_t word = 0;
    std::memcpy(&word, bytes.data(), std::min(bytes.size(), sizeof(word)));
    value_ = std::rotl((value_ ^ word) * multiplier, 29);
  }

  static constexpr std::uint64_t multiplier = 0x9E37'79B9'7F4A'7C15u;  // odd; 2^64 / golden ratio
  std::uint64_t value_ = 1;
};

// A file(part...) takes these kinds of parts, for reading and for writing: objects with
// each_part(file), part by part; vectors and strings, after their length; other values as their
// bytes in memory.
template <class File, class Part>
void exchange(File& file, Part& part) {
  if constexpr (requires { part.each_part(file); }) {
    part.each_part(file);
  } else if constexpr (requires { part.resize(part.size()); }) {
    file.sequence(part);
  } else {
    static_assert(
        std::is_trivially_copyable_v<Part> && !std::is_pointer_v<Part>,
        "instinfer: a part of a file is neither numbers, nor a vector, nor has each_part(file), see store/sequences/checked_stream.hpp");
    file.bytes(std::as_writable_bytes(std::span(&part, 1)));
  }
}

template <class File, class Part>
void exchange_all(File& file, std::span<Part> parts) {
  if constexpr (requires { parts[0].each_part(file); }) {
    for (Part& part : parts) {
      part.each_part(file);
    }
  } else {
    static_assert(std::is_trivially_copyable_v<Part>);
    file.bytes(std::as_writable_bytes(parts));
  }
}

// Throws bad_file if writing fails. Out is std::ostream; only users that have one include its
// header.
template <class Out>
class file_writer {
 public:
  explicit file_writer(Out& out) : out_{out} {}

  template <class... Part>
  void operator()(Part&... part) {
    (exchange(*this, part), ...);
  }
  void bytes(std::span<const std::byte> x) {
    sum_.add(x);
    out_.write(reinterpret_cast<const char*>(x.data()), static_cast<std::ptrdiff_t>(x.size()));
    require_taken();
    written_ += x.size();
  }
  template <class Sequence>
  void sequence(Sequence& x) {
    std::uint64_t size = x.size();
    (*this)(size);
    exchange_all(*this, std::span(x));
  }
  void end_block() {
    std::uint64_t sum = sum_.value();
    (*this)(sum);
  }
  void flush() {
    out_.flush();
    require_taken();
  }

 private:
  void require_taken() const {
    require<bad_file>(out_.good(), [&] {
      return "save: the stream failed after " + std::to_string(written_) +
             " bytes; is the disk full?";
    });
  }

  Out& out_;
  checksum sum_;
  std::uint64_t written_ = 0;
};

// Throws bad_file if the stream ends too early or a block was damaged. Reads no byte after the last
// part.
template <class In>
class file_reader {
 public:
  explicit file_reader(In& in) : in_{in} {
    require<bad_file>(
        in.good(), [] { return std::string("load: the stream cannot be read, was it opened?"); });
  }

  template <class... Part>
  void operator()(Part&... part) {
    (exchange(*this, part), ...);
  }
  void bytes(std::span<std::byte> x) {
    in_.read(reinterpret_cast<char*>(x.data()), static_cast<std::ptrdiff_t>(x.size()));
    read_ += static_cast<std::uint64_t>(in_.gcount());
    require<bad_file>(in_.gcount() == std::ssize(x), [&] {
      return "load: the file is truncated, it ends after " + std::to_string(read_) + " bytes";
    });
    sum_.add(x);
  }
  // Grows in steps, so that a damaged length does not allocate more memory than the file has data.
  template <class Sequence>
  void sequence(Sequence& x) {
    std::uint64_t size = 0;
    (*this)(size);
    x.clear();
    while (x.size() < size) {
      const std::size_t had = x.size();
      x.resize(had + std::min<std::uint64_t>(size - had, std::uint64_t{1} << 16));
      exchange_all(*this, std::span(x).subspan(had));
    }
  }
  void end_block() {
    const std::uint64_t sum = sum_.value();
    std::uint64_t stored = 0;
    (*this)(stored);
    require<bad_file>(stored == sum, [&] {
      return "load: the file is damaged somewhere before byte " + std::to_string(read_) +
             ", the checksum does not fit";
    });
  }

  std::uint64_t bytes_read() const { return read_; }

 private:
  In& in_;
  checksum sum_;
  std::uint64_t read_ = 0;
};

}  // namespace instinfer::store
