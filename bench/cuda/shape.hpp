#pragma once
// What one case of the GPU benchmark attends over, and how it is called.

#include <algorithm>
#include <cstdint>
#include <string>

namespace bench {

inline constexpr std::uint32_t dim = 128;

struct shape {
  std::uint32_t q_heads;
  std::uint32_t kv_heads;
  std::uint32_t batch;
  std::uint32_t tokens;
  std::uint32_t page = 16;
  bool skewed = false;  // the first sequence has all tokens, the others 1024

  std::uint32_t group() const { return q_heads / kv_heads; }
  std::uint32_t tokens_of(std::uint32_t s) const {
    return skewed && s % batch > 0 ? std::min(tokens, 1024u) : tokens;
  }
  std::uint64_t all_tokens() const {
    std::uint64_t sum = 0;
    for (std::uint32_t s = 0; s < batch; ++s) {
      sum += tokens_of(s);
    }
    return sum;
  }
  // K and V once, of one batch.
  std::uint64_t kv_bytes(std::uint64_t value_bytes = 2) const {
    return all_tokens() * kv_heads * dim * 2 * value_bytes;
  }
  // Queries and output, in 16 bits.
  std::uint64_t query_bytes() const { return std::uint64_t{2} * batch * q_heads * dim * 2; }
  std::string name() const {
    return "q" + std::to_string(q_heads) + "_kv" + std::to_string(kv_heads) + "/d" +
           std::to_string(dim) + "/b" + std::to_string(batch) + "/t" + std::to_string(tokens) +
           "/p" + std::to_string(page) + (skewed ? "/skewed" : "");
  }
};

}  // namespace bench
