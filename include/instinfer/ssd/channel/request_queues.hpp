#pragma once
// The requests of a mixed stream on their way to the dies: by arrival, then by die and priority.

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "instinfer/core/errors.hpp"
#include "instinfer/ssd/channel/batch_rules.hpp"
#include "instinfer/ssd/channel/io_request.hpp"
#include "instinfer/ssd/spec/geometry.hpp"

namespace instinfer::flash {

// One channel at a time. A die's requests of one priority are served in the order of arrival. Those
// that share a row (as pairing says), an operation and a priority and lie on different planes may go
// as one command: the oldest waiting one takes with it the oldest waiting one of each other plane.
class request_queues {
 public:
  static constexpr std::int32_t nothing = -1;
  static constexpr std::int64_t never = std::numeric_limits<std::int64_t>::max();

  explicit request_queues(const geometry& g)
      : geometry_{g},
        first_of_channel_(static_cast<std::size_t>(g.channels)),
        dies_(static_cast<std::size_t>(g.dies_per_channel())) {}

  // Throws bad_argument for a request outside of the geometry, a priority that does not exist, an
  // arrival that is negative or before the one in front of it, or 2^30 requests or more. Keeps its
  // memory; views `requests` until the next call.
  void sort(std::span<const io_request> requests, pairing pair, std::int64_t ticks_per_ps) {
    check(requests);
    requests_ = requests;
    ticks_per_ps_ = ticks_per_ps;
    records_.assign(requests.size(), record{});
    std::ranges::fill(first_of_channel_, nothing);
    for (std::size_t i = requests.size(); i-- > 0;) {
      std::int32_t& first = first_of_channel_[static_cast<std::size_t>(requests[i].where.channel)];
      records_[i].next_of_channel = first;
      first = static_cast<std::int32_t>(i);
    }
    if (geometry_.planes > 1 && pair != pairing::none) {
      link_rows(pair);
    }
  }

  void begin_channel(std::int32_t channel) {
    coming_ = first_of_channel_[static_cast<std::size_t>(channel)];
    std::ranges::fill(dies_, die_queues{});
  }

  // Of the channel's next request to come, in ticks, or `never`.
  std::int64_t next_arrival() const {
    return coming_ == nothing ? never : of(coming_).arrival_ps * ticks_per_ps_;
  }

  // All that have come by now wait for their dies.
  void admit(std::int64_t now) {
    for (; next_arrival() <= now; coming_ = records_[at(coming_)].next_of_channel) {
      const io_request& r = of(coming_);
      die_queues& die = dies_[at(r.where.die * geometry_.chips + r.where.chip)];
      const std::size_t p = at(r.priority);
      const bool empty = (die.waiting >> p & 1) == 0;
      (empty ? die.head[p] : records_[at(die.tail[p])].next_of_die) = coming_;
      die.tail[p] = coming_;
      die.waiting |= 1u << p;
      records_[at(coming_)].waits = true;
    }
  }

  // A die's oldest request of its highest priority, or `nothing`.
  std::int32_t head(std::int32_t die) const {
    const die_queues& queues = dies_[at(die)];
    return queues.waiting == 0 ? nothing : queues.head[at(std::countr_zero(queues.waiting))];
  }

  // Removes the die's head and those that go with it. members: at least one entry a plane; returns
  // how many are filled, in the order of arrival. Precondition: head(die) != nothing.
  std::int32_t take(std::int32_t die, std::span<std::int32_t> members) {
    die_queues& queues = dies_[at(die)];
    const std::size_t p = at(std::countr_zero(queues.waiting));
    const std::int32_t oldest = queues.head[p];
    std::uint64_t planes_used = 0;
    std::int32_t count = 0;
    for (std::int32_t i = oldest; has_come(i) && count < geometry_.planes;
         i = records_[at(i)].next_of_row) {
      const std::uint64_t plane = std::uint64_t{1} << of(i).where.plane;
      if (records_[at(i)].waits && (planes_used & plane) == 0) {
        planes_used |= plane;
        records_[at(i)].waits = false;
        members[at(count++)] = i;
      }
    }
    // Those taken from the middle of the queue are skipped when they come to its head.
    std::int32_t& front = queues.head[p];
    while (front != nothing && !records_[at(front)].waits) {
      front = front == queues.tail[p] ? nothing : records_[at(front)].next_of_die;
    }
    if (front == nothing) {
      queues.waiting &= ~(1u << p);
    }
    return count;
  }

