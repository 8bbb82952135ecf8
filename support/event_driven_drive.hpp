#pragma once
// The oracle for ssd/channel/timeline.hpp: an event-driven drive that searches its queues
// literally. Slow on purpose.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <queue>
#include <span>
#include <vector>

#include "instinfer/ssd/spec/array_operation.hpp"
#include "instinfer/ssd/spec/drive_rules.hpp"
#include "instinfer/ssd/spec/geometry.hpp"
#include "instinfer/ssd/spec/location.hpp"
#include "instinfer/ssd/spec/timing.hpp"

namespace oracle {

using instinfer::flash::array_operation;
using instinfer::flash::arrival;
using instinfer::flash::geometry;
using instinfer::flash::location;
using instinfer::flash::pairing;
using instinfer::flash::timing;

struct rules {
  array_operation what = array_operation::read;
  bool data_first = true;
  pairing pair = pairing::same_block_and_page;
  arrival arrive = arrival::together;
  bool cache_read = false;
  instinfer::flash::read_retry retry = {};
};

struct outcome {
  std::int64_t makespan = 0;
  std::vector<std::int64_t> finish;  // [pages]
  std::int64_t commands = 0;
};

class event_driven_drive {
 public:
  event_driven_drive(const geometry& g, const timing& t, const rules& r) : g_{g}, t_{t}, r_{r} {
    const auto scale = instinfer::flash::ticks_of(t, g);
    ticks_per_ps_ = scale.ticks_per_ps;
    transfer_ = scale.page_transfer_ticks;
    channels_.resize(static_cast<std::size_t>(g.channels));
    for (channel_state& channel : channels_) {
      channel.dies.resize(static_cast<std::size_t>(g.chips * g.dies));
    }
  }

  // codewords: empty, or of each page so many cross the bus, 0 for all.
  outcome run(std::span<const location> pages, std::span<const std::int32_t> codewords = {}) {
    pages_ = pages;
    codewords_ = codewords;
    result_.finish.assign(pages.size(), -1);
    for (std::size_t i = 0; i < pages.size(); ++i) {
      const location& at = pages[i];
      channel_state& channel = channels_[static_cast<std::size_t>(at.channel)];
      channel.dies[static_cast<std::size_t>(at.die * g_.chips + at.chip)].waiting.push_back(i);
      if (r_.arrive == arrival::one_by_one) {
        grant_bus(static_cast<std::size_t>(at.channel));
      }
    }
    grant_every_bus();
    while (!events_.empty()) {
      now_ = events_.top().time;
      while (!events_.empty() &&
             events_.top().time == now_) {  // all that happens now, before any bus is granted
        const event e = events_.top();
        events_.pop();
        happen(e);
      }
      grant_every_bus();
    }
    return result_;
  }

 private:
  struct die_state {
    std::deque<std::size_t> waiting;  // pages, oldest first
    std::vector<std::size_t> taken;   // pages of the command in the array or its register
    std::int64_t issue = 0;           // its number
    bool busy = false;                // takes no command
    bool array_full = false;          // cache read: the array register waits for the cache register
    bool cache_full = false;
  };
  struct data_out {
    std::size_t die;
    std::size_t page;
    bool last;
    std::int64_t since;  // when it became ready
    std::int64_t issue;
  };
  struct channel_state {
    std::vector<die_state> dies;  // [dies, chips]
    std::deque<data_out> ready;   // by time of getting ready, then by issue
    bool bus_busy = false;
    std::size_t next_die = 0;  // at which the round robin goes on
  };
  enum class kind { bus_free, array_done, moved, data_out_done, decoded };
  struct event {
    std::int64_t time;
    std::int64_t order;  // of scheduling, breaks ties
    kind what;
    std::size_t channel;
    std::size_t die = 0;
    std::size_t page = 0;
    bool last = false;
    bool operator>(const event& other) const {
      return time != other.time ? time > other.time : order > other.order;
    }
  };

  void at(std::int64_t time, event e) {
    e.time = time;
    e.order = scheduled_++;
    events_.push(e);
  }

  void done(std::size_t page) {
    result_.finish[page] = now_;
    result_.makespan = now_ > result_.makespan ? now_ : result_.makespan;
  }

