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
// token's K if k_dim is Dims. Block means are of the keys before coding, in fp32.
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
      std::array<float, Dims> key{};
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
      if (keys_.size() % BlockTokens == 0) {
        sums_.resize(sums_.size() + Dims);
      }
      double* sum = sums_.data() + sums_.size() - Dims;
      for (std::size_t i = 0; i < Dims; ++i) {
        sum[i] += static_cast<double>(key[i]);
      }
      hadamard(key);
      keys_.push_back(encode_index_key<Dims>(std::span<const float, Dims>(key)));
    }
    void append(std::span<const element> k, std::span<const element> v) noexcept {
      append(k, v, {});
    }
    void forget(std::span<const element> /*k*/, std::span<const element> /*v*/) noexcept {}
    std::uint64_t bytes() const { return keys_.size() * key_bytes + sums_.size() * sizeof(float); }

    std::span<const index_key<Dims>> keys() const { return keys_; }  // by token

    std::uint32_t blocks() const { return static_cast<std::uint32_t>(sums_.size() / Dims); }
    // Mean key of a block; of the last block, the mean over the tokens it has.
    void mean(std::uint32_t block, std::span<double> to) const {
      const std::size_t first = std::size_t{block} * BlockTokens;
      const auto n = static_cast<double>(std::min<std::size_t>(BlockTokens, keys_.size() - first));
      for (std::size_t i = 0; i < Dims; ++i) {
        to[i] = sums_[block * Dims + i] / n;
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

    // The key of the newest token, decoded and rotated back.
    void newest(std::span<double> to) const {
      std::array<float, Dims> key;
      for (std::size_t i = 0; i < Dims; ++i) {
        key[i] = keys_.back()[i];
      }
      hadamard(key);  // its own inverse
      std::ranges::copy(key, to.begin());
    }

    static std::string name() {
      return "index_keys of " + std::to_string(Dims) + " dims in blocks of " +
             std::to_string(BlockTokens);
    }
    void each_part(auto&& file) { file(keys_, sums_); }

   private:
    static constexpr float largest = std::numeric_limits<float>::max() / (2 * Dims);

    std::vector<index_key<Dims>> keys_;
    std::vector<double> sums_;  // [blocks, Dims]
  };
};

}  // namespace instinfer::attention
