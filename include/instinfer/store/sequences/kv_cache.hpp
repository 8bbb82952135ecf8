#pragma once
// The KV cache of a design: sequence_cache with the tiles of a layout policy.
// A byte of an append passes sequence_cache (all sequences), layer_cache (one layer of one),
// stream_cache (K or V of a head), a buffer until its page is full, and the store.

#include "instinfer/layout/validate.hpp"
#include "instinfer/store/sequences/sequence_cache.hpp"

namespace instinfer::store {

template <class Format, class Layout, class SummaryStates, class Store>
class kv_cache : public sequence_cache<Format, SummaryStates, Store> {
  static_assert(
      layout::Layout<Layout>,
      "instinfer: the layout lacks `page_bytes` or `tiles<Format>(context_tokens)`, see layout/concepts.hpp");

 public:
  // Throws bad_argument if the shape is not valid, the layout breaks its contract, or the capacity
  // is less than one page per channel.
  kv_cache(const model_shape& shape, const capacity& cap, std::uint32_t channels)
      : sequence_cache<Format, SummaryStates, Store>{shape, cap, checked_tiles(shape, cap),
                                                     Layout::page_bytes, channels},
        context_tokens_{cap.context_tokens} {}

  // The same over a given store of pages of the layout's size; it replaces `cap.bytes`.
  kv_cache(const model_shape& shape, const capacity& cap, Store pages)
      : sequence_cache<Format, SummaryStates, Store>{shape, cap, checked_tiles(shape, cap),
                                                     Layout::page_bytes, std::move(pages)},
        context_tokens_{cap.context_tokens} {}

  std::uint32_t context_tokens() const { return context_tokens_; }
  // What the layout would choose for another context.
  static layout::tiling tiles_for(std::uint32_t context_tokens) {
    return Layout::template tiles<typename Format::padded>(context_tokens);
  }

 private:
  static layout::tiling checked_tiles(const model_shape& shape, const capacity& cap) {
    shape.validate();
    require_context(cap);
    return layout::checked_tiles<typename Format::padded, Layout>(cap.context_tokens);
  }

  std::uint32_t context_tokens_;
};

}  // namespace instinfer::store
