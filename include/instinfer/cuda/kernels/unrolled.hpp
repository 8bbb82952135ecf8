#pragma once
// Loops whose index is a compile-time constant in each turn. What they index stays in registers
// under every compiler.

#include <cstdint>
#include <type_traits>
#include <utility>

namespace instinfer::cuda {

// Calls f(std::integral_constant<std::uint32_t, i>{}) for i in [0, N).
template <std::uint32_t N, class F>
constexpr void unrolled(F&& f) {
  [&]<std::uint32_t... I>(std::integer_sequence<std::uint32_t, I...>) {
    (f(std::integral_constant<std::uint32_t, I>{}), ...);
  }(std::make_integer_sequence<std::uint32_t, N>{});
}

}  // namespace instinfer::cuda
