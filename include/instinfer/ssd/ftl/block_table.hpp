#pragma once
// long because: every change of a block's state keeps the counts and lists of its channel.
// The table of a drive's erase blocks: state, content and wear of each block, and lists of dead and
// failing blocks.

#include <algorithm>
#include <cassert>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "instinfer/core/errors.hpp"
#include "instinfer/core/page_key.hpp"
#include "instinfer/core/raw_array.hpp"
#include "instinfer/ssd/spec/geometry.hpp"
#include "instinfer/ssd/spec/location.hpp"

namespace instinfer::flash {

// free -> open -> closed (full) -> dead (no live page left) -> erased: free. A failed program makes
// a block failing: its live pages stay readable, and it becomes bad when none is left. A failed
// erase makes a block bad.
enum class block_state : std::uint8_t { free, open, closed, dead, failing, bad };
inline constexpr int block_states = 6;

// Number of a block in the drive: (channel planes + plane) blocks + block. The FTL counts planes
// within their channel, in the order of placement: chip + chips (die + dies plane of the die).
using block_number = std::uint32_t;
inline constexpr block_number no_block = 0xFFFF'FFFFu;

// Number of a page in the drive: block pages + page.
enum class physical_page : std::uint32_t {};

struct block_info {
  std::uint32_t erases = 0;
  std::uint32_t written = 0;       // pages programmed since the last erase
  std::uint32_t live = 0;          // live pages among them
  std::uint32_t reads = 0;         // reads of its pages since the last erase
  std::uint32_t written_at_s = 0;  // time of its first program, by the caller's clock
  std::uint32_t row = no_block;    // row in the owners table; none while the block is empty
  block_number next = no_block;    // next in its channel's list of dead or failing blocks
  block_state state = block_state::free;
};

// Memory: 32 B per block, and 4 B per page of blocks in use (a drive stores these owners in the
// pages' spare bytes).
class block_table {
 public:
  // Throws bad_argument for an invalid geometry, or one with 2^32 - 1 pages or more.
  explicit block_table(const geometry& g) : geometry_{(validate(g), g)} {
    require(g.pages_total() < std::numeric_limits<std::uint32_t>::max(), [&] {
      return "flash blocks: a drive has at most 2^32 - 2 pages, got " +
             std::to_string(g.pages_total());
    });
    planes_ = as_unsigned(g.planes * g.dies_per_channel());
    pages_ = as_unsigned(g.pages);
    const auto blocks = static_cast<std::size_t>(g.blocks_total());
    blocks_.resize(blocks);
    free_in_plane_.assign(std::size_t{planes_} * as_unsigned(g.channels), as_unsigned(g.blocks));
    channels_.resize(as_unsigned(g.channels));
    for (channel_blocks& c : channels_) {
      c.count[index(block_state::free)] = blocks_per_channel();
    }
    owners_ = store::raw_array<page_id>(static_cast<std::size_t>(g.pages_total()));
    next_row_ = store::raw_array<std::uint32_t>(blocks);
  }

  const geometry& shape() const { return geometry_; }
  std::uint32_t channels() const { return static_cast<std::uint32_t>(channels_.size()); }
  std::uint32_t planes() const { return planes_; }
  std::uint32_t pages_per_block() const { return pages_; }
  std::uint32_t blocks_per_channel() const { return planes_ * as_unsigned(geometry_.blocks); }

  block_number block_of(physical_page page) const {
    return static_cast<std::uint32_t>(page) / pages_;
  }
  std::uint32_t channel_of_block(block_number block) const { return block / blocks_per_channel(); }
  // Number of the block's plane on its channel.
  std::uint32_t plane_of(block_number block) const {
    return block / as_unsigned(geometry_.blocks) % planes_;
  }
  // Precondition: inside(at, shape()).
  block_number block_at(const location& at) const {
    const std::int32_t plane = at.chip + geometry_.chips * (at.die + geometry_.dies * at.plane);
    return (as_unsigned(at.channel) * planes_ + as_unsigned(plane)) *
               as_unsigned(geometry_.blocks) +
           as_unsigned(at.block);
  }
  location locate(block_number block, std::uint32_t page = 0) const {
    const auto digit = [](std::uint32_t& rest, std::int32_t count) {
      const std::uint32_t d = rest % as_unsigned(count);
      rest /= as_unsigned(count);
      return static_cast<std::int32_t>(d);
    };
    location at{.page = static_cast<std::int32_t>(page)};
    at.block = digit(block, geometry_.blocks);
    at.chip = digit(block, geometry_.chips);
    at.die = digit(block, geometry_.dies);
    at.plane = digit(block, geometry_.planes);
    at.channel = static_cast<std::int32_t>(block);
    return at;
  }
  location locate(physical_page page) const {
    return locate(block_of(page), static_cast<std::uint32_t>(page) % pages_);
  }

