#pragma once
// The identity of a page: its sequence, layer, KV head, stream and tile; and its physical page
// number.

#include <cstdint>

namespace instinfer {

// The three streams of a head that a layout may store (InstInfer §IV-C). K may be stored twice.
enum class stream : std::uint8_t { k_by_token, k_by_dim, v_by_token };
inline constexpr int stream_count = 3;

constexpr const char* stream_name(stream s) {
  return s == stream::k_by_token ? "K by token" : s == stream::k_by_dim ? "K by dim" : "V by token";
}

// What V has in common with K by token.
// - nothing: V has pages of its own
// - page: K and V of a token lie in one page, side by side (fused rows)
// - entries: V is the first dims of K's rows, and nothing is stored for it (latent rows, as in MLA)
enum class sharing : std::uint8_t { nothing, page, entries };

// A handle to one request's cache. `cache` identifies the cache that opened it. The generation
// distinguishes sequences that used the same slot.
struct sequence {
  std::uint32_t slot = 0;
  std::uint32_t generation = 0;
  const void* cache = nullptr;
  friend constexpr bool operator==(const sequence&, const sequence&) = default;
};

// Logical name of a page: tile (token_tile, dim_tile) of one stream of one KV head.
struct page_key {
  std::uint32_t sequence_slot = 0;
  std::uint32_t layer = 0;
  std::uint32_t kv_head = 0;
  stream kind = stream::k_by_token;
  std::uint32_t token_tile = 0;
  std::uint32_t dim_tile = 0;
  friend constexpr bool operator==(const page_key&, const page_key&) = default;
};

// Physical page number. On a drive with C channels, page p is in slot p / C of channel p % C.
enum class page_id : std::uint32_t {};
inline constexpr page_id no_page{0xFFFF'FFFFu};

constexpr page_id make_page_id(std::uint32_t channel, std::uint32_t slot, std::uint32_t channels) {
  return page_id{slot * channels + channel};
}
constexpr std::uint32_t channel_of(page_id page, std::uint32_t channels) {
  return static_cast<std::uint32_t>(page) % channels;
}
constexpr std::uint32_t slot_of(page_id page, std::uint32_t channels) {
  return static_cast<std::uint32_t>(page) / channels;
}

}  // namespace instinfer
