#pragma once
// The checksum of a page, which is kept outside of the page.

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "instinfer/core/page_key.hpp"

namespace instinfer::drive {

// What a page is, apart from its bytes. The generation counts the writes of a page number. Both are
// in the checksum, so another page, or an older one in the same place, does not pass.
struct page_identity {
  std::uint64_t store = 0;  // drawn for each store
  page_id page = no_page;
  std::uint32_t generation = 0;
};

// Four sums of every fourth word of 8 bytes, so that multiplications overlap. Every step is
// invertible: a change within one word is always found. Other changes are missed with probability
// 2^-64. The bytes must be a multiple of 32.
inline std::uint64_t page_sum(std::span<const std::byte> bytes, const page_identity& of) {
  constexpr std::uint64_t multiplier = 0x9E37'79B9'7F4A'7C15u;  // odd; 2^64 / golden ratio
  const auto step = [](std::uint64_t sum, std::uint64_t word) {
    return std::rotl((sum ^ word) * multiplier, 29);
  };
  std::array<std::uint64_t, 4> sums{1, 2, 3, 4};
  for (std::size_t at = 0; at + sizeof(sums) <= bytes.size(); at += sizeof(sums)) {
    std::array<std::uint64_t, 4> words;
    std::memcpy(words.data(), bytes.data() + at, sizeof(words));
    for (std::size_t i = 0; i < sums.size(); ++i) {
      sums[i] = step(sums[i], words[i]);
    }
  }
  std::uint64_t sum =
      step(of.store, (std::uint64_t{of.generation} << 32) | static_cast<std::uint32_t>(of.page));
  for (const std::uint64_t part : sums) {
    sum = step(sum, part);
  }
  return sum;
}

}  // namespace instinfer::drive
