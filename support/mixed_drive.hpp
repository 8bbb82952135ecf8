#pragma once
// The oracle for ssd/channel/mixed_timeline.hpp: looks at every request and every die at each
// moment at which anything may change. Slow on purpose.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <tuple>
#include <utility>
#include <vector>

#include "instinfer/ssd/channel/mixed_timeline.hpp"

namespace oracle {

namespace flash = instinfer::flash;

class mixed_drive {
 public:
  struct outcome {
    std::vector<std::int64_t> finish;
    std::int64_t makespan = 0;
    std::int64_t commands = 0;
    std::int64_t suspensions = 0;
    std::map<std::pair<int, int>, std::int64_t> array;  // by channel and die
  };

  mixed_drive(const flash::geometry& g, const flash::timing& t, const flash::drive_rules& r,
              bool data_first)
      : g_{g}, t_{t}, r_{r}, data_first_{data_first}, scale_{flash::ticks_of(t, g)} {}

  outcome run(const std::vector<flash::io_request>& requests) {
    requests_ = &requests;
    taken_.assign(requests.size(), false);
    result_.finish.assign(requests.size(), -1);
    channels_.assign(static_cast<std::size_t>(g_.channels), channel{});
    for (channel& c : channels_) {
      c.dies.resize(static_cast<std::size_t>(g_.chips * g_.dies));
    }
    for (std::size_t i = 0; i < requests.size(); ++i) {
      const flash::location& at = requests[i].where;
      moments_.insert(ticks(requests[i].arrival_ps));
      channels_[static_cast<std::size_t>(at.channel)]
          .dies[static_cast<std::size_t>(at.die * g_.chips + at.chip)]
          .requests.push_back(i);
    }
    while (!moments_.empty()) {
      now_ = *moments_.begin();
      moments_.erase(moments_.begin());
      for (int c = 0; c < g_.channels; ++c) {
        happen(c);
        grant(c);
      }
    }
    return result_;
  }

 private:
  struct job {
    flash::array_operation what{};
    int priority = 0;
    std::vector<std::size_t> pages;
    std::size_t sent = 0;
    std::int64_t issue = 0;
    std::int64_t array_begin = 0;
    std::int64_t array_end = 0;  // and the moment from which on a read's data is ready
    bool in_array = false;
    std::int64_t may_suspend_at = 0;
    bool plain = true;  // otherwise by way of the cache register
    bool waits_to_move = false;
    bool moves = false;  // until array_end
  };
  struct die {
    std::vector<std::size_t> requests;  // all that are meant for it, at any time
    std::optional<job> current;
    std::optional<job> cached;  // in the cache register
    std::optional<job> parked;
    std::int64_t parked_left = 0;
    std::int64_t deaf_until = 0;  // suspending
  };
  struct channel {
    std::vector<die> dies;
    bool bus_busy = false;
    std::int64_t bus_end = 0;
    std::function<void()> at_bus_end;
    std::size_t turn = 0;
    std::int64_t issued = 0;
  };

  std::int64_t ticks(std::int64_t ps) const { return ps * scale_.ticks_per_ps; }
  const flash::io_request& request(std::size_t i) const { return (*requests_)[i]; }

  void happen(int c) {
    channel& ch = channels_[static_cast<std::size_t>(c)];
    if (ch.bus_busy && ch.bus_end == now_) {
      ch.bus_busy = false;
      ch.at_bus_end();
    }
    for (std::size_t d = 0; d < ch.dies.size(); ++d) {
      std::optional<job>& work = ch.dies[d].current;
      if (work && work->in_array && work->array_end == now_) {
        work->in_array = false;
        result_.array[{c, static_cast<int>(d)}] += now_ - work->array_begin;
        if (work->what != flash::array_operation::read) {
          for (const std::size_t i : work->pages) {
            done(i, now_);
          }
          work.reset();
        } else {
          work->waits_to_move = !work->plain;
        }
      }
      move(ch.dies[d]);
    }
  }

  // Pages that were read go to the cache register when it is empty.
  void move(die& on) {
    std::optional<job>& work = on.current;
    if (work && work->waits_to_move && !on.cached) {
      work->waits_to_move = false;
      work->moves = true;
      work->array_end = now_ + ticks(t_.cache_move_ps);
      moments_.insert(work->array_end);
    }
    if (work && work->moves && work->array_end == now_) {
      work->moves = false;
      on.cached = work;
      work.reset();
    }
  }

  static std::optional<job>& data_of(die& on) { return on.cached ? on.cached : on.current; }

  void done(std::size_t i, std::int64_t when) {
    result_.finish[i] = when;
    result_.makespan = std::max(result_.makespan, when);
  }

