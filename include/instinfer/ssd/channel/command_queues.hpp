#pragma once
// Sorts a batch of pages into commands (pages that the planes of one die work on together) and one
// queue per die.

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "instinfer/core/errors.hpp"
#include "instinfer/ssd/channel/batch_rules.hpp"
#include "instinfer/ssd/spec/array_operation.hpp"
#include "instinfer/ssd/spec/geometry.hpp"
#include "instinfer/ssd/spec/location.hpp"

namespace instinfer::flash {

// The rule: whenever a die takes a command, it takes its oldest waiting page together with the
// oldest waiting page of each other plane whose row (block and page) is equal. As all pages wait
// from the start, the m-th command of a row takes the m-th page of the row from each plane that has
// one: so the commands can be formed in one pass, O(1) a page, before the replay.
class command_queues {
 public:
  static constexpr std::int32_t nothing = -1;

  explicit command_queues(const geometry& g)
      : geometry_{g},
        planes_{static_cast<std::size_t>(g.planes)},
        head_(static_cast<std::size_t>(g.dies_total())),
        tail_(static_cast<std::size_t>(g.dies_total())),
        first_die_(static_cast<std::size_t>(g.channels)) {}

  // Throws bad_argument for a page outside of the geometry, or 2^30 pages or more. Keeps its memory
  // between batches.
  void sort(std::span<const location> pages, array_operation what, pairing pair, arrival arrive) {
    begin(pages.size(), what, pair);
    for (std::size_t i = 0; i < pages.size(); ++i) {
      const location& at = pages[i];
      require(inside(at, geometry_), [&] {
        return "flash timeline: page " + std::to_string(i) + " of the batch (" + to_string(at) +
               ") lies outside of " + to_string(geometry_);
      });
      const auto channel = static_cast<std::size_t>(at.channel);
      const bool first = first_die_[channel] == nothing;
      if (first) {
        first_die_[channel] = die_in_channel(at);
      }
      add(i, at, arrive == arrival::one_by_one && first);
    }
    if (arrive == arrival::together) {
      std::ranges::fill(first_die_, 0);
    }
  }

  // For pages that come over time: makes room for `pages` of them; then each is added when it comes.
  void begin(std::size_t pages, array_operation what, pairing pair) {
    require(pages < max_pages, [&] {
      return "flash timeline: a batch must have fewer than 2^30 pages, got " +
             std::to_string(pages);
    });
    what_ = what;
    pair_ = pair;
    reset(pages);
  }

  // Page `i` waits from now on. It joins the oldest command of its row that still waits and lacks its
  // plane, else it is a new command: the rule above, for it is what the die would take. Precondition:
  // i is below the number of pages begun with and was not added, `at` is inside the geometry.
  void add(std::size_t i, const location& at, bool alone = false) {
    const std::size_t die =
        (static_cast<std::size_t>(at.channel) * static_cast<std::size_t>(geometry_.dies) +
         static_cast<std::size_t>(at.die)) *
            static_cast<std::size_t>(geometry_.chips) +
        static_cast<std::size_t>(at.chip);
    if (planes_ == 1 || pair_ == pairing::none || alone) {
      open_command(die, i);
    } else {
      join_command(die, row_of(at), at.plane, i);
    }
  }

  std::int32_t die_in_channel(const location& at) const {
    return at.die * geometry_.chips + at.chip;
  }

  // The die at which a channel's first turn starts; `nothing` if the channel has no pages and they
  // arrive one by one.
  std::int32_t first_die(std::size_t channel) const { return first_die_[channel]; }

  // The queue of a die (numbered over the drive): its oldest command or `nothing`; pop removes it.
  std::int32_t front(std::size_t die) const { return head_[die]; }
  void pop(std::size_t die) {
    head_[die] = std::exchange(commands_[static_cast<std::size_t>(head_[die])].next_on_die, taken);
  }

  std::int32_t page_count(std::int32_t command) const {
    return commands_[static_cast<std::size_t>(command)].pages;
  }

  // Index in the batch of a command's k-th page, in batch order.
  std::size_t page(std::int32_t command, std::int32_t k) const {
    return static_cast<std::size_t>(
        members_[static_cast<std::size_t>(command) * planes_ + static_cast<std::size_t>(k)]);
  }

 private:
  static constexpr std::int32_t taken = -2;
  struct command_record {
    std::int32_t next_on_die;  // `taken`: the command has left its queue
    std::int32_t next_of_row;
    std::int32_t pages;
  };
  static constexpr std::size_t max_pages = std::size_t{1} << 30;

  command_record& record(std::int32_t command) {
    return commands_[static_cast<std::size_t>(command)];
  }
  bool is_taken(std::int32_t command) { return record(command).next_on_die == taken; }

