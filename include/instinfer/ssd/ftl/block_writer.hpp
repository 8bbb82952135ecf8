#pragma once
// long because: why garbage collection cannot get stuck is one argument over all of these steps.
// Programs pages into blocks and frees blocks: erases, garbage collection (move the live pages of a
// victim block, then erase it), and the rescue of pages from failing blocks.

#include <algorithm>
#include <cstdint>
#include <span>
#include <utility>

#include "instinfer/ssd/ftl/block_table.hpp"
#include "instinfer/ssd/ftl/counters.hpp"
#include "instinfer/ssd/ftl/fault_model.hpp"
#include "instinfer/ssd/ftl/mapping_table.hpp"
#include "instinfer/ssd/ftl/page_contents.hpp"
#include "instinfer/ssd/ftl/policy.hpp"
#include "instinfer/ssd/ftl/write_frontiers.hpp"

namespace instinfer::flash {

// The mechanism of an FTL; ftl.hpp has its guarantees. Pages never leave their channel.
//
// Moved pages stay on their plane, so that a sequence keeps its spread over dies: each plane has an
// open block for moved pages, and the host leaves one free block on each plane. On planes with less
// than 64 blocks these two would be too large a share. Moved pages then share one open block a
// channel.
//
// Why garbage collection always makes progress: a channel of G usable blocks has at most (G - kept
// - moved) x pages live pages, with `moved` open blocks for moved pages, and the host leaves `kept`
// blocks free. So when every other block is full, some full block has a dead page. Its live pages
// fit into the open blocks for moved pages and one kept block, and its erase frees a block. One
// kept block is enough for this. Further kept blocks are for failures: if fewer blocks are usable
// than the promised pages need, the host may take all kept blocks but one.
template <class Policy, class Pages, class Faults>
class block_writer {
  static_assert(
      FtlPolicy<Policy>,
      "instinfer: an FTL policy lacks a knob, frontier_of(placement_handle) or victim_cost(block, now_s), see ssd/ftl/policy.hpp");
  static_assert(
      FtlPages<Pages>,
      "instinfer: the pages of an FTL lack holds_data or a noexcept copy(from, to), see ssd/ftl/page_contents.hpp");
  static_assert(
      FaultModel<Faults>,
      "instinfer: a fault model lacks program_fails(location) or erase_fails(location), see ssd/ftl/fault_model.hpp");

  using slot = write_frontiers::slot;

 public:
  // Precondition: the policy is valid, channels x pages_per_channel < 2^32 - 1.
  block_writer(const geometry& g, std::uint64_t pages_per_channel, const Policy& policy,
               const Faults& faults)
      : table{g},
        numbers{table.channels(), pages_per_channel},
        pages{g},
        policy_{policy},
        faults_{faults},
        frontiers_{policy.frontiers, table.channels(), table.planes(), policy.stripe},
        moved_frontier_{1, table.channels(), table.planes(), moved_stripe(g)},
        kept_{kept_blocks(g, policy)} {}

  // Of each channel: the number of open blocks for moved pages, and of free blocks that the host
  // leaves.
  static std::uint32_t moved_stripe(const geometry& g) {
    return g.blocks >= least_blocks_to_spread
               ? static_cast<std::uint32_t>(g.dies_per_channel() * g.planes)
               : 1;
  }
  static std::uint32_t kept_blocks(const geometry& g, const Policy& policy) {
    return std::max<std::uint32_t>(policy.kept_blocks, moved_stripe(g) > 1 ? moved_stripe(g) : 0);
  }

  block_table table;
  mapping_table numbers;
  [[no_unique_address]] Pages pages;
  ftl_counters counters;
  ftl_operations operations;
  bool recording = false;
  std::uint32_t now_s = 0;

  const Policy& policy() const { return policy_; }

  // Programs a page of the host. False if no block can take it even after garbage collection.
  bool write(page_id page, std::uint32_t c, std::uint32_t frontier) {
    return program(page, [&] { return host_slot(c, frontier); });
  }

  // Moves the live pages of a full block, then erases all dead blocks. False if they do not fit.
  bool collect(block_number block, move_cause cause) {
    const std::uint32_t c = table.channel_of_block(block);
    if (table.at(block).live > room_to_move(c, 0) || !move_all(block, cause)) {
      return false;
    }
    while (erase_oldest(c)) {
    }
    return true;
  }

  // Whether the block's pages can go to a more worn block: the open one for moved pages, or a free
  // one once that is full.
  bool has_more_worn_room(block_number block) {
    const std::uint32_t c = table.channel_of_block(block);
    const auto worn_more = [&](block_number to) {
      return to != no_block && to != block && table.at(to).erases > table.at(block).erases;
    };
    return worn_more(table.most_worn_free(c)) || worn_more(moved_frontier_.of(c)[0].block);
  }

