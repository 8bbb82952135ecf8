#pragma once
// The pages that wait for their dies, paired into commands: the planes of a die work on the pages
// of one command together.

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "instinfer/core/errors.hpp"
#include "instinfer/ssd/channel/io_request.hpp"
#include "instinfer/ssd/channel/row_table.hpp"
#include "instinfer/ssd/spec/array_operation.hpp"
#include "instinfer/ssd/spec/drive_rules.hpp"
#include "instinfer/ssd/spec/geometry.hpp"
#include "instinfer/ssd/spec/location.hpp"

namespace instinfer::flash {

// The rule: a die takes its oldest waiting page of highest priority. It takes with it, from each
// other plane, the oldest waiting page of the same operation, priority and row (block and page, as
// pairing says).
//
// So a page that comes joins the oldest waiting command of its row that lacks its plane, or else
// opens a command. This is O(1) a page.
//
// Mixed: pages differ in operation and priority. Otherwise all have one operation, and priority 0.
template <bool Mixed = false>
class command_queues {
 public:
  static constexpr std::int32_t nothing = -1;

  command_queues(const geometry& g, pairing pair)
      : geometry_{g},
        pair_{pair},
        planes_{static_cast<std::size_t>(g.planes)},
        waiting_(Mixed ? static_cast<std::size_t>(g.dies_total()) : 0),
        head_(static_cast<std::size_t>(g.dies_total()) * priorities),
        tail_(head_.size()),
        first_die_(static_cast<std::size_t>(g.channels)) {}

  // Makes room for `pages` pages; each is added when it comes. what: the operation of all, unless
  // Mixed. Keeps its memory. Throws bad_argument for 2^30 pages or more.
  void begin(std::size_t pages, array_operation what = array_operation::read) {
    require(pages < max_pages, [&] {
      return "flash timeline: a batch must have fewer than 2^30 pages, got " +
             std::to_string(pages);
    });
    what_ = what;
    reset(pages);
  }

  // Begins, and adds a batch that comes at once. Throws bad_argument also for a page outside of the
  // geometry.
  void sort(std::span<const location> pages, array_operation what, arrival arrive)
    requires(!Mixed)
  {
    begin(pages.size(), what);
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
      std::fill(first_die_.begin(), first_die_.end(), 0);
    }
  }

  // The die at which the round robin of a channel starts, in a batch.
  std::int32_t first_die(std::size_t channel) const { return std::max(first_die_[channel], 0); }

  // Page `i` waits from now on; alone: in a command of its own. Precondition: `i` is less than the
  // number of pages of begin() and was not added before, `at` lies inside the geometry.
  void add(std::size_t i, const location& at, bool alone = false)
    requires(!Mixed)
  {
    add(i, at, what_, 0, alone);
  }
  void add(std::size_t i, const location& at, array_operation what, std::int32_t priority)
    requires(Mixed)
  {
    add(i, at, what, priority, false);
  }

  std::int32_t die_in_channel(const location& at) const {
    return at.die * geometry_.chips + at.chip;
  }

  // The oldest command of highest priority of a die (numbered over the drive), or `nothing`.
  std::int32_t head(std::size_t die) const {
    if constexpr (Mixed) {
      return waiting_[die] == 0 ? nothing : head_[first_queue(die)];
    }
    return head_[die];
  }
  // Removes the head, if there is one.
  void pop(std::size_t die) {
    const std::size_t queue = first_queue(die);
    head_[queue] = std::exchange(record(head_[queue]).next_on_die, taken);
    if constexpr (Mixed) {
      if (head_[queue] == nothing) {
        waiting_[die] &= waiting_[die] - 1;  // its lowest bit
      }
    }
  }

  array_operation what(std::int32_t command) const {
    if constexpr (Mixed) {
      return kinds_[static_cast<std::size_t>(command)].what;
    }
    return what_;
  }
  std::int32_t priority(std::int32_t command) const {
    if constexpr (Mixed) {
      return kinds_[static_cast<std::size_t>(command)].priority;
    }
    return 0;
  }
  std::int32_t page_count(std::int32_t command) const {
    return commands_[static_cast<std::size_t>(command)].pages;
  }
  // Number of the k-th page of a command, in the order in which they came.
  std::size_t page(std::int32_t command, std::int32_t k) const {
    return static_cast<std::size_t>(
        members_[static_cast<std::size_t>(command) * planes_ + static_cast<std::size_t>(k)]);
  }

 private:
  static constexpr std::size_t priorities = Mixed ? max_priorities : 1;
  static constexpr std::size_t max_pages = std::size_t{1} << 30;
  static constexpr std::int32_t taken = -2;
  struct command_record {
    std::int32_t next_on_die;  // of this priority; `taken`: it has left its queue
    std::int32_t next_of_row;
    std::int32_t pages;
  };
  struct command_kind {
    array_operation what;
    std::int32_t priority;
  };

