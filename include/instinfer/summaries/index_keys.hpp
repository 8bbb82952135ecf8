#pragma once
// Summary: one index key per token in fast memory, and the means of blocks of keys (DSA, MISA).

#include <algorithm>
#include <bit>
#include <limits>
#include <string>
#include <vector>

#include "instinfer/core/scratch.hpp"
#include "instinfer/summaries/concepts.hpp"
#include "instinfer/summaries/index_scoring.hpp"

namespace instinfer::attention {

// Keys are rotated by a Hadamard matrix and stored as fp8 with one scale each, in Dims + 4 bytes.
// They are the index keys that a trained indexer gives with a token (engine::append), or the
// token's K if k_dim is Dims. Block means are of the keys before coding, in fp32. Blocks without
// live tokens are freed, many at a time.
template <int Dims = 128, std::uint32_t BlockTokens = 1024>
struct index_keys {
  static_assert(
      std::has_single_bit(static_cast<unsigned>(Dims)) && Dims >= 16,
      "instinfer: index keys need a power of two of dims, at least 16, see summaries/index_keys.hpp");
  static_assert(
      BlockTokens > 0,
      "instinfer: index_keys needs at least one token a block, see summaries/index_keys.hpp");
  static constexpr int index_dims = Dims;

  template <class Format>
  class state {
   public:
    using element = typename Format::element;
    static constexpr std::size_t key_bytes = sizeof(index_key<Dims>);

    void reserve(std::uint32_t count) {
      reserve_scratch(keys_, keys_.size() + count);
      reserve_scratch(sums_, ((keys_.size() + count) / BlockTokens + 1) * Dims);
    }
    void append(std::span<const element> k, std::span<const element> /*v*/,
                std::span<const float> index_key) noexcept {
      std::array<float, std::size_t{Dims}> key{};
      if (index_key.empty()) {
        std::transform(k.begin(), k.begin() + std::min<std::ptrdiff_t>(Dims, std::ssize(k)),
                       key.begin(), [](element x) { return to_float(x); });
      } else {
        std::copy_n(index_key.begin(), Dims, key.begin());
      }
      // The rotation adds up to Dims of these values, and the sum must stay finite.
      for (float& x : key) {
        x = std::clamp(x, -largest, largest);
      }
      if (tokens_++ % BlockTokens == 0) {
        sums_.resize(sums_.size() + Dims);
      }
      double* sum = sums_.data() + sums_.size() - Dims;
      for (std::size_t i = 0; i < Dims; ++i) {
        sum[i] += static_cast<double>(key[i]);
      }
      hadamard(key);
      keys_.push_back(encode_index_key<Dims>(std::span<const float, std::size_t{Dims}>(key)));
    }
    void append(std::span<const element> k, std::span<const element> v) noexcept {
      append(k, v, {});
    }
    void forget(std::span<const element> /*k*/, std::span<const element> /*v*/) noexcept {
      forget_count(1);
      if (2 * std::size_t{first_block() - freed_} * BlockTokens >= keys_.size()) {
        free_blocks(first_block());
      }
    }
    void append_count(std::uint32_t count) noexcept { tokens_ += count; }
    void forget_count(std::uint32_t count) noexcept { forgotten_ += count; }

    // Keys before coding are gone: the sum of the last block becomes that of its coded keys, so
    // that its mean is off by at most the mean of their coding errors.
    void truncate(std::uint32_t n, const auto& /*all*/) noexcept {
      tokens_ = n;
      if (keys_.empty()) {
        return;
      }
      keys_.resize(n - freed_ * BlockTokens);
      sums_.resize((keys_.size() + BlockTokens - 1) / BlockTokens * Dims);
      if (n % BlockTokens > 0) {
        const auto sum = std::span(sums_).last(Dims);
        std::ranges::fill(sum, 0.0);
        for (std::uint32_t token = n / BlockTokens * BlockTokens; token < n; ++token) {
          const auto x = original(key(token));
          std::transform(sum.begin(), sum.end(), x.begin(), sum.begin(),
                         [](double a, float b) { return a + static_cast<double>(b); });
        }
      }
    }