  // Closes an open block that must not be filled.
  void close(block_number block) {
    const std::uint32_t c = table.channel_of_block(block);
    for (const std::span<slot> slots : {frontiers_.of(c), moved_frontier_.of(c)}) {
      for (slot& s : slots) {
        s.block = s.block == block ? no_block : s.block;
      }
    }
    table.close(block);
  }

  // Empties failing blocks, oldest first, while their pages fit; `collect_for_it` makes room.
  void empty_failing(std::uint32_t c, bool collect_for_it) {
    while (collect_for_it && free_blocks(c) == 0 && (erase_oldest(c) || collect_cheapest(c))) {
    }
    for (block_number b; (b = table.first(c, block_state::failing)) != no_block;) {
      while (table.at(b).live > room_to_move(c, 1)) {
        if (!erase_oldest(c) && !(collect_for_it && collect_cheapest(c))) {
          return;
        }
      }
      if (!move_all(b, move_cause::failure)) {
        return;
      }
      table.retire(b);
    }
  }

  bool erase_oldest(std::uint32_t c) {
    const block_number b = table.first(c, block_state::dead);
    if (b == no_block) {
      return false;
    }
    if (recording) {
      operations.erases.push_back(table.locate(b));
    }
    const bool failed = faults_.erase_fails(table.locate(b));
    table.end_erase(b, failed);
    ++counters.erases;
    counters.failed_erases += failed ? 1 : 0;
    return true;
  }

 private:
  static constexpr std::int32_t least_blocks_to_spread = 64;

  std::uint32_t free_blocks(std::uint32_t c) const { return table.count(c, block_state::free); }
  bool has_room(const slot& s) const {
    return s.block != no_block && table.at(s.block).state == block_state::open;
  }

  // Programs the page in slots of next_slot() until one succeeds. False if no slot is left.
  template <class NextSlot>
  bool program(page_id page, NextSlot&& next_slot) {
    while (slot* s = next_slot()) {
      const location at = table.locate(s->block, table.at(s->block).written);
      if (recording) {
        operations.programs.push_back(at);
      }
      const bool failed = faults_.program_fails(at);
      if (failed) {
        table.fail_program(s->block, now_s);
        ++counters.failed_programs;
      } else {
        numbers.set_physical(page, table.program(s->block, page, now_s));
      }
      if (!has_room(*s)) {
        s->block = no_block;
      }
      if (!failed) {
        return true;
      }
    }
    return false;
  }

  // The slot for the host's next page is in its own frontier. If the frontier can open no more
  // blocks: collect the cheapest block if at least half of it is dead; otherwise take over an open
  // block of another frontier; otherwise collect the cheapest block, however little it frees.
  slot* host_slot(std::uint32_t c, std::uint32_t frontier) {
    for (;;) {
      slot* empty = nullptr;
      for (std::uint32_t i = 0; i < frontiers_.stripe(); ++i) {
        slot& s = frontiers_.next(c, frontier);
        if (has_room(s)) {
          return &s;
        }
        if (empty == nullptr && may_open(c)) {
          open(c, s, frontiers_.stripe());
          return &s;
        }
        empty = &s;
      }
      const block_number victim = cheapest(c);
      const bool half_dead =
          victim != no_block && 2 * table.at(victim).live <= table.pages_per_block();
      if (!half_dead && take_over(c, *empty)) {
        return empty;
      }
      if (!collect_cheapest(c)) {
        return take_over(c, *empty) ? empty : nullptr;
      }
    }
  }

  // Whether the host may open a block, after the erases that the policy asks for now.
  bool may_open(std::uint32_t c) {
    const std::uint32_t wanted = std::max(policy_.erase_below_blocks, kept_ + 1);
    while (free_blocks(c) < wanted && (erase_oldest(c) || close_dead_slot(c))) {
    }
    const std::uint64_t spare = std::uint64_t{kept_} + moved_frontier_.stripe();
    const bool as_promised = numbers.live(c) + spare * table.pages_per_block() <=
                             std::uint64_t{table.usable_blocks(c)} * table.pages_per_block();
    return free_blocks(c) > (as_promised ? kept_ : 1);
  }

  // Opens a block on the slot's plane or the next with a free block, if possible on one that keeps
  // another for moved pages. Precondition: one is free.
  void open(std::uint32_t c, slot& s, std::uint32_t stride) {
    const std::uint32_t left = moved_frontier_.stripe() > 1 && free_blocks(c) > kept_ ? 1 : 0;
    std::uint32_t plane = s.plane;
    while (table.free_blocks(c, plane) <= left) {
      plane = (plane + 1) % table.planes();
    }
    s.block = table.open(c, plane);
    s.plane = (s.plane + stride) % table.planes();
  }