  const io_request& of(std::int32_t i) const { return requests_[at(i)]; }

 private:
  struct record {
    std::int32_t next_of_channel = nothing;
    std::int32_t next_of_die = nothing;
    std::int32_t next_of_row = nothing;
    bool waits = false;
  };
  struct die_queues {
    std::uint32_t waiting = 0;  // a bit for each priority with requests
    std::array<std::int32_t, max_priorities> head{};
    std::array<std::int32_t, max_priorities> tail{};
  };
  static constexpr std::size_t at(std::int32_t i) { return static_cast<std::size_t>(i); }
  bool has_come(std::int32_t i) const {
    return i != nothing && (coming_ == nothing || i < coming_);
  }

  void check(std::span<const io_request> requests) const {
    require(requests.size() < std::size_t{1} << 30, [&] {
      return "flash requests: there must be fewer than 2^30, got " +
             std::to_string(requests.size());
    });
    std::int64_t before = 0;
    for (std::size_t i = 0; i < requests.size(); ++i) {
      const io_request& r = requests[i];
      const auto complain = [&](const std::string& what) {
        return "flash requests: request " + std::to_string(i) + " " + what;
      };
      require(inside(r.where, geometry_), [&] {
        return complain("lies outside of " + to_string(geometry_) + ": " + to_string(r.where));
      });
      require(r.priority >= 0 && r.priority < max_priorities, [&] {
        return complain("has priority " + std::to_string(r.priority) + ", which must lie in [0, " +
                        std::to_string(max_priorities) + ")");
      });
      require(r.codewords >= 0 && r.codewords <= geometry_.codewords_per_page(), [&] {
        return complain("has " + std::to_string(r.codewords) + " codewords, a page has " +
                        std::to_string(geometry_.codewords_per_page()));
      });
      require(r.arrival_ps >= before, [&] {
        return complain("arrives at " + std::to_string(r.arrival_ps) + " ps, before " +
                        (i == 0 ? "time 0" : "the one in front of it") +
                        "; sort requests by arrival");
      });
      before = r.arrival_ps;
    }
  }

  // Chains the requests of equal row, operation, priority and die in the order of arrival.
  void link_rows(pairing pair) {
    rows_.clear();
    for (std::size_t i = 0; i < requests_.size(); ++i) {
      const io_request& r = requests_[i];
      const location& l = r.where;
      const std::int64_t die =
          (std::int64_t{l.channel} * geometry_.dies + l.die) * geometry_.chips + l.chip;
      const std::int64_t row =
          std::int64_t{pair == pairing::same_page ? 0 : l.block} * geometry_.pages +
          (r.what == array_operation::erase ? 0 : l.page);
      rows_.push_back({die * max_priorities + r.priority, row * 3 + static_cast<int>(r.what),
                       static_cast<std::int32_t>(i)});
    }
    std::ranges::sort(rows_);
    for (std::size_t k = 1; k < rows_.size(); ++k) {
      if (rows_[k - 1].queue == rows_[k].queue && rows_[k - 1].row == rows_[k].row) {
        records_[at(rows_[k - 1].index)].next_of_row = rows_[k].index;
      }
    }
  }

  struct row_member {
    std::int64_t queue;
    std::int64_t row;
    std::int32_t index;
    friend constexpr auto operator<=>(const row_member&, const row_member&) = default;
  };

  geometry geometry_;
  std::span<const io_request> requests_;
  std::int64_t ticks_per_ps_ = 1;
  std::vector<record> records_;
  std::vector<row_member> rows_;
  std::vector<std::int32_t> first_of_channel_;
  std::int32_t coming_ = nothing;
  std::vector<die_queues> dies_;  // of the channel
};

}  // namespace instinfer::flash
