#pragma once
// Read retry: the number of further array reads, at other read levels, that a page needs to decode.
// It depends only on the page's location and a seed, so results repeat in any order of reads.

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "instinfer/core/errors.hpp"
#include "instinfer/ssd/spec/location.hpp"

namespace instinfer::flash {

inline constexpr std::int32_t max_read_retries = 5;  // InstInfer §VI, Fig. 22: "up to 5"
inline constexpr std::int32_t retry_scale = 1'000'000'000;

// The default never retries. A structural type.
//
// A retry reads the array again, with tR and its turnaround, while the die stays reserved. The
// planes of one command work until the last of them has finished. A failed attempt does not use the
// bus (assumed: the die retries by itself; a controller would transfer the page again). The state
// of the cells makes a read fail, so a page needs the same number of retries until the seed
// changes.
struct read_retry {
  // Number of pages out of 10^9 that need at least 1, 2, ... 5 further reads; must not increase.
  std::array<std::int32_t, max_read_retries> at_least{};
  std::uint64_t seed = 1;

  constexpr bool present() const { return at_least[0] > 0; }
  // Average number of further reads.
  constexpr double mean() const {
    double sum = 0;
    for (const std::int32_t pages : at_least) {
      sum += pages;
    }
    return sum / retry_scale;
  }
  constexpr std::int32_t draw(const location& page) const {
    // Two coordinates per word, each word times an odd constant (of SplitMix64 and MurmurHash3),
    // then the finalizer of SplitMix64 (Steele et al., OOPSLA 2014).
    const auto word = [](std::int32_t high, std::int32_t low) {
      return std::uint64_t{static_cast<std::uint32_t>(high)} << 32 |
             static_cast<std::uint32_t>(low);
    };
    std::uint64_t x = seed + word(page.channel, page.chip) * 0x9E37'79B9'7F4A'7C15u +
                      word(page.die, page.plane) * 0xFF51'AFD7'ED55'8CCDu +
                      word(page.block, page.page) * 0xC4CE'B9FE'1A85'EC53u;
    x = (x ^ (x >> 30)) * 0xBF58'476D'1CE4'E5B9u;
    x = (x ^ (x >> 27)) * 0x94D0'49BB'1331'11EBu;
    x ^= x >> 31;
    const auto drawn = static_cast<std::int32_t>((x >> 32) * retry_scale >> 32);  // [0, 10^9)
    std::int32_t reads = 0;
    while (reads < max_read_retries && drawn < at_least[static_cast<std::size_t>(reads)]) {
      ++reads;
    }
    return reads;
  }

  friend constexpr bool operator==(const read_retry&, const read_retry&) = default;
};

constexpr bool valid(const read_retry& retry) {
  std::int32_t most = retry_scale;
  for (const std::int32_t pages : retry.at_least) {
    if (pages < 0 || pages > most) {
      return false;
    }
    most = pages;
  }
  return true;
}

// Throws bad_argument for counts that increase or are out of range.
inline void validate(const read_retry& retry) {
  require(valid(retry), [&] {
    std::string counts;
    for (const std::int32_t pages : retry.at_least) {
      counts += " " + std::to_string(pages);
    }
    return "flash read retry: at_least must not rise and must lie in [0, 10^9], got" + counts;
  });
}

// Each read fails with the same probability, `per_billion` / 10^9, for up to `most` further reads.
// The mean is the sum of the first `most` powers of the probability. Throws bad_argument for
// per_billion outside of [0, 10^9], or more than max_read_retries.
constexpr read_retry independent_failures(std::int32_t per_billion, std::int32_t most,
                                          std::uint64_t seed = 1) {
  require(per_billion >= 0 && per_billion <= retry_scale, [&] {
    return "flash read retry: a chance must lie in [0, 10^9] of 10^9, got " +
           std::to_string(per_billion);
  });
  require(most >= 0 && most <= max_read_retries, [&] {
    return "flash read retry: a page is read again at most " + std::to_string(max_read_retries) +
           " times, got " + std::to_string(most);
  });
  read_retry retry{.at_least = {}, .seed = seed};
  std::int64_t pages = retry_scale;
  for (std::int32_t n = 0; n < most; ++n) {
    pages = pages * per_billion / retry_scale;
    retry.at_least[static_cast<std::size_t>(n)] = static_cast<std::int32_t>(pages);
  }
  return retry;
}

// InstInfer Fig. 22's worst case: 0.003 further reads per page on average, at most 5. Assumed: each
// read fails with the same probability (0.002991 + 0.002991^2 + ... = 0.003).
inline constexpr read_retry worst_read_retry = independent_failures(2'991'027, 5);

}  // namespace instinfer::flash
