#pragma once
// Replays an attend on the whole drive, to the tick: flash channels, filters with limited buffers,
// attention kernels and arg-top-k, each waiting for the others where it must (InstInfer §IV-B, Fig.
// 8).

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "instinfer/flash/accelerator/dram_queue.hpp"
#include "instinfer/flash/accelerator/filter_buffer.hpp"
#include "instinfer/flash/accelerator/kernel_pipeline.hpp"
#include "instinfer/flash/attend/attend_events.hpp"
#include "instinfer/flash/attend/attend_statistics.hpp"
#include "instinfer/flash/attend/attend_times.hpp"
#include "instinfer/flash/attend/channel_activity.hpp"
#include "instinfer/flash/attend/event_queue.hpp"
#include "instinfer/ssd/channel/arbitration.hpp"
#include "instinfer/ssd/channel/channel_replay.hpp"
#include "instinfer/ssd/channel/replay_work.hpp"
#include "instinfer/ssd/spec/drive_rules.hpp"
#include "instinfer/ssd/spec/presets.hpp"
#include "instinfer/ssd/spec/timing.hpp"

namespace instinfer::flash {

// channel_replay.hpp has the rules of the channels, kernel_pipeline.hpp those of the units behind
// the filters. The rules between them:
// - A released load adds its pages to the queues of their dies, in the order of the plan. They pair
//   with waiting pages. So loads of all heads in work interleave, first come, first served.
// - Each channel has a buffer of filter_buffer_pages. A page takes room in it from the start of its
//   data-out until it has passed the filter. Without room the bus sends no data, but it still sends
//   commands. A page enters the filter when it is decoded.
// - A filter takes pages one by one, in order. It looks at each byte that crossed the bus.
// - Pages in the group buffer come from DRAM, one after the other. Only wanted bytes are read, and
//   they pass no filter.
// At one instant, loads are released and places are given before a bus is granted. Channels affect
// each other only through the kernel buffer and arg-top-k.
template <class Arbitration = data_out_first>
class attend_timeline {
 public:
  // group: query heads of a KV head. Throws bad_argument for a drive without accelerator or
  // buffers, for rules out of range, or for pages that arrive one by one; error if a duration does
  // not fit 63 bits of ticks.
  attend_timeline(const drive_spec& drive, std::uint32_t group, std::uint32_t element_bytes,
                  const drive_rules& rules = {}, Arbitration arbitration = {})
      : flash_{drive.geometry, drive.timing, (check(drive, rules), rules)},
        element_bytes_{element_bytes},
        units_{drive.units, drive.dram_bytes_per_s, drive.geometry.page_bytes, scale()},
        kernels_{units_, drive.units.kernel_buffer_pages, group, drive.units.heads_at_once},
        next_{2 * static_cast<std::size_t>(drive.geometry.channels) + 1} {
    for (std::int32_t c = 0; c < drive.geometry.channels; ++c) {
      channels_.push_back({.replay = {flash_, arbitration},
                           .buffer = filter_buffer{drive.units.filter_buffer_pages}});
    }
  }

  const tick_scale& scale() const { return flash_.ticks.scale(); }
  const geometry& shape() const { return flash_.ticks.shape(); }
  // Of the last run, by time.
  std::span<const load_release> releases() const { return kernels_.releases(); }

  // pages: the location of each page of the work; those of buffered pages are ignored. The spans of
  // the result are valid until the next run. Throws bad_argument for another number of pages, a
  // page outside of the geometry, or work for a unit that the drive lacks. Allocates only while
  // work still grows. For Sink see flash/attend/attend_events.hpp.
  template <class Sink = no_attend_events>
  attend_times run(const attend_work& work, std::span<const location> pages, Sink&& sink = {}) {
    check(work, pages);
    begin(work, pages, sink);
    while (true) {
      const std::size_t first = next_.first();
      const std::int64_t now = next_.due(first);
      const load_release* release = kernels_.next_release();
      if (release != nullptr && release->at <= now) {
        take_release(*release, sink);
      } else if (now == never_ticks) {
        return statistics_.total(channels_, kernels_, dram_.busy_ticks(), scale().ticks_per_ps);
      } else if (first < channels_.size()) {
        filter_page(first, now, sink);
      } else if (first == channels_.size()) {
        load_page(now, sink);
      } else {
        const std::size_t c = first - channels_.size() - 1;
        const std::int64_t next = grant_bus(c, now, sink);
        next_.set(bus(c), run_bus(c, next, no_new_release_before(now), sink));
      }
    }
  }

