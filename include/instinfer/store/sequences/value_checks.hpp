#pragma once
// Checks that a format can store given K and V values.

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>

#include "instinfer/core/errors.hpp"
#include "instinfer/core/shape.hpp"

namespace instinfer::store {

// Of element i of x [tokens, kv_heads, head_dim]: why it cannot be stored. `range_of`: the codec
// whose range it is not in, or nullptr if it is not finite.
[[noreturn]] inline void throw_not_storable(const char* name, std::size_t i, int head_dim,
                                            int kv_heads, const char* range_of, float value) {
  const std::size_t row = i / static_cast<std::size_t>(head_dim);
  const auto heads = static_cast<std::size_t>(kv_heads);
  const std::string where = "[token " + std::to_string(row / heads) + ", head " +
                            std::to_string(row % heads) + ", dim " +
                            std::to_string(i % static_cast<std::size_t>(head_dim)) + "]";
  throw bad_argument(std::string("append: ") + name +
                     (range_of != nullptr ? " must be in the range of " + std::string(range_of) +
                                                " pages, is " + std::to_string(value) + " at "
                                          : " must be finite, is not at ") +
                     where);
}

// Whether the format can store x: it is finite and in the codec's range.
template <class Format>
bool storable(typename Format::element x) {
  constexpr bool holds_all = [] {
    if constexpr (requires { Format::codec::largest; }) {
      return Format::codec::largest >= largest_finite<typename Format::element>;
    } else {
      return Format::plain;
    }
  }();
  if constexpr (holds_all) {
    return is_finite(x);
  } else {
    return (int{is_finite(x)} & int{Format::codec::holds(to_float(x))}) != 0;
  }
}
// Whether it can store all values. No branch depends on them, so the loop vectorises; what it
// gathers is as wide as the values, so no vector is widened.
template <class Format>
bool all_storable(std::span<const typename Format::element> x) {
  using mask =
      std::conditional_t<sizeof(typename Format::element) == 2, std::uint16_t, std::uint32_t>;
  mask bad = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    bad = static_cast<mask>(bad | static_cast<mask>(storable<Format>(x[i]) ? 0u : 1u));
  }
  return bad == 0;
}

// Throws bad_argument, with the position, unless x [tokens, kv_heads, head_dim] is finite and in
// the codec's range.
template <class Format>
void require_storable(std::span<const typename Format::element> x, const char* name, int head_dim,
                      int kv_heads) {
  constexpr std::size_t block = 4096;
  for (std::size_t first = 0; first < x.size(); first += block) {
    const auto some = x.subspan(first, std::min(block, x.size() - first));
    if (!all_storable<Format>(some)) [[unlikely]] {
      const auto at = std::ranges::find_if_not(some, storable<Format>);
      throw_not_storable(name, first + static_cast<std::size_t>(at - some.begin()), head_dim,
                         kv_heads, is_finite(*at) ? Format::codec::name : nullptr, to_float(*at));
    }
  }
}

// The tokens of k_size elements [tokens, kv_heads, k_dim] and v_size elements [tokens, kv_heads,
// v_dim], none for latent rows. Throws bad_argument if they are not of such shapes.
inline std::size_t tokens_of(std::size_t k_size, std::size_t v_size, int kv_heads, int k_dim,
                             int v_dim, bool latent = false) {
  const std::size_t k_row = static_cast<std::size_t>(kv_heads) * static_cast<std::size_t>(k_dim);
  const std::size_t v_row = static_cast<std::size_t>(kv_heads) * static_cast<std::size_t>(v_dim);
  const bool fits = latent ? v_size == 0 : v_size % v_row == 0 && k_size / k_row == v_size / v_row;
  require(k_size % k_row == 0 && fits, [&] {
    const std::string heads = "[new_tokens, " + std::to_string(kv_heads) + ", ";
    return "append: k must be " + heads + std::to_string(k_dim) + "] and v " +
           (latent ? "empty, because latent rows hold V, too"
                   : heads + std::to_string(v_dim) + "]") +
           ", got " + std::to_string(k_size) + " and " + std::to_string(v_size) + " elements";
  });
  return k_size / k_row;
}

// The same, of values that the format can store. Throws bad_argument otherwise.
template <class Format>
std::size_t storable_tokens(std::span<const typename Format::element> k,
                            std::span<const typename Format::element> v, int kv_heads) {
  const std::size_t tokens =
      tokens_of(k.size(), v.size(), kv_heads, Format::k_dim, Format::v_dim, Format::latent);
  require_storable<Format>(k, "k", Format::k_dim, kv_heads);
  require_storable<Format>(v, "v", Format::v_dim, kv_heads);
  return tokens;
}

}  // namespace instinfer::store