  const block_info& at(block_number block) const { return blocks_[block]; }
  bool has(physical_page page) const { return block_of(page) < blocks_.size(); }
  std::uint32_t count(std::uint32_t channel, block_state state) const {
    return channels_[channel].count[index(state)];
  }
  // Blocks that can be written, now or after an erase.
  std::uint32_t usable_blocks(std::uint32_t channel) const {
    return blocks_per_channel() - count(channel, block_state::failing) -
           count(channel, block_state::bad);
  }
  std::uint32_t free_blocks(std::uint32_t channel, std::uint32_t plane) const {
    return free_in_plane_[std::size_t{channel} * planes_ + plane];
  }
  // First of the list of dead or failing blocks, oldest first; no_block if the list is empty.
  block_number first(std::uint32_t channel, block_state state) const {
    return channels_[channel].list(state).head;
  }

  // Opens the least worn free block of a plane. Precondition: the plane has a free block.
  block_number open(std::uint32_t channel, std::uint32_t plane) {
    assert(free_blocks(channel, plane) > 0);
    const block_number begin = (channel * planes_ + plane) * as_unsigned(geometry_.blocks);
    block_number best = no_block;
    for (block_number b = begin; b < begin + as_unsigned(geometry_.blocks); ++b) {
      if (blocks_[b].state == block_state::free &&
          (best == no_block || blocks_[b].erases < blocks_[best].erases)) {
        best = b;
      }
    }
    open(best);
    return best;
  }
  // Precondition: the block is free.
  void open(block_number block) {
    assert(blocks_[block].state == block_state::free);
    take_row(blocks_[block]);
    set_state(block, block_state::open);
  }

  // The most worn free block of a channel; no_block if none is free.
  block_number most_worn_free(std::uint32_t channel) const {
    block_number best = no_block;
    const block_number begin = channel * blocks_per_channel();
    for (block_number b = begin; b < begin + blocks_per_channel(); ++b) {
      if (blocks_[b].state == block_state::free &&
          (best == no_block || blocks_[b].erases > blocks_[best].erases)) {
        best = b;
      }
    }
    return best;
  }

  // Writes the next page of an open block. A full block becomes closed.
  physical_page program(block_number block, page_id owner, std::uint32_t now_s) {
    block_info& b = blocks_[block];
    const std::uint32_t page = next_page(b, now_s);
    ++b.live;
    owners_[std::size_t{b.row} * pages_ + page] = owner;
    if (b.written == pages_) {
      set_state(block, block_state::closed);
    }
    return physical_page{block * pages_ + page};
  }

  // Records that the program of the block's next page failed. No later page of it must be
  // programmed.
  void fail_program(block_number block, std::uint32_t now_s) {
    block_info& b = blocks_[block];
    owners_[std::size_t{b.row} * pages_ + next_page(b, now_s)] = no_page;
    set_state(block, block_state::failing);
    enlist(block, block_state::failing);
  }

  // Closes an open block that must not be filled.
  void close(block_number block) noexcept {
    set_state(block, block_state::closed);
    note_if_dead(block);
  }

  // The owner of a page; no_page if the page is not live.
  page_id owner(physical_page page) const {
    const block_info& b = blocks_[block_of(page)];
    const std::uint32_t at = static_cast<std::uint32_t>(page) % pages_;
    return at < b.written ? owners_[std::size_t{b.row} * pages_ + at] : no_page;
  }

  // Precondition: the page is live.
  void release(physical_page page) noexcept {
    const block_number block = block_of(page);
    block_info& b = blocks_[block];
    assert(b.live > 0 && owner(page) != no_page);
    owners_[std::size_t{b.row} * pages_ + static_cast<std::uint32_t>(page) % pages_] = no_page;
    --b.live;
    note_if_dead(block);
  }

