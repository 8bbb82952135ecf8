#pragma once
// Replays an attend on the whole drive, to the tick: flash channels, filters with limited buffers, attention kernels and
// arg-top-k, each waiting for the others where it must (InstInfer §IV-B, Fig. 8).

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "instinfer/flash/attend_events.hpp"
#include "instinfer/flash/attend_times.hpp"
#include "instinfer/flash/earliest.hpp"
#include "instinfer/flash/kernel_pipeline.hpp"
#include "instinfer/flash/presets.hpp"
#include "instinfer/flash/read_channel.hpp"

namespace instinfer::flash {

// The rules, beside those of timeline.hpp for the channels and of kernel_pipeline.hpp for what is behind them.
// - When a load is released, its pages join the queues of their dies, in the order of the plan, and pair with what waits
//   there. So loads of all heads interleave, first come first served.
// - Each channel has a buffer of filter_buffer_pages. A page takes room in it from the start of its data-out until the filter
//   has passed it on; while there is none, the bus sends no data, though commands go on. A page is there when it is decoded.
// - A filter takes pages one by one in the order they came. It looks at each byte, wanted or not.
// - Pages in the group buffer come from DRAM, one after the other, wanted bytes only, and past the filters.
// At one instant, loads are released and places given before a bus is granted. Channels take no notice of each other but
// through the kernel buffer and arg-top-k.
template <class Arbitration = data_out_first>
class attend_timeline {
  static_assert(BusArbitration<Arbitration>,
                "instinfer: a bus arbitration needs choose() -> bus_turn and must be copyable, see "
                "flash/arbitration.hpp");

 public:
  // group: query heads of a KV head. Throws bad_argument for a drive without engine units or buffers, rules that cannot
  // be, or pages that arrive one by one; error if a duration does not fit 63 bits of ticks.
  attend_timeline(const drive_spec& drive, std::uint32_t group, std::uint32_t element_bytes,
                  const batch_rules& rules = {}, Arbitration arbitration = {})
      : ticks_{drive.geometry, drive.timing, rules.retry},
        rules_{(check(drive, rules), rules)},
        element_bytes_{element_bytes},
        room_{static_cast<std::uint32_t>(drive.units.filter_buffer_pages)},
        units_{drive.units, drive.dram_bytes_per_s, drive.geometry.page_bytes, ticks_.scale()},
        kernels_{units_, drive.units.kernel_buffer_pages, group},
        queues_{drive.geometry},
        sources_(static_cast<std::size_t>(drive.geometry.channels) + 1),
        next_{2 * sources_.size() - 1},
        buffered_(static_cast<std::size_t>(drive.geometry.channels) * room_) {
    for (std::int32_t c = 0; c < drive.geometry.channels; ++c) {
      channels_.emplace_back(c, drive.geometry, rules.cache_read, arbitration);
    }
  }

  const tick_scale& scale() const { return ticks_.scale(); }
  const geometry& shape() const { return ticks_.shape(); }
  // Of the last run, by time.
  std::span<const kernel_pipeline::release> releases() const { return kernels_.releases(); }

  // pages: where each page of the work lies; entries of buffered pages are not looked at. The spans of the result are valid
  // until the next run. Throws bad_argument for another number of pages or one outside of the geometry, and work for a
  // unit that the drive lacks. Allocates only while work still grows. For Sink see flash/attend_events.hpp.
  template <class Sink = no_attend_events>
  attend_times run(const attend_work& work, std::span<const location> pages, Sink&& sink = {}) {
    check(work, pages);
    begin(work, pages, sink);
    while (true) {
      const std::size_t first = next_.first();
      const std::int64_t now = next_.due(first);
      const kernel_pipeline::release* release = kernels_.next_release();
      if (release != nullptr && release->at <= now) {
        take_release(*release, sink);
      } else if (now == never_ticks) {
        return total();
      } else if (first < sources_.size()) {
        pass(first, now, sink);
      } else {
        const std::size_t c = first - sources_.size();
        next_.set(bus(c), grant_bus(c, now, sink));
      }
    }
  }

 private:
  // A filter, or the DRAM behind the last one.
  struct source {
    std::uint64_t sent = 0;  // pages on their way to it or through it, so far
    std::uint64_t passed = 0;
    std::int64_t free_at = 0;
    std::int64_t busy = 0;
    bool bus_stalls = false;
    std::int64_t bus_stands_at = never_ticks;  // when it is to be granted next, once room is known
  };
  struct buffered_page {
    std::int64_t there_at = 0;  // decoded
    std::int64_t gone_at = 0;   // through the filter
    std::size_t task = 0;
  };
  struct dram_page {
    std::int64_t there_at;
    std::size_t task;
  };

