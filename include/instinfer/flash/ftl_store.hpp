#pragma once
// A page store on a modelled drive's FTL: the KV cache writes to it as to any other, and it counts blocks, wear and moves.

#include <cstdint>
#include <span>
#include <string>
#include <type_traits>
#include <utility>

#include "instinfer/ssd/ftl/ftl.hpp"
#include "instinfer/store/concepts.hpp"

namespace instinfer::flash {

// Rules is a policy's value (ftl_policy.hpp), as in ftl_store<instcsd.geometry, kv_blocks{.stripe = 8}>. With page_array as
// Pages it holds data; Faults is a fault model's value. Pages of a sequence slot are one placement_handle of the FTL: the cache
// says whose pages come next.
//
// free_pages() is a promise that one failed block of a channel does not break. Where more fail within one append, allocate may
// throw drive_full out of the middle of it, and the cache is to be given up; raise kept_blocks.
//
// Pages move: the spans of write and view are valid until the next allocate or housekeeping.
template <geometry Shape, auto Rules = kv_blocks{}, class Pages = no_pages,
          auto Faults = no_faults{}>
class ftl_store {
  static_assert(valid(Shape),
                "instinfer: the geometry of an ftl_store is not valid, see ssd/spec/geometry.hpp");

 public:
  using ftl_type =
      ftl<std::remove_const_t<decltype(Rules)>, Pages, std::remove_const_t<decltype(Faults)>>;
  static constexpr bool holds_data = Pages::holds_data;

  // Throws bad_argument where channels or page size are not the geometry's, or the drive is too small.
  ftl_store(std::uint32_t channels, std::uint64_t pages_per_channel, std::uint32_t page_bytes)
      : ftl_{(check(channels, page_bytes), Shape), pages_per_channel, Rules, {}, Faults} {}

  // Pages that follow belong to this sequence slot; where operations are recorded, those of the last call are forgotten.
  void begin_writes(std::uint32_t slot) {
    unit_ = slot;
    ftl_.clear_operations();
  }
  page_id allocate(std::uint32_t channel) { return ftl_.write(unit_, channel); }
  void release(page_id page) noexcept { ftl_.release_live(page); }

  std::uint64_t free_pages() const { return ftl_.free_pages(); }
  std::uint64_t capacity_pages() const { return ftl_.capacity_pages(); }
  std::uint32_t channels() const { return ftl_.channels(); }

  std::span<std::byte> write(page_id page)
    requires holds_data
  {
    return ftl_.pages()[ftl_.physical(page)];
  }
  std::span<const std::byte> view(page_id page) const
    requires holds_data
  {
    return ftl_.pages()[ftl_.physical(page)];
  }

  static constexpr const geometry& shape() { return shape_; }
  // Throws bad_argument for a page that was never written, or given up since.
  location locate(page_id page) const {
    require(ftl_.is_live(page), [&] {
      return "ftl_store: page " + std::to_string(static_cast<std::uint32_t>(page)) +
             " holds nothing: it was never written, or was released";
    });
    return ftl_.locate(page);
  }

  // For housekeeping (idle, refresh, count_read) and its counters.
  ftl_type& translation() { return ftl_; }
  const ftl_type& translation() const { return ftl_; }

 private:
  static void check(std::uint32_t channels, std::uint32_t page_bytes) {
    require(
        std::cmp_equal(channels, Shape.channels) && std::cmp_equal(page_bytes, Shape.page_bytes),
        [&] {
          return "ftl_store: the drive has " + std::to_string(Shape.channels) +
                 " channels and pages of " + std::to_string(Shape.page_bytes) +
                 " bytes, the cache " + std::to_string(channels) + " and " +
                 std::to_string(page_bytes);
        });
  }

  static constexpr geometry shape_ = Shape;

  ftl_type ftl_;
  std::uint32_t unit_ = 0;
};

}  // namespace instinfer::flash
