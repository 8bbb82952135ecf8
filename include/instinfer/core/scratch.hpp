#pragma once
// Geometric growth of reused buffers, whatever their size was in between. std::vector's resize and
// reserve do not give this.

#include <algorithm>
#include <cstddef>
#include <vector>

#include "instinfer/codec/unit_rules.hpp"

namespace instinfer {

// Room for n elements.
template <class T>
void reserve_scratch(std::vector<T>& v, std::size_t n) {
  if (n > v.capacity()) {
    v.reserve(std::max(n, 2 * v.capacity()));
  }
}

// Sets the size to n. New elements are zero; old elements keep their values.
template <class T>
void resize_scratch(std::vector<T>& v, std::size_t n) {
  reserve_scratch(v, n);
  v.resize(n);
}

}  // namespace instinfer