  command_record& record(std::int32_t command) {
    return commands_[static_cast<std::size_t>(command)];
  }
  bool is_taken(std::int32_t command) { return record(command).next_on_die == taken; }

  // The queue of the highest priority with commands.
  std::size_t first_queue(std::size_t die) const {
    if constexpr (Mixed) {
      return die * priorities + static_cast<std::size_t>(std::countr_zero(waiting_[die]));
    }
    return die;
  }

  void reset(std::size_t pages) {
    commands_.clear();
    commands_.reserve(pages);
    kinds_.clear();
    kinds_.reserve(Mixed ? pages : 0);
    members_.resize(std::max(members_.size(), pages * planes_));
    std::fill(waiting_.begin(), waiting_.end(), 0u);
    std::fill(head_.begin(), head_.end(), nothing);
    std::fill(first_die_.begin(), first_die_.end(), nothing);
    if (planes_ > 1 && pair_ != pairing::none) {
      rows_.begin(pages);
      last_on_plane_.clear();
      last_on_plane_.reserve(pages * planes_);
    }
  }

  void add(std::size_t i, const location& at, array_operation what, std::int32_t priority,
           bool alone) {
    const std::size_t die =
        (static_cast<std::size_t>(at.channel) * static_cast<std::size_t>(geometry_.dies) +
         static_cast<std::size_t>(at.die)) *
            static_cast<std::size_t>(geometry_.chips) +
        static_cast<std::size_t>(at.chip);
    const std::size_t queue = die * priorities + static_cast<std::size_t>(priority);
    if constexpr (Mixed) {
      waiting_[die] |= 1u << priority;
    }
    if (planes_ == 1 || pair_ == pairing::none || alone) {
      open_command(queue, i, what, priority);
    } else {
      join_command(queue, i, at, what, priority);
    }
  }

  // Distinct for each queue, operation and row of a drive of less than 2^59 pages.
  std::uint64_t row_key(std::size_t queue, const location& at, array_operation what) const {
    // Independent planes read any rows together. Programs and erases stay in their block row.
    const bool any = pair_ == pairing::any && what == array_operation::read;
    const std::int32_t block = any || pair_ == pairing::same_page ? 0 : at.block;
    const std::int32_t page = any || what == array_operation::erase ? 0 : at.page;
    const std::uint64_t rows = Mixed ? 3 * queue + static_cast<std::size_t>(what) : queue;
    return rows * static_cast<std::uint64_t>(geometry_.pages_per_plane()) +
           static_cast<std::uint64_t>(std::int64_t{block} * geometry_.pages + page);
  }

  std::int32_t open_command(std::size_t queue, std::size_t page, array_operation what,
                            std::int32_t priority) {
    const auto command = static_cast<std::int32_t>(commands_.size());
    commands_.push_back({.next_on_die = nothing, .next_of_row = nothing, .pages = 1});
    if constexpr (Mixed) {
      kinds_.push_back({what, priority});
    }
    members_[static_cast<std::size_t>(command) * planes_] = static_cast<std::int32_t>(page);
    if (head_[queue] == nothing) {
      head_[queue] = command;
    } else {
      record(tail_[queue]).next_on_die = command;
    }
    tail_[queue] = command;
    return command;
  }

  void join_command(std::size_t queue, std::size_t page, const location& at, array_operation what,
                    std::int32_t priority) {
    const std::size_t row = rows_.find(row_key(queue, at, what));
    if (last_on_plane_.size() < rows_.size() * planes_) {
      last_on_plane_.resize(rows_.size() * planes_, nothing);
    }
    std::int32_t& first = rows_.first_command(row);
    while (first != nothing && is_taken(first)) {
      first = record(first).next_of_row;
    }
    std::int32_t& last = last_on_plane_[row * planes_ + static_cast<std::size_t>(at.plane)];
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
    const std::int32_t opened = open_command(queue, page, what, priority);
    if (last == nothing) {
      first = opened;
    } else {
      record(last).next_of_row = opened;  // `last` is the row's newest command
    }
    last = opened;
  }

  geometry geometry_;
  pairing pair_;
  std::size_t planes_;
  array_operation what_ = array_operation::read;
  std::vector<command_record> commands_;
  std::vector<command_kind> kinds_;      // [commands], if Mixed
  std::vector<std::int32_t> members_;    // [commands, planes] pages, the first `pages` of each row
  std::vector<std::uint32_t> waiting_;   // [dies] a bit for each priority with commands, if Mixed
  std::vector<std::int32_t> head_;       // [dies of the drive, priorities] oldest command
  std::vector<std::int32_t> tail_;       // [dies of the drive, priorities] newest, if head_ is one
  std::vector<std::int32_t> first_die_;  // [channels]
  row_table rows_;
  // [rows, planes] newest command with a page on the plane
  std::vector<std::int32_t> last_on_plane_;
};

}  // namespace instinfer::flash
