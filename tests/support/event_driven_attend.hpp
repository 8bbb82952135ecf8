#pragma once
// The oracle for flash/attend/attend_timeline.hpp: every buffer a queue that is searched literally,
// every unit a server that starts and ends by events. Slow on purpose.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <utility>
#include <vector>

#include "tests/support/event_driven_attend_state.hpp"

namespace oracle {

class event_driven_attend : attend_state {
 public:
  event_driven_attend(const flash::drive_spec& drive, std::uint32_t group,
                      std::uint32_t element_bytes, const flash::drive_rules& rules, bool data_first)
      : attend_state(drive, group, element_bytes, rules, data_first) {}

  attend_outcome run(const flash::attend_work& work, std::span<const flash::location> pages) {
    work_ = &work;
    pages_ = pages;
    result_.decoded.assign(pages.size(), -1);
    result_.filtered.assign(pages.size(), -1);
    result_.through.assign(pages.size(), -1);
    result_.stalled.assign(channels_.size(), 0);
    result_.released.assign(work.loads.size(), -1);
    result_.finished.assign(work.loads.size(), -1);
    sets_through_.assign(work.sets.size(), 0);
    sets_done_.assign(work.sets.size(), false);
    heads_.clear();
    for (std::size_t i = 0; i < work.loads.size(); ++i) {
      if (work.loads[i].phase == 0) {
        heads_.push_back(i);
      }
    }
    const auto most = static_cast<std::size_t>(d_.units.heads_at_once);
    for (std::size_t h = 0; !heads_.empty() && (most == 0 || h < most); ++h) {
      to_rank_.push_back(heads_.front());
      heads_.pop_front();
    }
    start_units();
    while (!events_.empty()) {
      const std::int64_t before = std::exchange(now_, events_.top().time);
      for (std::size_t c = 0; c < channels_.size(); ++c) {
        result_.stalled[c] += channels_[c].stalled ? now_ - before : 0;
      }
      while (!events_.empty() && events_.top().time == now_) {  // all that happens now
        const event e = events_.top();
        events_.pop();
        happen(e);
        start_units();
      }
      ask_for_places();
      for (std::size_t c = 0; c < channels_.size(); ++c) {
        grant_bus(c);
        channel_state& channel = channels_[c];
        channel.stalled = !channel.bus_busy && !channel.ready.empty() &&
                          channel.in_buffer == d_.units.filter_buffer_pages;
      }
    }
    return result_;
  }

 private:
  // In to_rank_: the head that begins when load n is done is next_head_after + n.
  static constexpr std::size_t next_head_after = std::size_t{1} << 40;
  std::deque<std::size_t> heads_;  // first loads of those not in work yet

  void happen(const event& e) {
    switch (e.what) {
      case kind::bus_free:
        channels_[e.channel].bus_busy = false;
        break;
      case kind::array_done:
        if (rules_.cache_read) {
          channels_[e.channel].dies[e.die].array_full = true;
          move(e.channel, e.die);
        } else {
          offer(channels_[e.channel], e.die);
        }
        break;
      case kind::moved:
        offer(channels_[e.channel], e.die);
        channels_[e.channel].dies[e.die].busy = false;
        break;
      case kind::data_out_done: {
        channel_state& c = channels_[e.channel];
        c.bus_busy = false;
        after(d_.timing.decode_ps * ticks_per_ps_, kind::decoded, e.channel, e.die, e.item);
        if (e.last && rules_.cache_read) {
          c.dies[e.die].cache_full = false;
          move(e.channel, e.die);
        } else if (e.last) {
          c.dies[e.die].busy = false;
        }
        break;
      }
      case kind::decoded:
        result_.decoded[e.item] = now_;
        channels_[e.channel].to_filter.push_back(e.item);
        break;
      case kind::filtered:
        channels_[e.channel].filter_busy = false;
        --channels_[e.channel].in_buffer;
        fill(e.item);
        break;
      case kind::dram_done:
        dram_busy_ = false;
        fill(e.item);
        break;
      case kind::gemv_done:
        gemv_done(e.item);
        break;
      case kind::softmax_done:
        softmax_busy_ = false;
        set_done(e.item);
        break;
      case kind::top_k_done:
        top_k_busy_ = false;
        release(e.item);
        break;
    }
  }