 private:
  struct channel_state {
    channel_replay<Arbitration> replay;
    filter_buffer buffer;
    channel_activity activity = {};
    std::int64_t stands_at = never_ticks;  // when the bus is to be granted next, once room is known
  };

  static void check(const drive_spec& drive, const drive_rules& rules) {
    require(drive.units.present(), [] {
      return std::string("attend timeline: the drive has no accelerator, which attends in it");
    });
    validate(drive.units);
    require_together(rules, "attend timeline: the pages of a load");
  }

  void check(const attend_work& work, std::span<const location> pages) const {
    require(pages.size() == work.pages.size(), [&] {
      return "attend timeline: " + std::to_string(work.pages.size()) +
             " pages of work, but locations of " + std::to_string(pages.size());
    });
    double elements = 0;
    for (std::size_t i = 0; i < pages.size(); ++i) {
      require(work.pages[i].page == no_page || inside(pages[i], shape()), [&] {
        return "attend timeline: page " + std::to_string(i) + " of the work (" +
               to_string(pages[i]) + ") lies outside of " + to_string(shape());
      });
      elements += work.pages[i].elements;
      elements += work.pages[i].values;
    }
    // Even one page after the other, through one unit after the other, stays inside 63 bits.
    const double each =
        flash_.ticks.longest(array_operation::read) + static_cast<double>(units_.filter_page);
    const double longest = static_cast<double>(pages.size() + 1) * each +
                           units_.dram.about(elements * element_bytes_) +
                           kernels_.longest(work, elements);
    require(longest < 0.98 * 9223372036854775807.0, [&] {
      return "attend timeline: " + std::to_string(pages.size()) +
             " pages might overflow 63 bits of ticks (" + std::to_string(scale().ticks_per_ps) +
             " a ps); split the batch, or choose a rounder bus_bytes_per_s";
    });
  }

  template <class Sink>
  void begin(const attend_work& work, std::span<const location> pages, Sink& sink) {
    work_ = &work;
    codewords_.clear();
    if (std::ranges::any_of(work.pages, [](const page_task& t) { return t.codewords != 0; })) {
      for (const page_task& task : work.pages) {
        codewords_.push_back(task.codewords);
      }
    }
    check_codewords(codewords_, pages.size(), shape());
    flash_.pages = pages;
    flash_.codewords = codewords_;
    least_filter_ = codewords_.empty() ? units_.filter_page : units_.filter(shape().codeword_bytes);
    flash_.queues.begin(pages.size());
    for (std::size_t c = 0; c < channels_.size(); ++c) {
      channel_state& channel = channels_[c];
      channel.replay.begin(static_cast<std::int32_t>(c), flash_);
      channel.buffer.clear();
      channel.activity = {};
      channel.stands_at = never_ticks;
    }
    dram_.clear();
    next_.clear();
    statistics_.begin(channels_.size());
    kernels_.begin(work, sink);
  }

  // Sources of next_: filters and the DRAM, which ask for places, then buses, which can be granted.
  std::size_t dram() const { return channels_.size(); }
  std::size_t bus(std::size_t c) const { return channels_.size() + 1 + c; }

  template <class Sink>
  void take_release(load_release now, Sink& sink) {
    kernels_.take_release();
    const head_load& load = work_->loads[now.load];
    for (std::size_t i = load.first_page; i < load.last_page; ++i) {
      if (work_->pages[i].page == no_page) {
        dram_.come(i, now.at);
      } else {
        const location& at = flash_.pages[i];
        const auto c = static_cast<std::size_t>(at.channel);
        channel_replay<Arbitration>& channel = channels_[c].replay;
        flash_.queues.add(i, at);
        channel.come(flash_.queues.die_in_channel(at));
        next_.set_no_later(bus(c), std::max(channel.free_at(), now.at));
      }
    }
    next_.set(dram(), dram_.asks_at());
    for (std::size_t c = 0; kernels_.all_released() && c < channels_.size(); ++c) {
      const std::int64_t due = next_.due(bus(c));
      next_.set(bus(c), never_ticks);
      channels_[c].stands_at = run_bus(
          c, channels_[c].activity.stalls() ? std::min(due, now.at) : due, never_ticks, sink);
    }
  }