  // A slot of the host with room; nullptr if there is none.
  slot* any_room(std::uint32_t c) {
    const std::span<slot> slots = frontiers_.of(c);
    const auto at = std::ranges::find_if(slots, [&](const slot& s) { return has_room(s); });
    return at == slots.end() ? nullptr : &*at;
  }
  bool take_over(std::uint32_t c, slot& to) {
    slot* from = any_room(c);
    if (from != nullptr) {
      to.block = std::exchange(from->block, no_block);
    }
    return from != nullptr;
  }
  // Closes an open block in which every written page is dead. Returns whether there was one.
  bool close_dead_slot(std::uint32_t c) {
    for (slot& s : frontiers_.of(c)) {
      if (has_room(s) && table.at(s.block).live == 0 && table.at(s.block).written > 0) {
        close(s.block);
        return true;
      }
    }
    return false;
  }

  // The slot for a moved page of `plane`. In this order: the plane's open block for moved pages, a
  // new one on the plane, one of another plane, a new one there, or one of the host. A move that
  // levels wear goes to the most worn block, wherever that is.
  slot* slot_for_moved(std::uint32_t c, std::uint32_t plane, move_cause cause) {
    const std::span<slot> slots = moved_frontier_.of(c);
    slot& own = slots[cause == move_cause::wear ? 0 : plane % slots.size()];
    if (has_room(own)) {
      return &own;
    }
    if (cause == move_cause::wear && free_blocks(c) > 0) {
      own.block = table.most_worn_free(c);
      table.open(own.block);
      return &own;
    }
    const auto other = std::ranges::find_if(slots, [&](const slot& s) { return has_room(s); });
    const bool is_spread = slots.size() > 1;
    if (is_spread && table.free_blocks(c, plane) > 0 && free_blocks(c) > 1) {
      own.block = table.open(c, plane);
      return &own;
    }
    if (other != slots.end()) {
      return &*other;
    }
    if (free_blocks(c) == 0) {
      return any_room(c);
    }
    open(c, own, 1);
    return &own;
  }
  // Number of pages that can be moved while `kept` blocks stay free.
  std::uint64_t room_to_move(std::uint32_t c, std::uint32_t kept) {
    std::uint64_t in_blocks = 0;
    for (const slot& s : moved_frontier_.of(c)) {
      in_blocks += has_room(s) ? table.pages_per_block() - table.at(s.block).written : 0;
    }
    const std::uint32_t blocks = free_blocks(c) > kept ? free_blocks(c) - kept : 0;
    return in_blocks + std::uint64_t{blocks} * table.pages_per_block();
  }

  // The victim with the lowest cost among the full blocks with a dead page.
  block_number cheapest(std::uint32_t c) const {
    block_number best = no_block;
    double best_cost = 0;
    const std::uint32_t per_channel = table.blocks_per_channel();
    for (block_number b = c * per_channel; b < (c + 1) * per_channel; ++b) {
      const block_info& block = table.at(b);
      if (block.state != block_state::closed || block.live == block.written) {
        continue;
      }
      const double cost = policy_.victim_cost(block, now_s);
      if (best == no_block || cost < best_cost) {
        best = b;
        best_cost = cost;
      }
    }
    return best;
  }

  bool collect_cheapest(std::uint32_t c) {
    const block_number victim = cheapest(c);
    return victim != no_block && collect(victim, move_cause::space);
  }

  // Moves the live pages of a block to other blocks. Returns false if room ran out.
  bool move_all(block_number block, move_cause cause) {
    const std::uint32_t c = table.channel_of_block(block);
    for (std::uint32_t i = 0; i < table.pages_per_block() && table.at(block).live > 0; ++i) {
      const physical_page from{block * table.pages_per_block() + i};
      const page_id page = table.owner(from);
      if (page == no_page) {
        continue;
      }
      if (recording) {
        operations.reads.push_back(table.locate(from));
      }
      if (!program(page, [&] { return slot_for_moved(c, table.plane_of(block), cause); })) {
        return false;
      }
      pages.copy(from, numbers.physical(page));
      table.release(from);
      counters.count_move(cause);
    }
    return true;
  }

  Policy policy_;
  [[no_unique_address]] Faults faults_;
  write_frontiers frontiers_;
  write_frontiers moved_frontier_;  // moved_stripe() blocks per channel
  std::uint32_t kept_;              // free blocks of each channel
};

}  // namespace instinfer::flash