  void fill(std::size_t page) {
    result_.filtered[page] = now_;
    for (place& p : ring_) {
      if (p.page == page) {
        p.filled = true;
      }
    }
  }

  void gemv_done(std::size_t page) {
    gemv_busy_ = false;
    result_.through[page] = now_;
    const std::size_t set = work_->pages[page].set;
    const bool last = ++sets_through_[set] == work_->sets[set].pages;
    for (place& p : ring_) {
      if (p.page == page) {
        p.through = true;
        p.last_of_set = last;
      }
    }
    if (!last) {
      return;
    }
    const std::size_t load = work_->sets[set].load;
    bool all = true;
    for (std::size_t s = 0; s < work_->sets.size(); ++s) {
      all = all && (work_->sets[s].load != load || sets_through_[s] == work_->sets[s].pages);
    }
    if (all) {
      to_rank_.push_back(following(load));
    }
    if (work_->sets[set].scores > 0) {
      to_softmax_.push_back(set);
    } else {
      set_done(set);
    }
  }

  void set_done(std::size_t set) {
    sets_done_[set] = true;
    const std::size_t load = work_->sets[set].load;
    if (is_done(load)) {
      finish(load);
    }
  }
  bool is_done(std::size_t load) const {
    for (std::size_t s = 0; s < work_->sets.size(); ++s) {
      if (work_->sets[s].load == load && !sets_done_[s]) {
        return false;
      }
    }
    return true;
  }
  void finish(std::size_t load) {
    result_.finished[load] = now_;
    result_.makespan = std::max(result_.makespan, now_);
  }

  void release(std::size_t load) {
    result_.released[load] = now_;
    const flash::head_load& l = work_->loads[load];
    for (std::size_t i = l.first_page; i < l.last_page; ++i) {
      if (work_->pages[i].page == instinfer::no_page) {
        to_dram_.push_back(i);
      } else {
        const flash::location& at = pages_[i];
        channels_[static_cast<std::size_t>(at.channel)]
            .dies[static_cast<std::size_t>(at.die * d_.geometry.chips + at.chip)]
            .waiting.push_back(i);
      }
    }
    if (l.first_page == l.last_page) {
      finish(load);
      to_rank_.push_front(following(load));
    }
  }

  // The next load of the head; or the place of the next head, which is chosen when its turn comes.
  std::size_t following(std::size_t load) const {
    return work_->has_next(static_cast<std::uint32_t>(load)) ? load + 1 : next_head_after + load;
  }

  // Whatever unit is free and has something to do.
  void start_units() {
    while (!ring_.empty() && ring_.front().through &&
           (!ring_.front().last_of_set || sets_done_[work_->pages[ring_.front().page].set])) {
      ring_.pop_front();
    }
    if (!gemv_busy_) {
      for (const place& p : ring_) {
        if (p.through) {
          continue;
        }
        if (p.filled) {
          gemv_busy_ = true;
          after(ps(2 * std::int64_t{work_->pages[p.page].elements} * group_,
                   d_.units.gemv_flops_per_s * d_.units.attention_kernels),
                kind::gemv_done, 0, 0, p.page);
        }
        break;
      }
    }
    if (!softmax_busy_ && !to_softmax_.empty()) {
      const std::size_t set = to_softmax_.front();
      to_softmax_.pop_front();
      softmax_busy_ = true;
      after(ps(5 * std::int64_t{work_->sets[set].scores},
               d_.units.softmax_flops_per_s * d_.units.softmax_units),
            kind::softmax_done, 0, 0, set);
    }
    while (!top_k_busy_ && !to_rank_.empty()) {
      std::size_t load = to_rank_.front();
      const bool next_head = load >= next_head_after;
      if (next_head && heads_.empty()) {
        to_rank_.pop_front();
        continue;
      }
      const bool first = !next_head && work_->loads[load].phase == 0;
      if (!first && !is_done(next_head ? load - next_head_after : load - 1)) {
        break;
      }
      to_rank_.pop_front();
      if (next_head) {
        load = heads_.front();
        heads_.pop_front();
      }
      top_k_busy_ = true;
      after(ps(static_cast<std::int64_t>(work_->loads[load].ranked_elements),
               d_.units.top_k_elements_per_s),
            kind::top_k_done, 0, 0, load);
    }
  }