  void happen(const event& e) {
    channel_state& channel = channels_[e.channel];
    die_state& die = channel.dies[e.die];
    if (e.what == kind::bus_free) {
      channel.bus_busy = false;
    } else if (e.what == kind::data_out_done) {
      channel.bus_busy = false;
      at(now_ + t_.decode_ps * ticks_per_ps_, {0, 0, kind::decoded, e.channel, e.die, e.page});
      if (e.last && r_.cache_read) {
        die.cache_full = false;
        move(e.channel, e.die);
      } else if (e.last) {
        die.busy = false;
      }
    } else if (e.what == kind::decoded) {
      done(e.page);
    } else if (e.what == kind::array_done && r_.what == array_operation::read && r_.cache_read) {
      die.array_full = true;
      move(e.channel, e.die);
    } else if (r_.what == array_operation::read) {
      offer(channel, e.die);
      die.busy = !r_.cache_read;
    } else {
      for (const std::size_t page : die.taken) {
        done(page);
      }
      die.busy = false;
    }
  }

  // From the array register to the cache register, if it may.
  void move(std::size_t c, std::size_t d) {
    die_state& die = channels_[c].dies[d];
    if (die.array_full && !die.cache_full) {
      die.array_full = false;
      die.cache_full = true;
      at(now_ + t_.cache_move_ps * ticks_per_ps_, {0, 0, kind::moved, c, d});
    }
  }

  void offer(channel_state& channel, std::size_t d) {
    const die_state& die = channel.dies[d];
    for (std::size_t k = 0; k < die.taken.size(); ++k) {
      channel.ready.push_back({d, die.taken[k], k + 1 == die.taken.size(), now_, die.issue});
    }
    std::stable_sort(channel.ready.begin(), channel.ready.end(),
                     [](const data_out& a, const data_out& b) {
                       return a.since != b.since ? a.since < b.since : a.issue < b.issue;
                     });
  }

  void grant_every_bus() {
    for (std::size_t c = 0; c < channels_.size(); ++c) {
      grant_bus(c);
    }
  }

  void grant_bus(std::size_t c) {
    channel_state& channel = channels_[c];
    if (channel.bus_busy) {
      return;
    }
    if (r_.data_first) {
      send_data(c) || issue_command(c);
    } else {
      issue_command(c) || send_data(c);
    }
  }

  bool send_data(std::size_t c) {
    channel_state& channel = channels_[c];
    if (channel.ready.empty()) {
      return false;
    }
    const data_out next = channel.ready.front();
    channel.ready.pop_front();
    channel.bus_busy = true;
    const std::int64_t all = g_.page_bytes / g_.codeword_bytes;
    const std::int64_t part =
        codewords_.empty() || codewords_[next.page] == 0 ? all : codewords_[next.page];
    at(now_ + transfer_ * part / all,
       {0, 0, kind::data_out_done, c, next.die, next.page, next.last});
    return true;
  }

  bool issue_command(std::size_t c) {
    channel_state& channel = channels_[c];
    for (std::size_t step = 0; step < channel.dies.size(); ++step) {
      const std::size_t d = (channel.next_die + step) % channel.dies.size();
      if (channel.dies[d].busy || channel.dies[d].waiting.empty()) {
        continue;
      }
      channel.next_die = d + 1;
      take_pages(channel.dies[d]);
      channel.dies[d].busy = true;
      channel.bus_busy = true;
      channel.dies[d].issue = result_.commands++;
      const auto planes = static_cast<std::int32_t>(channel.dies[d].taken.size());
      const std::int64_t bus = bus_ticks(planes);
      at(now_ + bus, {0, 0, kind::bus_free, c});
      at(now_ + bus + array_ticks(channel.dies[d]), {0, 0, kind::array_done, c, d});
      return true;
    }
    return false;
  }