  void reset(std::size_t pages) {
    commands_.clear();
    commands_.reserve(pages);
    members_.resize(std::max(members_.size(), pages * planes_));
    std::ranges::fill(head_, nothing);
    std::ranges::fill(first_die_, nothing);
    if (planes_ > 1 && pair_ != pairing::none) {
      const std::size_t slots = std::bit_ceil(std::max<std::size_t>(2 * pages, 2));
      table_.assign(slots, nothing);
      table_shift_ = 64 - std::countr_zero(slots);
      row_keys_.clear();
      row_first_.clear();
      last_on_plane_.clear();
      row_keys_.reserve(pages);
      row_first_.reserve(pages);
      last_on_plane_.reserve(pages * planes_);
    }
  }

  std::int64_t row_of(const location& at) const {
    const std::int32_t block = pair_ == pairing::same_page ? 0 : at.block;
    const std::int32_t page = what_ == array_operation::erase ? 0 : at.page;
    return std::int64_t{block} * geometry_.pages + page;
  }

  std::int32_t open_command(std::size_t die, std::size_t page) {
    const auto command = static_cast<std::int32_t>(commands_.size());
    commands_.push_back({.next_on_die = nothing, .next_of_row = nothing, .pages = 1});
    members_[static_cast<std::size_t>(command) * planes_] = static_cast<std::int32_t>(page);
    if (head_[die] == nothing) {
      head_[die] = command;
    } else {
      commands_[static_cast<std::size_t>(tail_[die])].next_on_die = command;
    }
    tail_[die] = command;
    return command;
  }

  void join_command(std::size_t die, std::int64_t row_in_plane, std::int32_t plane,
                    std::size_t page) {
    const std::size_t row =
        find_row(static_cast<std::int64_t>(die) * geometry_.pages_per_plane() + row_in_plane);
    std::int32_t& first = row_first_[row];
    while (first != nothing && is_taken(first)) {
      first = record(first).next_of_row;
    }
    std::int32_t& last = last_on_plane_[row * planes_ + static_cast<std::size_t>(plane)];
    if (last != nothing && is_taken(last)) {
      last = nothing;
    }
    const std::int32_t candidate = last == nothing ? first : record(last).next_of_row;
    if (candidate != nothing) {
      command_record& command = record(candidate);
      members_[static_cast<std::size_t>(candidate) * planes_ +
               static_cast<std::size_t>(command.pages)] = static_cast<std::int32_t>(page);
      ++command.pages;
      last = candidate;
      return;
    }
    const std::int32_t opened = open_command(die, page);
    if (last == nothing) {
      first = opened;
    } else {
      record(last).next_of_row = opened;  // `last` is the row's newest command
    }
    last = opened;
  }

  // Number of the row in this batch. Open addressing, at most half full.
  std::size_t find_row(std::int64_t key) {
    constexpr std::uint64_t golden_ratio =
        0x9E37'79B9'7F4A'7C15u;  // 2^64 / phi: multiplicative hashing
    std::size_t slot =
        static_cast<std::size_t>((static_cast<std::uint64_t>(key) * golden_ratio) >> table_shift_);
    while (table_[slot] != nothing) {
      const auto row = static_cast<std::size_t>(table_[slot]);
      if (row_keys_[row] == key) {
        return row;
      }
      slot = slot + 1 < table_.size() ? slot + 1 : 0;
    }
    const std::size_t row = row_keys_.size();
    table_[slot] = static_cast<std::int32_t>(row);
    row_keys_.push_back(key);
    row_first_.push_back(nothing);
    last_on_plane_.resize(last_on_plane_.size() + planes_, nothing);
    return row;
  }

  geometry geometry_;
  std::size_t planes_;
  array_operation what_ = array_operation::read;
  pairing pair_ = pairing::none;
  std::vector<command_record> commands_;
  std::vector<std::int32_t>
      members_;  // [commands, planes] indices of pages, the first `pages` of each row in use
  std::vector<std::int32_t> head_;       // [dies of the drive] oldest command
  std::vector<std::int32_t> tail_;       // [dies of the drive] newest command, if head_ is one
  std::vector<std::int32_t> first_die_;  // [channels]
  std::vector<std::int32_t> table_;      // hash of row key -> row
  int table_shift_ = 63;
  std::vector<std::int64_t> row_keys_;   // [rows]
  std::vector<std::int32_t> row_first_;  // [rows] first command that may still wait
  std::vector<std::int32_t>
      last_on_plane_;  // [rows, planes] newest command with a page on the plane
};

}  // namespace instinfer::flash
