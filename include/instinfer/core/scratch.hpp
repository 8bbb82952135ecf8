#pragma once
// Growth of buffers that are used again and again: geometric whatever their size was in between, as std::vector's own
// resize and reserve are not.

#include <algorithm>
#include <cstddef>
#include <vector>

namespace instinfer {

// Room for n elements.
template <class T>
void reserve_scratch(std::vector<T>& v, std::size_t n) {
  if (n > v.capacity()) {
    v.reserve(std::max(n, 2 * v.capacity()));
  }
}

// Size n; new elements are zero, old ones whatever they were.
template <class T>
void resize_scratch(std::vector<T>& v, std::size_t n) {
  reserve_scratch(v, n);
  v.resize(n);
}

}  // namespace instinfer
