#pragma once
// Summary: a least-recently-used cache of a head's pages in fast memory (RetroInfer's wave buffer).

#include <vector>

#include "instinfer/core/access_plan.hpp"
#include "instinfer/summaries/block_cache.hpp"
#include "instinfer/summaries/concepts.hpp"

namespace instinfer::attention {

// A block is a tile of tokens, K and V. The contents of the cache do not change which tokens are
// attended, or in which order.
//
// A tile may hold the ends of two clusters. A missed tile is cached as a whole, because flash reads
// it as a whole; after the filter only the entries wanted now are counted. So at each end of a run
// of clusters, the cache may hold up to a tile of entries that receipts counted only as flash
// bytes. A cache of partial tiles would count them, with no other benefit.
struct wave_buffer {
  template <class Format>
  class state {
   public:
    using element = typename Format::element;
    static constexpr bool learns = true;
    static constexpr bool only_caches = true;
    static constexpr bool ignores_values = true;

    void append(std::span<const element> /*k*/, std::span<const element> /*v*/) noexcept {}
    void forget(std::span<const element> /*k*/, std::span<const element> /*v*/) noexcept {}
    // A block with tokens that are taken back will have other contents.
    void truncate(std::uint32_t n, const auto& /*all*/) noexcept {
      for (std::uint32_t b = block_tokens_ > 0 ? n / block_tokens_ : 0; b < blocks_.blocks(); ++b) {
        blocks_.forget(b);
      }
    }
    // Tiles divide n, so blocks do.
    void rebase(std::uint32_t n) noexcept {
      if (block_tokens_ > 0) {
        blocks_.move_down(n / block_tokens_);
      }
    }
    std::uint64_t bytes() const {
      return std::uint64_t{blocks_.capacity()} * block_tokens_ * Format::token_bytes +
             blocks_.table_bytes();
    }

    // Sets the capacity in tokens. A capacity that differs from the last one empties the cache at
    // its next use.
    void hold(std::uint32_t tokens) { tokens_ = tokens; }

    // Begins a fold over blocks of `block_tokens` tokens.
    void begin(std::uint32_t block_tokens) {
      if (const std::uint32_t slots = tokens_ / block_tokens;
          slots != blocks_.capacity() || block_tokens != block_tokens_) {
        blocks_ = block_cache(slots);
        block_tokens_ = block_tokens;
      }
      missed_.clear();
    }
    // Returns where to read a block from.
    residence fetch(std::uint32_t block) {
      if (blocks_.touch(block)) {
        return residence::cached;
      }
      missed_.push_back(block);
      return residence::flash;
    }
    // Call it after the fold: admits the missed blocks.
    void settle() {
      for (const std::uint32_t block : missed_) {
        blocks_.admit(block);
      }
    }

    const block_cache& blocks() const { return blocks_; }

    // Empty after a load: fast memory does not survive the program, and no result depends on the
    // cache.
    static constexpr const char* name() { return "wave_buffer"; }
    void each_part(auto&& /*file*/) {}
    bool fits(std::uint32_t /*first*/, std::uint32_t /*tokens*/, const auto& /*all*/) const {
      return true;
    }

   private:
    block_cache blocks_;
    std::uint32_t tokens_ = 0;
    std::uint32_t block_tokens_ = 0;
    std::vector<std::uint32_t> missed_;
  };
};

}  // namespace instinfer::attention