  // No release that is still unknown at `now` comes before the returned time. Until then a bus
  // depends on its own filter alone, so each bus is simulated alone. An unknown release needs a
  // page that has still to pass its filter, or that waits for its place in the DRAM.
  std::int64_t no_new_release_before(std::int64_t now) const {
    const std::int64_t filtered = dram_.asks_at() == never_ticks ? now + least_filter_ : now;
    const load_release* known = kernels_.next_release();
    return std::min(known != nullptr ? known->at : never_ticks,
                    std::max(filtered, kernels_.no_new_release_before()));
  }

  // Grants one bus alone until `end`, or until the time at which its filter has room is not yet
  // known. Returns the time of its next grant.
  template <class Sink>
  std::int64_t run_bus(std::size_t c, std::int64_t now, std::int64_t end, Sink& sink) {
    while (now < end && channels_[c].buffer.room_is_known()) {
      now = grant_bus(c, now, sink);
    }
    return now;
  }

  // Returns the time of the next grant of the bus, as far as it is known.
  template <class Sink>
  std::int64_t grant_bus(std::size_t c, std::int64_t now, Sink& sink) {
    channel_state& channel = channels_[c];
    filter_buffer& buffer = channel.buffer;
    const bool has_room = buffer.room_is_known() && buffer.room_at() <= now;
    std::size_t sent = none;
    const auto decoded = [&](std::size_t page, std::int64_t at) {
      sent = page;
      buffer.come(page, at);
      next_.set_no_later(c, buffer.asks_at());
    };
    const bool was_active = channel.replay.is_active();
    const bus_grant grant = channel.replay.grant(now, has_room, flash_, decoded, sink.flash);
    channel.activity.note(now, channel.replay, was_active, grant);
    if (sent != none) {
      statistics_.note_read(
          c, phase_of(sent),
          channel.activity.worked_ticks(channel.replay.free_at(), channel.replay.is_active()));
    }
    if (grant.stalled && buffer.room_is_known()) {
      return std::min(grant.next, buffer.room_at());
    }
    return grant.next;
  }

  // The filter of channel `c` asks for a place at `now`.
  template <class Sink>
  void filter_page(std::size_t c, std::int64_t now, Sink& sink) {
    channel_state& channel = channels_[c];
    const std::size_t task = channel.buffer.task();
    const std::int64_t there_at = channel.buffer.there_at();
    const std::int64_t begin = kernels_.place_given(now);
    const std::int64_t ticks = filter_ticks(task);
    const std::int64_t end = channel.buffer.pass(begin, ticks);
    sink.filter(c, task, begin, end);
    statistics_.note_data(c, kernels_.put(task, end, sink), there_at, ticks);
    if (kernels_.all_released()) {
      channel.stands_at = run_bus(c, channel.stands_at, never_ticks, sink);
    } else if (channel.activity.stalls()) {
      next_.set_no_later(bus(c), end);
    }
    next_.set(c, channel.buffer.asks_at());
  }

  static constexpr std::size_t none = std::numeric_limits<std::size_t>::max();
  std::uint32_t phase_of(std::size_t page) const {
    return work_->loads[work_->sets[work_->pages[page].set].load].phase;
  }

  std::int64_t filter_ticks(std::size_t task) {
    const std::int32_t codewords = codewords_.empty() ? 0 : codewords_[task];
    return codewords == 0 ? units_.filter_page
                          : units_.filter(std::int64_t{codewords} * shape().codeword_bytes);
  }

  // The DRAM asks for a place at `now`.
  template <class Sink>
  void load_page(std::int64_t now, Sink& sink) {
    const std::size_t task = dram_.task();
    const std::int64_t begin = kernels_.place_given(now);
    const std::int64_t bytes = std::int64_t{work_->pages[task].elements} * element_bytes_;
    const std::int64_t end = dram_.load(begin, units_.dram(bytes));
    sink.dram(task, begin, end);
    kernels_.put(task, end, sink);
    next_.set(dram(), dram_.asks_at());
  }

  replay_work<> flash_;
  std::uint32_t element_bytes_;
  accelerator_ticks units_;
  kernel_pipeline<> kernels_;
  std::vector<channel_state> channels_;
  event_queue<> next_;
  dram_queue dram_;
  attend_statistics statistics_;
  const attend_work* work_ = nullptr;
  std::vector<std::int32_t> codewords_;  // [pages], empty where whole pages cross the buses
  std::int64_t least_filter_ = 0;        // of any page
};

}  // namespace instinfer::flash