  // The bus is busy for so long, then `after` happens.
  void occupy(int c, std::int64_t length, std::function<void()> after) {
    channel& ch = channels_[static_cast<std::size_t>(c)];
    ch.bus_busy = true;
    ch.bus_end = now_ + length;
    ch.at_bus_end = std::move(after);
    moments_.insert(ch.bus_end);
  }

  void grant(int c) {
    channel& ch = channels_[static_cast<std::size_t>(c)];
    if (ch.bus_busy) {
      return;
    }
    // Data-outs that wait.
    std::optional<std::size_t> out;
    const auto rank = [&](std::size_t d) {
      const job& j = *data_of(ch.dies[d]);
      return std::tuple{j.priority, j.array_end, j.issue};
    };
    for (std::size_t d = 0; d < ch.dies.size(); ++d) {
      const std::optional<job>& j = data_of(ch.dies[d]);
      const bool leaves =
          ch.dies[d].cached || (j && j->plain && j->what == flash::array_operation::read &&
                                j->issue >= 0 && !j->in_array);
      if (leaves && (!out || rank(d) < rank(*out))) {
        out = d;
      }
    }
    // Commands that wait: (priority, distance from the die whose turn it is) and what to do.
    std::optional<std::tuple<int, std::size_t>> best;
    std::function<void()> command;
    for (std::size_t d = 0; d < ch.dies.size(); ++d) {
      const auto wish = wish_of(c, d);
      if (!wish) {
        continue;
      }
      const std::tuple place{wish->first, (d + ch.dies.size() - ch.turn) % ch.dies.size()};
      if (!best || place < *best) {
        best = place;
        command = [this, c, d, act = wish->second] {
          channels_[static_cast<std::size_t>(c)].turn =
              (d + 1) % channels_[static_cast<std::size_t>(c)].dies.size();
          act();
        };
      }
    }
    if (out && best) {
      const int data_priority = data_of(ch.dies[*out])->priority;
      const int command_priority = std::get<0>(*best);
      const bool data =
          data_priority != command_priority ? data_priority < command_priority : data_first_;
      data ? send(c, *out) : command();
    } else if (out) {
      send(c, *out);
    } else if (best) {
      command();
    }
  }

  std::optional<std::pair<int, std::function<void()>>> wish_of(int c, std::size_t d) {
    die& on = channels_[static_cast<std::size_t>(c)].dies[d];
    if (now_ < on.deaf_until) {
      return {};
    }
    const std::optional<std::size_t> head = next_request(c, d);
    if (!on.current && !on.parked) {
      if (!head || (on.cached && request(*head).what != flash::array_operation::read)) {
        return {};
      }
      return std::pair{request(*head).priority, [=, this] { start(c, d, *head); }};
    }
    if (!on.current) {
      if (head && request(*head).what == flash::array_operation::read &&
          request(*head).priority < on.parked->priority) {
        return std::pair{request(*head).priority, [=, this] { start(c, d, *head); }};
      }
      return std::pair{on.parked->priority, [=, this] { resume(c, d); }};
    }
    const job& j = *on.current;
    const flash::suspension& s = r_.suspend;
    const bool allowed = (j.what == flash::array_operation::program && s.of_programs) ||
                         (j.what == flash::array_operation::erase && s.of_erases);
    const std::int64_t latency =
        ticks(j.what == flash::array_operation::program ? s.program_ps : s.erase_ps);
    if (!head || !allowed || !j.in_array || now_ < j.may_suspend_at ||
        request(*head).what != flash::array_operation::read ||
        request(*head).priority >= j.priority ||
        now_ + ticks(s.command_ps) + latency >= j.array_end) {
      return {};
    }
    return std::pair{request(*head).priority, [=, this] { suspend(c, d, latency); }};
  }

  bool waits(std::size_t i) const { return !taken_[i] && ticks(request(i).arrival_ps) <= now_; }

  std::optional<std::size_t> next_request(int c, std::size_t d) const {
    std::optional<std::size_t> best;
    for (const std::size_t i : channels_[static_cast<std::size_t>(c)].dies[d].requests) {
      if (waits(i) && (!best || request(i).priority < request(*best).priority)) {
        best = i;
      }
    }
    return best;
  }

