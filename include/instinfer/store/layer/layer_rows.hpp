#pragma once
// The rows of one token of a head, read from the streams of a layer.

#include <algorithm>
#include <array>

#include "instinfer/store/layer/stream_cache.hpp"

namespace instinfer::store {

// As stored.
template <class Format>
struct token_row {
  using stored_element = typename Format::decoded::element;
  std::array<stored_element, static_cast<std::size_t>(Format::k_dim)> k;
  std::array<stored_element, static_cast<std::size_t>(Format::v_dim)> v;
};

// The streams whose pages hold K and V: one stream if they share pages.
template <class Format>
struct layer_rows {
  const stream_cache<Format>& k;
  const stream_cache<Format>& v;
  sharing shares;

  // Reads what the pages of stream s hold of a token: K, V or both. `open`: from the group buffer.
  void read_parts(layout::page_source pages, const stream_cache<Format>& s, std::uint32_t h,
                  std::uint32_t token, bool open, token_row<Format>& row) const {
    if (&s == &k) {
      s.read_row(pages, h, token, open, row.k);
    }
    if (&s == &v && shares == sharing::nothing) {
      s.read_row(pages, h, token, open, row.v);
    } else if (&s == &v && shares == sharing::page) {
      s.read_guest_row(pages, h, token, open, row.v);
    } else if (&s == &v) {
      std::copy_n(row.k.begin(), row.v.size(), row.v.begin());
    }
  }

  void read(layout::page_source pages, std::uint32_t h, std::uint32_t token,
            token_row<Format>& row) const {
    read_parts(pages, k, h, token, token >= k.sealed_tokens(), row);
    if (&k != &v) {
      read_parts(pages, v, h, token, token >= v.sealed_tokens(), row);
    }
  }
};

}  // namespace instinfer::store