    static constexpr std::uint32_t rebase_tokens = BlockTokens;
    void rebase(std::uint32_t n) noexcept {
      const std::uint32_t gone = n / BlockTokens;
      free_blocks(keys_.empty() ? freed_ : std::max(freed_, gone));
      freed_ = std::max(freed_, gone) - gone;
      tokens_ -= n;
      forgotten_ -= n;
    }

    // Without values: of the keys that there would be.
    std::uint64_t bytes() const {
      return keys_.empty() ? (tokens_ - forgotten_) * key_bytes +
                                 std::uint64_t{blocks()} * Dims * sizeof(float)
                           : keys_.size() * key_bytes + sums_.size() * sizeof(float);
    }

    std::uint32_t tokens() const { return tokens_; }                 // ever appended
    std::span<const index_key<Dims>> keys() const { return keys_; }  // that were not freed
    const index_key<Dims>& key(std::uint32_t token) const {
      return keys_[token - freed_ * BlockTokens];
    }

    // Blocks with live tokens.
    std::uint32_t blocks() const {
      return (tokens_ + BlockTokens - 1) / BlockTokens - first_block();
    }
    // Mean key of one of them; of the last block, the mean over the tokens it has. 0 without
    // values.
    void mean(std::uint32_t block, std::span<double> to) const {
      const std::uint32_t number = first_block() + block;
      const double n = std::min(BlockTokens, tokens_ - number * BlockTokens);
      for (std::size_t i = 0; i < Dims; ++i) {
        to[i] = sums_.empty() ? 0.0 : sums_[(number - freed_) * Dims + i] / n;
      }
    }

    // to [tokens]: one score per token. See summaries/index_scoring.hpp for these two functions.
    template <class T>
    void score(const index_query& q, index_view heads, index_view tokens, std::span<T> to) const {
      score_index<Dims>(q, heads, tokens, *this, to);
    }
    std::uint32_t top_heads(const index_query& q, head_router router, std::uint32_t k,
                            index_set& chosen) const {
      return attention::top_heads<Dims>(q, *this, router, k, chosen);
    }

    // The key of the newest token, decoded and rotated back. 0 without values.
    void newest(std::span<double> to) const {
      std::ranges::copy(
          keys_.empty() ? std::array<float, std::size_t{Dims}>{} : original(keys_.back()),
          to.begin());
    }

    static std::string name() {
      return "index_keys of " + std::to_string(Dims) + " dims in blocks of " +
             std::to_string(BlockTokens);
    }
    void each_part(auto&& file) { file(keys_, sums_, tokens_, forgotten_, freed_); }
    bool fits(std::uint32_t first, std::uint32_t tokens, const auto& /*all*/) const {
      return tokens_ == tokens && forgotten_ == first && freed_ <= first_block() &&
             keys_.size() == tokens - std::min(tokens, freed_ * BlockTokens) &&
             sums_.size() == std::size_t{first_block() - freed_ + blocks()} * Dims;
    }

   private:
    static constexpr float largest = std::numeric_limits<float>::max() / (2 * Dims);

    // Frees the keys and sums of the blocks before `first`.
    void free_blocks(std::uint32_t first) noexcept {
      const std::size_t gone = first - freed_;
      keys_.erase(keys_.begin(), keys_.begin() + static_cast<std::ptrdiff_t>(gone * BlockTokens));
      sums_.erase(sums_.begin(), sums_.begin() + static_cast<std::ptrdiff_t>(gone * Dims));
      freed_ = first;
    }

    // Decoded, and rotated back.
    static std::array<float, std::size_t{Dims}> original(const index_key<Dims>& key) {
      std::array<float, std::size_t{Dims}> x;
      for (std::size_t i = 0; i < Dims; ++i) {
        x[i] = key[i];
      }
      hadamard(x);  // its own inverse
      return x;
    }

    std::uint32_t first_block() const { return forgotten_ / BlockTokens; }

    std::vector<index_key<Dims>> keys_;  // from the first block that was not freed on
    std::vector<double> sums_;           // [blocks that were not freed, Dims]
    std::uint32_t tokens_ = 0;           // number of tokens ever appended
    std::uint32_t forgotten_ = 0;
    std::uint32_t freed_ = 0;  // blocks: the oldest
  };
};

}  // namespace instinfer::attention