  void start(int c, std::size_t d, std::size_t head) {
    channel& ch = channels_[static_cast<std::size_t>(c)];
    const flash::io_request first = request(head);
    job j{.what = first.what, .priority = first.priority, .pages = {}};
    std::set<int> planes;
    for (const std::size_t i : ch.dies[d].requests) {
      const flash::io_request& r = request(i);
      const bool goes = i == head || (i > head && waits(i) && r.what == first.what &&
                                      r.priority == first.priority && pairs(first, r));
      if (goes && planes.insert(r.where.plane).second) {
        j.pages.push_back(i);
        taken_[i] = true;
      }
    }
    const auto p = static_cast<std::int64_t>(j.pages.size());
    std::int64_t bus = 0;
    std::int64_t array = 0;
    switch (first.what) {
      case flash::array_operation::read:
        bus = ticks(t_.read_command_ps + p * t_.read_address_ps + (p - 1) * t_.read_next_plane_ps);
        for (const std::size_t i : j.pages) {
          array = std::max(array, read_ticks(request(i).where));
        }
        break;
      case flash::array_operation::program:
        bus = ticks(t_.program_command_ps + (p - 1) * t_.program_next_plane_ps) +
              p * scale_.page_transfer_ticks;
        for (const std::size_t i : j.pages) {
          array = std::max(array, ticks(t_.program_array_ps(t_.types.of(request(i).where.page))));
        }
        break;
      case flash::array_operation::erase:
        bus = ticks(t_.erase_command_ps + (p - 1) * t_.erase_next_plane_ps);
        array = ticks(t_.erase_ps);
        break;
    }
    j.issue = -1;  // in its command cycles
    j.plain = !r_.cache_read || ch.dies[d].parked.has_value();
    ch.dies[d].current = j;
    ++result_.commands;
    occupy(c, bus, [=, this] {
      job& begun = *channels_[static_cast<std::size_t>(c)].dies[d].current;
      begun.issue = channels_[static_cast<std::size_t>(c)].issued++;
      run_array(begun, now_, array);
    });
  }

  void run_array(job& j, std::int64_t begin, std::int64_t length) {
    j.in_array = true;
    j.array_begin = begin;
    j.array_end = begin + length;
    moments_.insert(j.array_end);
  }

  void suspend(int c, std::size_t d, std::int64_t latency) {
    ++result_.suspensions;
    occupy(c, ticks(r_.suspend.command_ps), [=, this] {
      die& on = channels_[static_cast<std::size_t>(c)].dies[d];
      on.parked_left = on.current->array_end - now_;
      result_.array[{c, static_cast<int>(d)}] += now_ - on.current->array_begin;
      on.parked = on.current;
      on.parked->in_array = false;
      on.current.reset();
      on.deaf_until = now_ + latency;
      moments_.insert(on.deaf_until);
    });
  }

  void resume(int c, std::size_t d) {
    occupy(c, ticks(r_.suspend.command_ps), [=, this] {
      die& on = channels_[static_cast<std::size_t>(c)].dies[d];
      on.current = on.parked;
      on.parked.reset();
      const std::int64_t begin = now_ + ticks(r_.suspend.resume_ps);
      on.current->may_suspend_at = begin + ticks(r_.suspend.least_run_ps);
      moments_.insert(on.current->may_suspend_at);
      run_array(*on.current, begin, on.parked_left);
    });
  }

  void send(int c, std::size_t d) {
    const job& leaves = *data_of(channels_[static_cast<std::size_t>(c)].dies[d]);
    const int part = request(leaves.pages[leaves.sent]).codewords;
    const int all = g_.page_bytes / g_.codeword_bytes;
    occupy(c, scale_.page_transfer_ticks * (part == 0 ? all : part) / all, [=, this] {
      std::optional<job>& j = data_of(channels_[static_cast<std::size_t>(c)].dies[d]);
      done(j->pages[j->sent], now_ + ticks(t_.decode_ps));
      if (++j->sent == j->pages.size()) {
        j.reset();
      }
    });
  }

  bool pairs(const flash::io_request& a, const flash::io_request& b) const {
    const bool page = a.what == flash::array_operation::erase || a.where.page == b.where.page;
    if (r_.pair == flash::pairing::any && a.what == flash::array_operation::read) {
      return true;
    }
    return r_.pair != flash::pairing::none && page &&
           (r_.pair == flash::pairing::same_page || a.where.block == b.where.block);
  }

  std::int64_t read_ticks(const flash::location& at) const {
    std::int64_t tr = t_.read_ps;
    const flash::page_type type = t_.types.of(at.page);
    if (type != flash::page_type::lower) {
      tr = type == flash::page_type::middle ? t_.types.read_middle_ps : t_.types.read_upper_ps;
    }
    return ticks((tr + t_.read_turnaround_ps) * (1 + r_.retry.draw(at)));
  }

  flash::geometry g_;
  flash::timing t_;
  flash::drive_rules r_;
  bool data_first_;
  flash::tick_scale scale_;
  const std::vector<flash::io_request>* requests_ = nullptr;
  std::vector<bool> taken_;
  std::vector<channel> channels_;
  std::set<std::int64_t> moments_;
  std::int64_t now_ = 0;
  outcome result_;
};

}  // namespace oracle
