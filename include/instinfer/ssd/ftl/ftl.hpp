#pragma once
// A flash translation layer: stable page numbers over flash blocks that must be erased before they
// are written again (InstInfer §IV-C: append-only, block-granular writes; reclaim).

#include <algorithm>
#include <cassert>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>

#include "instinfer/core/errors.hpp"
#include "instinfer/ssd/ftl/block_writer.hpp"

namespace instinfer::flash {

// A page keeps its number and its channel for its whole life: it moves only within the channel. So
// tables of page numbers (those of the KV cache) never change, and garbage collection keeps the
// striping over channels.
//
// Blocks of each channel are spare, so that there is always room for a live page: two on each
// plane, so that a moved page stays on its plane; on drives with less than 64 blocks a plane
// kept_blocks + 1 in all (block_writer.hpp).
// Capacity shrinks when blocks fail; written pages stay readable.
template <class Policy = kv_blocks, class Pages = no_pages, class Faults = no_faults>
class ftl {
  using writer_type = block_writer<Policy, Pages, Faults>;

 public:
  // Pages of a channel without the spare blocks, if no block is bad.
  static std::uint64_t most_pages_per_channel(const geometry& g, const Policy& policy = {}) {
    return without_spare(
               std::uint64_t{writer_type::kept_blocks(g, policy)} + writer_type::moved_stripe(g),
               static_cast<std::uint64_t>(g.pages_per_channel() / g.pages)) *
           static_cast<std::uint64_t>(g.pages);
  }

  // Throws bad_argument for an invalid geometry or policy, bad blocks outside of the geometry, or a
  // capacity of 0 pages or of more than the good blocks hold.
  ftl(const geometry& g, std::uint64_t pages_per_channel, const Policy& policy = {},
      std::span<const location> bad_blocks = {}, const Faults& faults = {})
      : kept_blocks_{writer_type::kept_blocks(g, policy)},
        moved_blocks_{writer_type::moved_stripe(g)},
        writer_{g, checked(g, pages_per_channel, policy), policy, faults} {
    for (const location& at : bad_blocks) {
      require(inside(at, g), [&] {
        return "ftl: bad block at " + to_string(at) + " lies outside of " + to_string(g);
      });
      writer_.table.mark_bad(writer_.table.block_at(at));
    }
    for (std::uint32_t c = 0; c < channels(); ++c) {
      require(most_live(c) == pages_per_channel, [&] {
        return "ftl: channel " + std::to_string(c) + " has blocks for " +
               std::to_string(most_live(c)) + " pages beside the bad and spare ones, " +
               std::to_string(pages_per_channel) + " are asked for";
      });
    }
  }

  // Programs a page of `placement_handle` (ssd/ftl/policy.hpp) on the preferred channel, or on the
  // next channel with room. Throws drive_full, and nothing else unless operations are recorded.
  page_id write(std::uint32_t placement_handle, std::uint32_t preferred) {
    const std::uint32_t frontier = writer_.policy().frontier_of(placement_handle);
    assert(frontier < writer_.policy().frontiers);
    for (const std::uint64_t kept : {kept_blocks_, std::uint64_t{1}}) {
      for (std::uint32_t i = 0; i < channels(); ++i) {
        const std::uint32_t c = (preferred % channels() + i) % channels();
        if (numbers().live(c) >= most_live(c, kept)) {
          continue;
        }
        const page_id page = writer_.numbers.take(c);
        if (writer_.write(page, c, frontier)) {
          ++writer_.counters.host_pages;
          writer_.empty_failing(c, false);
          return page;
        }
        writer_.numbers.give_back(page);
      }
    }
    throw drive_full("ftl: the drive is full, " + std::to_string(live_pages()) + " pages of " +
                     std::to_string(capacity_pages()) + " are taken");
  }

  // Frees a page. Throws bad_argument if the page does not exist or was already freed.
  void release(page_id page) {
    require(is_live(page), [&] {
      return "ftl: release of page " + std::to_string(static_cast<std::uint32_t>(page)) +
             ", which holds nothing";
    });
    release_live(page);
  }
  // Precondition: is_live(page).
  void release_live(page_id page) noexcept {
    assert(is_live(page));
    writer_.table.release(physical(page));
    writer_.numbers.give_back(page);
  }

  bool is_live(page_id page) const {
    return numbers().in_use(page) && blocks().has(physical(page)) &&
           blocks().owner(physical(page)) == page;
  }
  // Precondition of both: is_live(page).
  physical_page physical(page_id page) const { return numbers().physical(page); }
  location locate(page_id page) const { return blocks().locate(physical(page)); }

  // For times without host requests: empties failing blocks and erases dead blocks, at most
  // `most_erases`. Returns the number of erased blocks.
  std::uint64_t idle(std::uint64_t most_erases = ~std::uint64_t{0}) {
    const std::uint64_t before = counters().erases;
    for (std::uint32_t c = 0; c < channels(); ++c) {
      writer_.empty_failing(c, true);
      while (counters().erases - before < most_erases && writer_.erase_oldest(c)) {
      }
    }
    return counters().erases - before;
  }