  static void check(const drive_spec& drive, const batch_rules& rules) {
    require(drive.units.present(), [] {
      return std::string("attend timeline: the drive has no engine units, which attend in it");
    });
    const engine_units& u = drive.units;
    require(u.filter_buffer_pages > 0 && u.kernel_buffer_pages > 0, [&] {
      return "attend timeline: filter_buffer_pages and kernel_buffer_pages must be positive, got " +
             std::to_string(u.filter_buffer_pages) + " and " +
             std::to_string(u.kernel_buffer_pages);
    });
    require(drive.dram_bytes_per_s > 0, [&] {
      return "attend timeline: dram_bytes_per_s must be positive, got " +
             std::to_string(drive.dram_bytes_per_s);
    });
    require(rules.arrive == arrival::together, [] {
      return std::string(
          "attend timeline: the pages of a load arrive together; arrival::one_by_one is for batches");
    });
  }

  void check(const attend_work& work, std::span<const location> pages) const {
    require(pages.size() == work.pages.size(), [&] {
      return "attend timeline: " + std::to_string(work.pages.size()) +
             " pages of work, but locations of " + std::to_string(pages.size());
    });
    for (std::size_t i = 0; i < pages.size(); ++i) {
      require(work.pages[i].page == no_page || inside(pages[i], shape()), [&] {
        return "attend timeline: page " + std::to_string(i) + " of the work (" +
               to_string(pages[i]) + ") lies outside of " + to_string(shape());
      });
    }
    // Even one page after the other stays inside 63 bits.
    constexpr double most = 0.99 * 9223372036854775807.0;
    require(static_cast<double>(pages.size() + 1) * 2 * ticks_.longest(operation::read) < most,
            [&] {
              return "attend timeline: " + std::to_string(pages.size()) +
                     " pages might overflow 63 bits of ticks (" +
                     std::to_string(scale().ticks_per_ps) +
                     " a ps); split the batch, or choose a rounder bus_bytes_per_s";
            });
  }

  template <class Sink>
  void begin(const attend_work& work, std::span<const location> pages, Sink& sink) {
    work_ = &work;
    pages_ = pages;
    queues_.begin(pages.size(), operation::read, rules_.pair);
    for (read_channel<Arbitration>& channel : channels_) {
      channel.begin();
    }
    std::ranges::fill(sources_, source{});
    next_.clear();
    dram_pages_.clear();
    phases_.clear();
    filtered_.clear();
    kernels_.begin(work, sink);
  }

  std::size_t bus(std::size_t c) const { return sources_.size() + c; }

  // Page `n` of a channel that came into its buffer.
  buffered_page& buffered(std::size_t c, std::uint64_t n) {
    return buffered_[c * room_ + static_cast<std::size_t>(n % room_)];
  }

  template <class Sink>
  void take_release(kernel_pipeline::release now, Sink& sink) {
    kernels_.take_release();
    const head_load& load = work_->loads[now.load];
    for (std::size_t i = load.first_page; i < load.last_page; ++i) {
      if (work_->pages[i].page == no_page) {
        dram_pages_.push_back({now.at, i});
      } else {
        const location& at = pages_[i];
        const auto c = static_cast<std::size_t>(at.channel);
        queues_.add(i, at);
        next_.set_no_later(bus(c), channels_[c].arrive(queues_.die_in_channel(at), now.at));
      }
    }
    await_page(sources_.size() - 1);
    for (std::size_t c = 0; kernels_.all_released() && c < channels_.size(); ++c) {
      const std::int64_t due = next_.due(bus(c));
      next_.set(bus(c), never_ticks);
      run_bus(c, sources_[c].bus_stalls ? std::min(due, now.at) : due, sink);
    }
  }

  // Whether the place in the buffer that the next page takes has been given a time at which it is free.
  bool room_is_known(const source& filter) const { return filter.sent < filter.passed + room_; }

  // Once all loads are released, a bus depends on its own filter alone, and need not keep step with the others: it goes on
  // until it needs to know when the filter will have room.
  template <class Sink>
  void run_bus(std::size_t c, std::int64_t now, Sink& sink) {
    while (now != never_ticks && room_is_known(sources_[c])) {
      now = grant_bus(c, now, sink);
    }
    sources_[c].bus_stands_at = now;
  }

  // Returns when the bus is to be granted next, as far as that is known.
  template <class Sink>
  std::int64_t grant_bus(std::size_t c, std::int64_t now, Sink& sink) {
    source& filter = sources_[c];
    const bool full = !room_is_known(filter) ||
                      (filter.sent >= room_ && buffered(c, filter.sent).gone_at > now);
    const bus_grant grant = channels_[c].step(now, !full, queues_, ticks_, pages_, sink.flash);
    filter.bus_stalls = grant.stalled;
    std::int64_t next = grant.next;
    if (grant.sent_page != bus_grant::none) {
      const std::int64_t there_at = grant.next + ticks_.decode();
      buffered(c, filter.sent++) = {.there_at = there_at, .gone_at = 0, .task = grant.sent_page};
      if (filter.passed + 1 == filter.sent) {
        await_page(c);
      }
    } else if (grant.stalled && room_is_known(filter)) {
      next = std::min(next, buffered(c, filter.sent).gone_at);
    }
    return next;
  }

