#pragma once
// Summary: a cache of a head's pages in fast memory, the least recently used out first (RetroInfer's wave buffer).

#include <vector>

#include "instinfer/core/access_plan.hpp"
#include "instinfer/summaries/block_cache.hpp"
#include "instinfer/summaries/concepts.hpp"

namespace instinfer::attention {

// A block is a tile of tokens, K and V. What is attended, and in which order, does not depend on what is in the cache.
//
// A tile may hold the ends of two clusters. One that is missed comes in as a whole, as it was read from flash as a whole; past
// the filter only the entries wanted now are counted. So at each end of a run of clusters, up to a tile's entries are there later
// that no receipt has counted but as flash bytes. A cache of parts of tiles would count them, and gain nothing else.
struct wave_buffer {
  template <class Format>
  class state {
   public:
    using element = typename Format::element;

    void append(std::span<const element> /*k*/, std::span<const element> /*v*/) noexcept {}
    void forget(std::span<const element> /*k*/, std::span<const element> /*v*/) noexcept {}
    std::uint64_t bytes() const {
      return std::uint64_t{blocks_.capacity()} * block_tokens_ * Format::token_bytes +
             blocks_.book_bytes();
    }

    // Room for so many tokens. Another size than before empties the cache, when it is used next.
    void hold(std::uint32_t tokens) { tokens_ = tokens; }

    // Begins a fold over blocks of `block_tokens`.
    void begin(std::uint32_t block_tokens) {
      if (const std::uint32_t slots = tokens_ / block_tokens;
          slots != blocks_.capacity() || block_tokens != block_tokens_) {
        blocks_ = block_cache(slots);
        block_tokens_ = block_tokens;
      }
      missed_.clear();
    }
    // Where a block is read from.
    residence fetch(std::uint32_t block) {
      if (blocks_.touch(block)) {
        return residence::cached;
      }
      missed_.push_back(block);
      return residence::flash;
    }
    // After the fold: what was missed comes in.
    void settle() {
      for (const std::uint32_t block : missed_) {
        blocks_.admit(block);
      }
    }

    const block_cache& blocks() const { return blocks_; }

    // Starts empty after a load: fast memory does not outlive the program, and no result depends on it.
    static constexpr const char* name() { return "wave_buffer"; }
    void each_part(auto&& /*file*/) {}

   private:
    block_cache blocks_;
    std::uint32_t tokens_ = 0;
    std::uint32_t block_tokens_ = 0;
    std::vector<std::uint32_t> missed_;
  };
};

}  // namespace instinfer::attention