  // Moves the live pages of every block with due(block, now_s), and erases the block. Stops on a
  // channel when room runs out. A condition with `levels_wear` moves them to the most worn free
  // blocks. Returns the number of moved pages. See reliability.hpp for conditions.
  template <class Due>
  std::uint64_t refresh(Due&& due) {
    constexpr bool levels_wear = requires { requires std::remove_cvref_t<Due>::levels_wear; };
    const std::uint64_t before = counters().moved();
    const std::uint32_t per_channel = blocks().blocks_per_channel();
    for (block_number b = 0; b < per_channel * channels(); ++b) {
      const block_info& block = blocks().at(b);
      const bool in_use = block.state == block_state::closed ||
                          (block.state == block_state::open && block.live > 0);
      if (!in_use || !due(block, writer_.now_s) ||
          (levels_wear && !writer_.has_more_worn_room(b))) {
        continue;
      }
      if (block.state == block_state::open) {
        writer_.close(b);
      }
      if (!writer_.collect(b, levels_wear ? move_cause::wear : move_cause::refresh)) {
        b = (b / per_channel + 1) * per_channel - 1;
      }
    }
    return counters().moved() - before;
  }

  // Counts a host read of a live page, because reads disturb the block.
  void count_read(page_id page) noexcept { writer_.table.count_read(physical(page)); }
  // The caller's clock, in seconds since any start.
  void set_time(std::uint32_t now_s) { writer_.now_s = now_s; }

  std::uint64_t capacity_pages() const {
    return sum([&](std::uint32_t c) { return std::max(most_live(c), numbers().live(c)); });
  }
  std::uint64_t live_pages() const {
    return sum([&](std::uint32_t c) { return numbers().live(c); });
  }
  // Pages that can certainly be written, unless blocks fail in the meantime. Usually up to
  // kept_blocks - 1 blocks of each channel may fail. A channel that has lost all its kept blocks
  // counts 0 until releases or idle() free space.
  std::uint64_t free_pages() const {
    return sum([&](std::uint32_t c) {
      const bool has_spare =
          blocks().count(c, block_state::free) + blocks().count(c, block_state::dead) > 0;
      return has_spare ? most_live(c) - std::min(most_live(c), numbers().live(c)) : 0;
    });
  }
  std::uint32_t channels() const { return blocks().channels(); }
  // Room of the good blocks beyond the capacity, as a share of the capacity.
  double overprovisioning() const {
    const auto usable = sum([&](std::uint32_t c) {
      return std::uint64_t{blocks().usable_blocks(c)} * blocks().pages_per_block();
    });
    return static_cast<double>(usable) / static_cast<double>(capacity_pages()) - 1.0;
  }
  // DRAM of a drive for the mapping table from page numbers to physical pages.
  std::uint64_t l2p_bytes() const { return numbers().bytes(); }

  wear_summary wear() const {
    wear_summary w{.least = ~0u};
    for (block_number b = 0; b < blocks().blocks_per_channel() * channels(); ++b) {
      if (const block_info& block = blocks().at(b); block.state != block_state::bad) {
        w.least = std::min(w.least, block.erases);
        w.most = std::max(w.most, block.erases);
        w.mean += block.erases;
        ++w.blocks;
      }
    }
    w.mean /= static_cast<double>(w.blocks);
    return w;
  }

  const ftl_counters& counters() const { return writer_.counters; }
  const block_table& blocks() const { return writer_.table; }
  const Pages& pages() const { return writer_.pages; }

  // Records the operations of later calls, until clear_operations().
  void record_operations(bool on) { writer_.recording = on; }
  void clear_operations() { writer_.operations.clear(); }
  const ftl_operations& operations() const { return writer_.operations; }

 private:
  static constexpr std::uint32_t max_frontiers = 1u << 16;

  static std::uint64_t without_spare(std::uint64_t spare, std::uint64_t blocks) {
    return blocks > spare ? blocks - spare : 0;
  }
  static std::uint64_t checked(const geometry& g, std::uint64_t pages, const Policy& p) {
    validate(g);
    require(p.frontiers > 0 && p.frontiers <= max_frontiers && p.kept_blocks > 0, [&] {
      return "ftl: a policy has 1 to " + std::to_string(max_frontiers) +
             " frontiers and keeps at least 1 block free, got " + std::to_string(p.frontiers) +
             " and " + std::to_string(p.kept_blocks);
    });
    const std::uint64_t most = most_pages_per_channel(g, p);
    require(pages > 0 && pages <= most, [&] {
      return "ftl: a channel of " + std::to_string(g.pages_per_channel()) + " pages holds 1 to " +
             std::to_string(most) + " beside its spare blocks, got " + std::to_string(pages);
    });
    return pages;
  }

  const mapping_table& numbers() const { return writer_.numbers; }
  std::uint64_t most_live(std::uint32_t c, std::uint64_t kept) const {
    return std::min<std::uint64_t>(numbers().pages_per_channel(),
                                   without_spare(kept + moved_blocks_, blocks().usable_blocks(c)) *
                                       blocks().pages_per_block());
  }
  std::uint64_t most_live(std::uint32_t c) const { return most_live(c, kept_blocks_); }
  template <class F>
  std::uint64_t sum(F&& of_channel) const {
    std::uint64_t total = 0;
    for (std::uint32_t c = 0; c < channels(); ++c) {
      total += of_channel(c);
    }
    return total;
  }

  std::uint64_t kept_blocks_;   // free ones that the host leaves on each channel
  std::uint64_t moved_blocks_;  // open ones for moved pages on each channel
  writer_type writer_;
};

}  // namespace instinfer::flash
