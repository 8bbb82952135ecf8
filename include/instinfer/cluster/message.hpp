#pragma once
// The bytes of a command or of its outcome, on their way from rank to rank. It keeps its memory,
// but for that of large ones.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <type_traits>
#include <vector>

#include "instinfer/core/errors.hpp"
#include "instinfer/core/scratch.hpp"

namespace instinfer::cluster {

// A sequence of values, each at a multiple of 8 bytes. All ranks have the same byte order
// (cluster/agreement.hpp). It is written once with put, and read once with take, in this order.
// Pointers into a message are valid until more is put.
class message {
 public:
  message() { clear(); }

  // Gives back what a large message took: a prompt, or a file.
  void clear() {
    if (bytes_.size() > most_kept) {
      bytes_ = std::vector<std::byte>();
    }
    size_ = sizeof(std::uint64_t);  // the size itself comes first
    grow(size_);
    rewind();
  }

  template <class T>
  void put(const T& x) {
    put_all(std::span<const T>(&x, 1));
  }
  template <class T>
  void put_all(std::span<const T> values) {
    if (!values.empty()) {
      std::memcpy(room<T>(values.size()).data(), values.data(), values.size_bytes());
    }
  }
  // Text, after its length.
  void put_text(std::string_view text) {
    const std::uint64_t size = text.size();
    put(size);
    put_all(std::span<const char>(text));
  }
  std::string_view take_text() {
    const std::span<const char> chars = take<char>(take<std::uint64_t>());
    return {chars.data(), chars.size()};
  }

  // Room for n values, which the caller writes. Call reserve first where several rooms are filled
  // at the same time.
  template <class T>
  std::span<T> room(std::size_t n) {
    static_assert(std::is_trivially_copyable_v<T> && alignof(T) <= unit);
    const std::size_t at = size_;
    size_ = at + rounded(n * sizeof(T));
    grow(size_);
    return {reinterpret_cast<T*>(bytes_.data() + at), n};
  }
  void reserve(std::size_t more) { grow(size_ + more); }
  static constexpr std::size_t rounded(std::size_t bytes) {
    return (bytes + unit - 1) / unit * unit;
  }

  // The first value, which can be written late.
  template <class T>
  T& front() {
    return *reinterpret_cast<T*>(bytes_.data() + sizeof(std::uint64_t));
  }

  void rewind() { at_ = sizeof(std::uint64_t); }
  template <class T>
  T take() {
    return take<T>(1).front();
  }
  // The next n values. Throws error if the message ends before.
  template <class T>
  std::span<const T> take(std::size_t n) {
    static_assert(std::is_trivially_copyable_v<T> && alignof(T) <= unit);
    const std::size_t at = at_;
    require<error>(n <= (size_ - at) / sizeof(T), [&] {
      return "cluster: a message of " + std::to_string(size_) + " bytes ends too early";
    });
    at_ = std::min(size_, at + rounded(n * sizeof(T)));
    return {reinterpret_cast<const T*>(bytes_.data() + at), n};
  }

  // Whether all values are taken.
  bool ends() const { return at_ >= size_; }

  std::size_t size() const { return size_; }
  std::size_t memory() const { return bytes_.size(); }
  // For communicators: the bytes, with the size in front.
  std::span<std::byte> to_send() {
    const std::uint64_t size = size_;
    std::memcpy(bytes_.data(), &size, sizeof(size));
    return {bytes_.data(), size_};
  }
  // Room for the first bytes of a message that arrives, and then for all of it.
  std::span<std::byte> to_receive(std::size_t bytes) {
    grow(bytes);
    size_ = bytes;
    rewind();
    return {bytes_.data(), bytes};
  }
  std::uint64_t announced() const {
    std::uint64_t size;
    std::memcpy(&size, bytes_.data(), sizeof(size));
    return size;
  }

 private:
  static constexpr std::size_t unit = 8;
  // Queries of 1,000 sequences with 32 heads of 128 dims take as much.
  static constexpr std::size_t most_kept = 16 << 20;

  void grow(std::size_t bytes) {
    if (bytes > bytes_.size()) {
      resize_scratch(bytes_, bytes);
      bytes_.resize(bytes_.capacity());
    }
  }

  std::vector<std::byte> bytes_;  // as large as its capacity
  std::size_t size_ = 0;
  std::size_t at_ = 0;
};

}  // namespace instinfer::cluster