  // After all that happens at an instant.
  void ask_for_places() {
    for (std::size_t c = 0; c < channels_.size(); ++c) {
      if (!channels_[c].filter_busy && !channels_[c].to_filter.empty()) {
        channels_[c].filter_busy = true;
        asking_.push_back(c);
      }
    }
    if (!dram_busy_ && !to_dram_.empty()) {
      dram_busy_ = true;
      asking_.push_back(channels_.size());
    }
    while (!asking_.empty() &&
           ring_.size() < static_cast<std::size_t>(d_.units.kernel_buffer_pages)) {
      const std::size_t s = asking_.front();
      asking_.pop_front();
      std::deque<std::size_t>& from = s < channels_.size() ? channels_[s].to_filter : to_dram_;
      const std::size_t page = from.front();
      from.pop_front();
      ring_.push_back({page});
      if (s < channels_.size()) {
        after(ps(d_.geometry.page_bytes / parts() * part(page), d_.units.filter_bytes_per_s),
              kind::filtered, s, 0, page);
      } else {
        after(ps(std::int64_t{work_->pages[page].elements} * element_bytes_, d_.dram_bytes_per_s),
              kind::dram_done, 0, 0, page);
      }
    }
  }

  void move(std::size_t c, std::size_t d) {
    die_state& die = channels_[c].dies[d];
    if (die.array_full && !die.cache_full) {
      die.array_full = false;
      die.cache_full = true;
      after(d_.timing.cache_move_ps * ticks_per_ps_, kind::moved, c, d, 0);
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

  void grant_bus(std::size_t c) {
    if (channels_[c].bus_busy) {
      return;
    }
    if (data_first_) {
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
    if (channel.in_buffer == d_.units.filter_buffer_pages) {
      ++result_.stalls;
      return false;
    }
    const data_out next = channel.ready.front();
    channel.ready.pop_front();
    ++channel.in_buffer;
    channel.bus_busy = true;
    after(transfer_ * part(next.page) / parts(), kind::data_out_done, c, next.die, next.page,
          next.last);
    return true;
  }

  bool issue_command(std::size_t c) {
    channel_state& channel = channels_[c];
    for (std::size_t step = 0; step < channel.dies.size(); ++step) {
      const std::size_t d = (channel.next_die + step) % channel.dies.size();
      die_state& die = channel.dies[d];
      if (die.busy || die.waiting.empty()) {
        continue;
      }
      channel.next_die = d + 1;
      take_pages(die);
      die.busy = true;
      channel.bus_busy = true;
      die.issue = channel.commands++;
      const auto p = static_cast<std::int64_t>(die.taken.size());
      const flash::timing& t = d_.timing;
      const std::int64_t bus =
          (t.read_command_ps + p * t.read_address_ps + (p - 1) * t.read_next_plane_ps) *
          ticks_per_ps_;
      std::int64_t array = 0;
      for (const std::size_t page : die.taken) {
        const std::int64_t once = t.read_array_ps(t.types.of(pages_[page].page));
        array = std::max(array, once * (1 + rules_.retry.draw(pages_[page])) * ticks_per_ps_);
      }
      after(bus, kind::bus_free, c, d, 0);
      after(bus + array, kind::array_done, c, d, 0);
      return true;
    }
    return false;
  }

  // The oldest page, and the oldest one of each other plane that may go with it.
  void take_pages(die_state& die) {
    const flash::location oldest = pages_[die.waiting.front()];
    std::vector<bool> plane_used(static_cast<std::size_t>(d_.geometry.planes), false);
    std::deque<std::size_t> left;
    die.taken.clear();
    for (const std::size_t i : die.waiting) {
      const auto plane = static_cast<std::size_t>(pages_[i].plane);
      const bool row =
          rules_.pair == flash::pairing::any ||
          (rules_.pair != flash::pairing::none && oldest.page == pages_[i].page &&
           (rules_.pair == flash::pairing::same_page || oldest.block == pages_[i].block));
      if (die.taken.empty() || (!plane_used[plane] && row)) {
        plane_used[plane] = true;
        die.taken.push_back(i);
      } else {
        left.push_back(i);
      }
    }
    die.waiting = left;
  }
};

}  // namespace oracle