  // Source `s` asks for a place at `now`.
  template <class Sink>
  void pass(std::size_t s, std::int64_t now, Sink& sink) {
    source& from = sources_[s];
    const bool is_filter = s < channels_.size();
    const std::size_t task =
        is_filter ? buffered(s, from.passed).task : dram_pages_[from.passed].task;
    const std::int64_t begin = kernels_.place_given(now);
    const std::int64_t takes =
        is_filter ? units_.filter_page
                  : units_.dram(std::int64_t{work_->pages[task].elements} * element_bytes_);
    from.free_at = begin + takes;
    from.busy += takes;
    ++from.passed;
    if (!is_filter) {
      sink.dram(task, begin, from.free_at);
      kernels_.put(task, from.free_at, sink);
    } else {
      buffered_page& page = buffered(s, from.passed - 1);
      page.gone_at = from.free_at;
      sink.filter(s, task, begin, from.free_at);
      note_data(s, kernels_.put(task, from.free_at, sink), page.there_at);
      if (kernels_.all_released()) {
        run_bus(s, std::exchange(from.bus_stands_at, never_ticks), sink);
      } else if (from.bus_stalls) {
        next_.set_no_later(bus(s), from.free_at);
      }
    }
    await_page(s);
  }

  // When the source asks for its next place.
  void await_page(std::size_t s) {
    const source& of = sources_[s];
    const bool is_filter = s < channels_.size();
    const std::uint64_t came = is_filter ? of.sent : dram_pages_.size();
    if (of.passed == came) {
      next_.set(s, never_ticks);
    } else {
      const std::int64_t there_at = is_filter ? buffered(s, of.passed).there_at
                                              : dram_pages_[of.passed].there_at;
      next_.set(s, std::max(of.free_at, there_at));
    }
  }

  void note_data(std::size_t c, std::uint32_t phase, std::int64_t end) {
    while (phase >= phases_.size()) {
      phases_.emplace_back();
      filtered_.resize(filtered_.size() + channels_.size());
    }
    phases_[phase].data_end_ticks = std::max(phases_[phase].data_end_ticks, end);
    ++filtered_[phase * channels_.size() + c];
  }

  attend_times total() {
    attend_times sum{.makespan_ticks = kernels_.end(), .ticks_per_ps = scale().ticks_per_ps};
    loads_.clear();
    const auto busy = [&](unit u) -> std::int64_t& {
      return sum.busy_ticks[static_cast<std::size_t>(u)];
    };
    for (std::size_t c = 0; c < channels_.size(); ++c) {
      loads_.push_back(channels_[c].load());
      busy(unit::flash) = std::max(busy(unit::flash), channels_[c].active_ticks());
      busy(unit::filter) = std::max(busy(unit::filter), sources_[c].busy);
    }
    busy(unit::dram) = sources_.back().busy;
    busy(unit::top_k) = kernels_.top_k_busy();
    busy(unit::logit_0) = kernels_.busy(kernel_step::logit_0);
    busy(unit::logit) = kernels_.busy(kernel_step::logit);
    busy(unit::attend) = kernels_.busy(kernel_step::attend);
    phases_.resize(kernels_.phases().size());
    filtered_.resize(phases_.size() * channels_.size());
    for (std::size_t p = 0; p < phases_.size(); ++p) {
      const kernel_pipeline::phase_ticks& from = kernels_.phases()[p];
      attend_phase& to = phases_[p];
      const auto filtered = std::span(filtered_).subspan(p * channels_.size(), channels_.size());
      to = {.op = from.op,
            .pages = from.pages,
            .begin_ticks = from.begin,
            .data_end_ticks = to.data_end_ticks,
            .end_ticks = from.end,
            .filter_ticks = *std::ranges::max_element(filtered) * units_.filter_page,
            .gemv_ticks = from.gemv,
            .softmax_ticks = from.softmax,
            .top_k_ticks = from.top_k};
    }
    sum.phases = phases_;
    sum.channels = loads_;
    return sum;
  }

  operation_ticks ticks_;
  batch_rules rules_;
  std::uint32_t element_bytes_;
  std::uint32_t room_;  // pages of a channel's buffer
  unit_ticks units_;
  kernel_pipeline kernels_;
  command_queues queues_;
  std::vector<read_channel<Arbitration>> channels_;
  std::vector<source> sources_;          // [channels + 1]
  earliest next_;  // sources ask for a place, then buses, [channels], can be granted
  std::vector<buffered_page> buffered_;  // [channels, room]
  std::vector<dram_page> dram_pages_;
  std::vector<attend_phase> phases_;
  std::vector<std::int64_t> filtered_;  // [phases, channels] pages
  std::vector<channel_load> loads_;     // [channels]
  const attend_work* work_ = nullptr;
  std::span<const location> pages_;
};

}  // namespace instinfer::flash
