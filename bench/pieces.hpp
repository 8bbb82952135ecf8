#pragma once
// The pieces of memory that plans read: rows of tokens, and columns of dims.

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include <instinfer/attention/observer.hpp>
#include <instinfer/cpu/simd-inl.hpp>
#include <instinfer/layout/page_reader.hpp>

namespace instinfer::bench {

// Adjacent bytes that are read one after the other.
struct piece {
  const std::byte* at;
  std::size_t bytes;
};

// Appends what a plan reads of plain pages: rows of the wanted tokens, or the wanted tokens of each
// wanted dim. Neighbours become one piece, up to 4 KiB.
template <class Pages>
void add_pieces(const access_plan& plan, const Pages& pages, std::vector<piece>& to) {
  const auto add = [&](const auto* first, std::size_t elements) {
    const auto* at = reinterpret_cast<const std::byte*>(first);
    const std::size_t bytes = elements * sizeof(*first);
    if (!to.empty() && to.back().at + to.back().bytes == at && to.back().bytes + bytes <= 4096) {
      to.back().bytes += bytes;
    } else {
      to.push_back({at, bytes});
    }
  };
  for (const page_read& read : plan.reads()) {
    const auto page = pages(read);
    for (const index_run run : plan.tokens(read).runs()) {
      if (page.shape.token_stride == 1) {
        plan.dims(read).for_each(
            [&](std::uint32_t i) { add(page.data + page.shape.offset(run.first, i), run.size()); });
      } else {
        for (std::uint32_t t = run.first; t < run.last; ++t) {
          add(page.data + page.shape.offset(t, 0), read.dims.count);
        }
      }
    }
  }
}

// An observer that collects the pieces of one head's plans.
template <class Format>
struct piece_recorder {
  layout::page_source pages;
  layout::head_pages head;
  std::vector<piece>* to;

  void chose(attention::operation, index_view) {}
  void accessed(attention::operation, const access_plan& plan) {
    add_pieces(plan, layout::page_reader<Format>{pages, head}, *to);
  }
};

// Reads all bytes of the pieces, and prefetches those that come so many bytes later. Returns their
// bitwise or, so that no load can be left out.
template <cpu::cache_level To>
std::uint8_t read_pieces(std::span<const piece> pieces, std::size_t ahead) {
  namespace hn = cpu::hn;
  const hn::ScalableTag<std::uint8_t> tag;
  const std::size_t width = hn::Lanes(tag);
  auto all = hn::Zero(tag);
  std::uint8_t rest = 0;
  std::size_t prefetched = 0;  // pieces
  std::size_t lead = 0;        // bytes that are prefetched and not yet read
  for (const piece& p : pieces) {
    for (; prefetched < pieces.size() && lead < ahead + p.bytes; ++prefetched) {
      cpu::prefetch<To>(pieces[prefetched].at, pieces[prefetched].bytes);
      lead += pieces[prefetched].bytes;
    }
    lead -= p.bytes;
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(p.at);
    std::size_t i = 0;
    for (; i + width <= p.bytes; i += width) {
      all = hn::Or(all, hn::LoadU(tag, bytes + i));
    }
    for (; i < p.bytes; ++i) {
      rest |= bytes[i];
    }
  }
  std::array<std::uint8_t, 256> lanes{};
  hn::StoreU(all, tag, lanes.data());
  for (std::size_t i = 0; i < width; ++i) {
    rest |= lanes[i];
  }
  return rest;
}

}  // namespace instinfer::bench
