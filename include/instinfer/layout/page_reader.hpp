#pragma once
// How kernels read a head's planned pages: from any page store, or from the group buffer.

#include <cstddef>
#include <span>

#include "instinfer/core/access_plan.hpp"
#include "instinfer/layout/head_pages.hpp"

namespace instinfer::layout {

// A page store to read from, without the store's type: machines and kernels are compiled once for
// all stores. A read costs one indirect call, about 1 ns of the 100 ns or more that the rows of a
// page take. The store must outlive it.
class page_source {
 public:
  // A store without data (Store::holds_data is false) has no pages to read.
  template <class Store>
    requires requires { Store::holds_data; }
  page_source(const Store& store) : store_{&store} {
    if constexpr (Store::holds_data) {
      view_ = [](const void* from, page_id page) {
        return static_cast<const Store*>(from)->view(page).data();
      };
    }
  }

  bool holds_data() const { return view_ != nullptr; }
  const std::byte* operator()(page_id page) const { return view_(store_, page); }

 private:
  const void* store_;
  const std::byte* (*view_)(const void*, page_id) = nullptr;
};

// Gives the elements of a planned page of one head.
template <class Format>
class page_reader {
 public:
  page_reader(page_source source, const head_pages& head) : source_{source}, head_{head} {}

  view_of<Format> operator()(const page_read& read) const {
    const stream_pages& from = head_.of(read.kind);
    const std::byte* bytes = read.buffered
                                 ? from.open + std::size_t{read.dim_tile} * from.open_bytes
                                 : source_(read.page);
    return make_view<Format>(bytes, read.buffered ? from.open_tile : head_.tiles.of(read.kind),
                             head_.fill(read.kind, read.token_tile), head_.page_bytes,
                             read.buffered);
  }

  // Tokens of a page of a stream.
  std::uint32_t tile_tokens(stream s) const { return head_.tiles.of(s).tokens; }

 private:
  page_source source_;
  const head_pages& head_;
};

}  // namespace instinfer::layout
