#pragma once
// Transfers of parts of pages: ECC protects codewords, so a controller can fetch single codewords
// of a page.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "instinfer/core/errors.hpp"
#include "instinfer/ssd/spec/geometry.hpp"

namespace instinfer::flash {

// The part of a page that crosses the bus if attention wants entries of it.
// - page: the whole page, as in the paper's drive; the default
// - codeword: from the first to the last codeword with a wanted entry, in one transfer; the read
//   command contains its column address. The array always reads the whole page.
enum class transfer_size { page, codeword };

// Number of codewords that contain the bytes [first, last) of a page. Precondition: first < last <=
// page_bytes.
constexpr std::int32_t codewords_of(std::uint32_t first, std::uint32_t last, const geometry& g) {
  const auto codeword = static_cast<std::uint32_t>(g.codeword_bytes);
  return static_cast<std::int32_t>((last - 1) / codeword - first / codeword + 1);
}

// codewords: empty, or for each page the number that cross the bus, 0 for all. Throws bad_argument.
inline void check_codewords(std::span<const std::int32_t> codewords, std::size_t pages,
                            const geometry& g) {
  require(codewords.empty() || codewords.size() == pages, [&] {
    return "flash codewords: there must be none or one count a page (" + std::to_string(pages) +
           "), got " + std::to_string(codewords.size());
  });
  for (std::size_t i = 0; i < codewords.size(); ++i) {
    require(codewords[i] >= 0 && codewords[i] <= g.codewords_per_page(), [&] {
      return "flash codewords: page " + std::to_string(i) + " has " +
             std::to_string(g.codewords_per_page()) + ", got " + std::to_string(codewords[i]);
    });
  }
}

}  // namespace instinfer::flash