  // The oldest page, and the oldest one of each other plane that may go with it.
  void take_pages(die_state& die) {
    const location& oldest = pages_[die.waiting.front()];
    std::vector<bool> plane_used(static_cast<std::size_t>(g_.planes), false);
    std::deque<std::size_t> left;
    die.taken.clear();
    for (const std::size_t i : die.waiting) {
      const location& other = pages_[i];
      const auto plane = static_cast<std::size_t>(other.plane);
      const bool goes = die.taken.empty() || (!plane_used[plane] && pairs(oldest, other));
      if (goes) {
        plane_used[plane] = true;
        die.taken.push_back(i);
      } else {
        left.push_back(i);
      }
    }
    die.waiting = left;
  }

  bool pairs(const location& a, const location& b) const {
    const bool page = r_.what == array_operation::erase || a.page == b.page;
    const bool reads = r_.what == array_operation::read;
    switch (r_.pair) {
      case pairing::none:
        return false;
      case pairing::same_page:
        return page;
      case pairing::same_block_and_page:
        return page && a.block == b.block;
      case pairing::any:
        return reads || (page && a.block == b.block);
    }
    return false;
  }

  std::int64_t bus_ticks(std::int32_t p) const {
    switch (r_.what) {
      case array_operation::read:
        return (t_.read_command_ps + p * t_.read_address_ps + (p - 1) * t_.read_next_plane_ps) *
               ticks_per_ps_;
      case array_operation::program:
        return (t_.program_command_ps + (p - 1) * t_.program_next_plane_ps) * ticks_per_ps_ +
               p * transfer_;
      case array_operation::erase:
        return (t_.erase_command_ps + (p - 1) * t_.erase_next_plane_ps) * ticks_per_ps_;
    }
    return 0;
  }

  std::int64_t array_ticks(const die_state& die) const {
    switch (r_.what) {
      case array_operation::read: {
        std::int64_t slowest = 0;
        for (const std::size_t page : die.taken) {
          slowest = std::max(slowest, (1 + r_.retry.draw(pages_[page])) *
                                          (tr_ps(pages_[page].page) + t_.read_turnaround_ps));
        }
        return slowest * ticks_per_ps_;
      }
      case array_operation::program: {
        std::int64_t slowest = 0;
        for (const std::size_t page : die.taken) {
          slowest = std::max(slowest, tprog_ps(pages_[page].page));
        }
        return slowest * ticks_per_ps_;
      }
      case array_operation::erase:
        return t_.erase_ps * ticks_per_ps_;
    }
    return 0;
  }

  std::int64_t tprog_ps(std::int32_t page) const {
    timing programs = t_;  // as if it were tR
    programs.read_ps = t_.program_ps;
    programs.types.read_middle_ps =
        t_.types.program_middle_ps > 0 ? t_.types.program_middle_ps : t_.program_ps;
    programs.types.read_upper_ps =
        t_.types.program_upper_ps > 0 ? t_.types.program_upper_ps : t_.program_ps;
    return event_driven_drive{g_, programs, r_}.tr_ps(page);
  }

  // Counts through the block's pages, type by type.
  std::int64_t tr_ps(std::int32_t page) const {
    const std::int64_t of_bits[3][3] = {
        {t_.read_ps, 0, 0},
        {t_.read_ps, t_.types.read_upper_ps, 0},
        {t_.read_ps, t_.types.read_middle_ps, t_.types.read_upper_ps}};
    const bool pairs_of_three =
        t_.types.count == 3 && t_.types.order == instinfer::flash::page_order::shifted;
    if (!pairs_of_three) {
      return of_bits[t_.types.count - 1][page % t_.types.count];
    }
    // LLLLLLMM, then LLMMUU again and again.
    const char* first = "LLLLLLMM";
    const char* again = "LLMMUU";
    const char letter = page < 8 ? first[page] : again[(page - 8) % 6];
    return of_bits[2][letter == 'L' ? 0 : letter == 'M' ? 1 : 2];
  }

  geometry g_;
  timing t_;
  rules r_;
  std::int64_t ticks_per_ps_ = 1;
  std::int64_t transfer_ = 0;
  std::span<const std::int32_t> codewords_;
  std::span<const location> pages_;
  std::vector<channel_state> channels_;
  std::priority_queue<event, std::vector<event>, std::greater<>> events_;
  std::int64_t now_ = 0;
  std::int64_t scheduled_ = 0;
  outcome result_;
};

}  // namespace oracle