  void count_read(physical_page page) noexcept {
    std::uint32_t& reads = blocks_[block_of(page)].reads;
    reads += reads < std::numeric_limits<std::uint32_t>::max() ? 1u : 0u;
  }

  // Removes the oldest dead block from its list. It becomes free, or bad if the erase failed.
  void end_erase(block_number block, bool failed) {
    assert(block == first(channel_of_block(block), block_state::dead));
    delist(block, block_state::dead);
    ++blocks_[block].erases;
    empty(block, failed ? block_state::bad : block_state::free);
  }

  // Removes the oldest failing block, which must have no live page, from its list; it becomes bad.
  void retire(block_number block) {
    assert(block == first(channel_of_block(block), block_state::failing) &&
           blocks_[block].live == 0);
    delist(block, block_state::failing);
    empty(block, block_state::bad);
  }

  // Marks a block that was bad when it left the factory. Precondition: it is free or already bad.
  void mark_bad(block_number block) {
    assert(blocks_[block].state == block_state::free || blocks_[block].state == block_state::bad);
    set_state(block, block_state::bad);
  }

 private:
  struct block_list {
    block_number head = no_block;
    block_number tail = no_block;
  };
  struct channel_blocks {
    std::uint32_t count[block_states] = {};
    block_list dead;
    block_list failing;

    const block_list& list(block_state s) const { return s == block_state::dead ? dead : failing; }
    block_list& list(block_state s) { return s == block_state::dead ? dead : failing; }
  };

  static constexpr std::size_t index(block_state s) { return static_cast<std::size_t>(s); }
  static constexpr std::uint32_t as_unsigned(std::int32_t n) {
    return static_cast<std::uint32_t>(n);
  }

  std::uint32_t next_page(block_info& b, std::uint32_t now_s) {
    assert(b.state == block_state::open && b.written < pages_);
    if (b.written == 0) {
      b.written_at_s = now_s;
    }
    return b.written++;
  }

  void set_state(block_number block, block_state to) noexcept {
    block_info& b = blocks_[block];
    channel_blocks& c = channels_[channel_of_block(block)];
    --c.count[index(b.state)];
    ++c.count[index(to)];
    std::uint32_t& free_here = free_in_plane_[block / as_unsigned(geometry_.blocks)];
    free_here -= b.state == block_state::free ? 1u : 0u;
    free_here += to == block_state::free ? 1u : 0u;
    b.state = to;
  }

  void note_if_dead(block_number block) noexcept {
    if (blocks_[block].live == 0 && blocks_[block].state == block_state::closed) {
      set_state(block, block_state::dead);
      enlist(block, block_state::dead);
    }
  }

  void enlist(block_number block, block_state s) noexcept {
    block_list& list = channels_[channel_of_block(block)].list(s);
    (list.head == no_block ? list.head : blocks_[list.tail].next) = block;
    list.tail = block;
    blocks_[block].next = no_block;
  }
  void delist(block_number block, block_state s) noexcept {
    channels_[channel_of_block(block)].list(s).head = std::exchange(blocks_[block].next, no_block);
  }

  // Rows of the owners table are assigned to blocks in use only, so the touched memory is
  // proportional to them.
  void take_row(block_info& b) {
    b.row = free_row_ != no_block ? std::exchange(free_row_, next_row_[free_row_]) : fresh_row_++;
  }
  void empty(block_number block, block_state to) {
    block_info& b = blocks_[block];
    next_row_[b.row] = std::exchange(free_row_, b.row);
    b.row = no_block;
    b.written = b.reads = 0;
    set_state(block, to);
  }

  geometry geometry_;
  std::uint32_t planes_ = 0;
  std::uint32_t pages_ = 0;
  std::vector<block_info> blocks_;            // [channels, planes, blocks]
  std::vector<std::uint32_t> free_in_plane_;  // [channels, planes]
  std::vector<channel_blocks> channels_;
  store::raw_array<page_id> owners_;          // [rows, pages]
  store::raw_array<std::uint32_t> next_row_;  // next free row
  std::uint32_t free_row_ = no_block;
  std::uint32_t fresh_row_ = 0;
};

}  // namespace instinfer::flash
