#pragma once
// The logical address that an NVMe command carries for KV entries (InstInfer §IV-C, Fig. 10). Its
// bit fields Task, Batch, Layer, Token, Head and Dim have configurable lengths. A value that does
// not fit its field is an error; it never wraps.

#include <array>
#include <bit>
#include <cstdint>
#include <string>

#include "instinfer/core/errors.hpp"
#include "instinfer/core/page_key.hpp"

namespace instinfer {

// Number of values that each field can distinguish. Token counts the groups of token-indexed pages;
// Dim counts dims or tiles of dims.
struct address_lengths {
  std::uint64_t task = 1;
  std::uint64_t batch = 1u << 16;
  std::uint64_t layer = 1u << 10;
  std::uint64_t token = 1u << 20;
  std::uint64_t head = 1u << 10;
  std::uint64_t dim = 1u << 8;
};

// The example of Fig. 10, which fits a 32-bit address.
inline constexpr address_lengths paper_address_lengths{
    .task = 1, .batch = 4, .layer = 64, .token = 32, .head = 40, .dim = 128};

struct address_fields {
  std::uint64_t task = 0, batch = 0, layer = 0, token = 0, head = 0, dim = 0;
  friend constexpr bool operator==(const address_fields&, const address_fields&) = default;
};

// Packs the fields from Task (highest bits) to Dim (lowest bits). Each field has the fewest bits
// that its length needs.
class address_codec {
 public:
  // Throws bad_argument if a length is 0, address_overflow if the fields need more than word_bits.
  explicit address_codec(const address_lengths& lengths = {}, int word_bits = 64)
      : lengths_{lengths.task,  lengths.batch, lengths.layer,
                 lengths.token, lengths.head,  lengths.dim} {
    int total = 0;
    for (std::size_t i = 0; i < field_count; ++i) {
      require(lengths_[i] > 0, [&] {
        return std::string("address: field ") + names[i] + " has length 0, needs at least 1";
      });
      bits_[i] = static_cast<int>(std::bit_width(lengths_[i] - 1));
      total += bits_[i];
    }
    require(word_bits > 0 && word_bits <= 64,
            [&] { return "address: the word has 1 to 64 bits, got " + std::to_string(word_bits); });
    require<address_overflow>(total <= word_bits, [&] {
      return "address: the fields need " + std::to_string(total) + " bits, the address has " +
             std::to_string(word_bits);
    });
    total_bits_ = total;
  }

  int bits() const { return total_bits_; }
  std::uint64_t token_length() const { return lengths_[3]; }

  // Throws address_overflow, naming the field, its value and its length.
  std::uint64_t encode(const address_fields& fields) const {
    const std::array<std::uint64_t, field_count> values{fields.task,  fields.batch, fields.layer,
                                                        fields.token, fields.head,  fields.dim};
    std::uint64_t address = 0;
    for (std::size_t i = 0; i < field_count; ++i) {
      require<address_overflow>(values[i] < lengths_[i], [&] {
        return std::string("address: field ") + names[i] + " holds 0 to " +
               std::to_string(lengths_[i] - 1) + ", got " + std::to_string(values[i]);
      });
      address = bits_[i] == 64 ? values[i] : (address << bits_[i]) | values[i];
    }
    return address;
  }

  address_fields decode(std::uint64_t address) const {
    std::array<std::uint64_t, field_count> values{};
    for (std::size_t i = field_count; i-- > 0;) {
      const bool whole_word = bits_[i] == 64;
      values[i] = whole_word ? address : address & ((std::uint64_t{1} << bits_[i]) - 1);
      address = whole_word ? 0 : address >> bits_[i];
    }
    return {values[0], values[1], values[2], values[3], values[4], values[5]};
  }

  // Address of a page. The drive has two mapping tables, so two address spaces: one for K by dim,
  // one for K and V by token. In the second, K takes the lower and V the upper half of Dim. Throws
  // address_overflow if a dim tile does not fit.
  std::uint64_t encode(const page_key& key) const {
    const std::uint64_t half = lengths_[5] / 2;
    const bool shared = key.kind != stream::k_by_dim;
    require<address_overflow>(!shared || key.dim_tile < half, [&] {
      return "address: field Dim of length " + std::to_string(lengths_[5]) + " holds " +
             std::to_string(half) + " dim tiles each of K and V by token, got tile " +
             std::to_string(key.dim_tile);
    });
    return encode(
        address_fields{.task = 0,
                       .batch = key.sequence_slot,
                       .layer = key.layer,
                       .token = key.token_tile,
                       .head = key.kv_head,
                       .dim = key.dim_tile + (key.kind == stream::v_by_token ? half : 0)});
  }

 private:
  static constexpr std::size_t field_count = 6;
  static constexpr const char* names[field_count] = {"Task",  "Batch", "Layer",
                                                     "Token", "Head",  "Dim"};

  std::array<std::uint64_t, field_count> lengths_;
  std::array<int, field_count> bits_{};
  int total_bits_ = 0;
};

}  // namespace instinfer
