#pragma once
// Puts the tokens of a run into another order inside one head's pages: how clusters come to lie side by side. Attention does
// not depend on the order of tokens once positions are in the keys.

#include <cstring>
#include <string>
#include <vector>

#include "instinfer/core/errors.hpp"
#include "instinfer/store/layer_cache.hpp"

namespace instinfer::store {

// K and V rows of a run of one head's tokens, as fp32.
struct token_rows {
  std::vector<float> k;  // [run, k_dim]
  std::vector<float> v;  // [run, v_dim]
};

template <class Layer, PageStore Store>
token_rows read_rows(const Layer& layer, const Store& store, std::uint32_t head, index_run run) {
  token_rows rows;
  const auto read = [&](stream s, std::size_t dim, std::vector<float>& to) {
    std::vector<typename Layer::element> row(dim);
    for (std::uint32_t token = run.first; token < run.last; ++token) {
      layer.read_row(store, s, head, token, row);
      std::ranges::transform(row, std::back_inserter(to), [](auto x) { return to_float(x); });
    }
  };
  read(layer.key_rows(), Layer::format::k_dim, rows.k);
  read(stream::v_by_token, Layer::format::v_dim, rows.v);
  return rows;
}

// Token run.first + i becomes the one that was at run.first + order[i]. Sealed pages that hold tokens of the run are read and
// written anew, open ones changed where they are. Pages written are added to `written`. Throws drive_full, and the cache is then
// as before.
template <class Layer, PageStore Store>
traffic reorder(Layer& layer, Store& store, std::uint32_t start_channel, std::uint32_t head,
                index_run run, std::span<const std::uint32_t> order,
                std::vector<page_id>& written) {
  using element = typename Layer::element;
  std::uint64_t pages = 0;
  layer.for_each_stream([&](stream s, const layout::tile& tile) {
    const std::uint32_t sealed = std::min(run.last, layer.sealed_tokens(s));
    if (run.first < sealed) {
      pages += std::uint64_t{(sealed - 1) / tile.tokens - run.first / tile.tokens + 1} *
               layer.dim_tiles(s);
    }
  });
  require<drive_full>(pages <= store.free_pages(), [&] {
    return "reorder: " + std::to_string(run.size()) + " tokens of a head need " +
           std::to_string(pages) + " pages, the drive has " + std::to_string(store.free_pages()) +
           " free";
  });
  reserve_scratch(written, written.size() + pages);
  std::array<std::vector<element>, stream_count> rows;  // of the run, in the new order
  layer.for_each_stream([&](stream s, const layout::tile&) {
    const std::size_t dim = layer.head_dim(s);
    auto& to = rows[static_cast<std::size_t>(s)];
    to.resize(run.size() * dim);
    for (std::uint32_t i = 0; i < run.size(); ++i) {
      layer.read_row(store, s, head, run.first + order[i], std::span(to).subspan(i * dim, dim));
    }
  });

  // Nothing below can fail: the pages are free, and `written` has room.
  layer.for_each_stream([&](stream s, const layout::tile& tile) {
    const std::size_t dim = layer.head_dim(s);
    const element* from = rows[static_cast<std::size_t>(s)].data();
    for (std::uint32_t t = run.first / tile.tokens; t * tile.tokens < run.last; ++t) {
      const std::uint32_t begin = std::max(run.first, t * tile.tokens);
      const std::uint32_t end = std::min(run.last, (t + 1) * tile.tokens);
      for (std::uint32_t dim_tile = 0; dim_tile < layer.dim_tiles(s); ++dim_tile) {
        const auto fill = [&](std::span<std::byte> page) {
          auto* to = reinterpret_cast<element*>(page.data());
          for (std::uint32_t token = begin; token < end; ++token) {
            for (std::uint32_t i = 0; i < tile.dims; ++i) {
              to[tile.offset(token % tile.tokens, i)] =
                  from[(token - run.first) * dim + std::size_t{dim_tile} * tile.dims + i];
            }
          }
        };
        if (t * tile.tokens >= layer.sealed_tokens(s)) {
          fill(layer.open_page(s, head, dim_tile));
          continue;
        }
        const page_id old = layer.page(s, t, head, dim_tile);
        const page_id fresh =
            store.allocate(layer.channel_of(s, t, head, dim_tile, start_channel, store.channels()));
        const std::span<std::byte> page = store.write(fresh);
        std::memcpy(page.data(), store.view(old).data(), page.size());
        fill(page);
        layer.replace_page(s, t, head, dim_tile, fresh);
        store.release(old);
        written.push_back(fresh);
      }
    }
  });
  const std::uint64_t page_bytes = layer.head(head).page_bytes;
  return {.pages_read = pages,
          .pages_written = pages,
          .array_bytes = pages * page_bytes,
          .channel_bytes = pages * page_bytes,
          .filtered_bytes = pages * page_bytes,
          .written_bytes = pages * page_bytes};
}

}  // namespace instinfer::store
