#pragma once
// An array of trivial elements, uninitialised and aligned to at least T: memory that is not used is
// not touched.

#include <cstddef>
#include <new>
#include <utility>

namespace instinfer::store {

template <class T, std::size_t Alignment = alignof(T)>
class raw_array {
 public:
  raw_array() = default;
  explicit raw_array(std::size_t n)
      : data_{static_cast<T*>(::operator new(n * sizeof(T), std::align_val_t{Alignment}))} {}
  raw_array(raw_array&& other) noexcept : data_{std::exchange(other.data_, nullptr)} {}
  raw_array& operator=(raw_array&& other) noexcept {
    std::swap(data_, other.data_);
    return *this;
  }
  ~raw_array() { ::operator delete(data_, std::align_val_t{Alignment}); }

  T* data() const { return data_; }
  T& operator[](std::size_t i) const { return data_[i]; }

 private:
  T* data_ = nullptr;
};

}  // namespace instinfer::store
