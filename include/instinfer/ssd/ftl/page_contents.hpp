#pragma once
// Storage of page contents in an FTL.
//
//   no_pages     no contents: tables only
//   page_array   every page at its physical place; moving a page copies it

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "instinfer/core/raw_array.hpp"
#include "instinfer/ssd/ftl/block_table.hpp"

namespace instinfer::flash {

template <class P>
concept FtlPages = std::constructible_from<P, const geometry&> &&
                   requires(P& p, physical_page from, physical_page to) {
                     { P::holds_data } -> std::convertible_to<bool>;
                     { p.copy(from, to) } noexcept;
                   };

struct no_pages {
  static constexpr bool holds_data = false;
  explicit no_pages(const geometry& /*g*/) {}
  void copy(physical_page /*from*/, physical_page /*to*/) noexcept {}
};

// Reserves address space for the whole drive; the system provides memory only for written pages.
class page_array {
 public:
  static constexpr bool holds_data = true;

  explicit page_array(const geometry& g)
      : page_bytes_{static_cast<std::size_t>(g.page_bytes)},
        bytes_{static_cast<std::size_t>(g.bytes())} {}

  std::span<std::byte> operator[](physical_page page) const {
    return {bytes_.data() + static_cast<std::uint32_t>(page) * page_bytes_, page_bytes_};
  }
  void copy(physical_page from, physical_page to) noexcept {
    std::memcpy((*this)[to].data(), (*this)[from].data(), page_bytes_);
  }

 private:
  std::size_t page_bytes_;
  store::raw_array<std::byte, 4096> bytes_;
};

}  // namespace instinfer::flash
