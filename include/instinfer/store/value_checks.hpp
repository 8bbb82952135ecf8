#pragma once
// Checks that a format can store given K and V values.

#include <algorithm>
#include <span>
#include <string>

#include "instinfer/core/errors.hpp"
#include "instinfer/core/shape.hpp"

namespace instinfer::store {

// Throws bad_argument, with the position, unless x [tokens, kv_heads, head_dim] is finite and in
// the codec's range.
template <class Format>
void require_storable(std::span<const typename Format::element> x, const char* name, int head_dim,
                      int kv_heads) {
  using element = typename Format::element;
  const auto storable = [](element e) {
    if constexpr (Format::plain) {
      return is_finite(e);
    } else {
      return is_finite(e) && Format::codec::holds(to_float(e));
    }
  };
  if (std::ranges::all_of(x, storable)) [[likely]] {
    return;
  }
  for (std::size_t i = 0; i < x.size(); ++i) {
    require(storable(x[i]), [&] {
      const std::size_t row = i / static_cast<std::size_t>(head_dim);
      const auto heads = static_cast<std::size_t>(kv_heads);
      const std::string where = "[token " + std::to_string(row / heads) + ", head " +
                                std::to_string(row % heads) + ", dim " +
                                std::to_string(i % static_cast<std::size_t>(head_dim)) + "]";
      return std::string("append: ") + name +
             (is_finite(x[i]) ? " must be in the range of " + std::string(Format::codec::name) +
                                    " pages, is " + std::to_string(to_float(x[i])) + " at "
                              : " must be finite, is not at ") +
             where;
    });
  }
}

}  // namespace instinfer::store
