#pragma once
// A page store on the FTL of a modelled drive. The KV cache writes to it as to any store; it counts
// blocks, wear and moves.

#include <cstdint>
#include <span>
#include <string>
#include <type_traits>
#include <utility>

#include "instinfer/ssd/ftl/ftl.hpp"
#include "instinfer/store/pages/concepts.hpp"

namespace instinfer::flash {

// Rules is the value of a policy (ssd/ftl/policy.hpp), as in ftl_store<instcsd.geometry,
// kv_blocks{.stripe = 8}>. With page_array as Pages it holds data. Faults is the value of a fault
// model. The pages of a sequence slot have one placement handle; the cache announces the sequence
// of the next pages.
//
// free_pages() stays valid if one block per channel fails. If more fail within one append, allocate
// may throw drive_full in the middle of it, and the cache is then unusable; raise kept_blocks.
//
// Pages move: the spans of write and view are valid until the next allocate or housekeeping call.
template <geometry Shape, auto Rules = kv_blocks{}, class Pages = no_pages,
          auto Faults = no_faults{}>
class ftl_store {
  static_assert(valid(Shape),
                "instinfer: the geometry of an ftl_store is not valid, see ssd/spec/geometry.hpp");

 public:
  using ftl_type =
      ftl<std::remove_const_t<decltype(Rules)>, Pages, std::remove_const_t<decltype(Faults)>>;
  static constexpr bool holds_data = Pages::holds_data;

  // Throws bad_argument if channels or page size differ from the geometry's, or if the drive is too
  // small.
  ftl_store(std::uint32_t channels, std::uint64_t pages_per_channel, std::uint32_t page_bytes)
      : ftl_{(check(channels, page_bytes), Shape), pages_per_channel, Rules, {}, Faults} {}

  // The next pages belong to this sequence slot. Clears the recorded operations of the last call.
  void begin_writes(std::uint32_t slot) {
    placement_handle_ = slot;
    ftl_.clear_operations();
  }
  page_id allocate(std::uint32_t channel) { return ftl_.write(placement_handle_, channel); }
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
  // Throws bad_argument for a page that was never written or was released.
  location locate(page_id page) const {
    require(ftl_.is_live(page), [&] {
      return "ftl_store: page " + std::to_string(static_cast<std::uint32_t>(page)) +
             " holds nothing: it was never written, or was released";
    });
    return ftl_.locate(page);
  }

  // The FTL, for housekeeping (idle, refresh, count_read) and counters.
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
  std::uint32_t placement_handle_ = 0;
};

}  // namespace instinfer::flash
