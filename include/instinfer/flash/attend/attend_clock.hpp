#pragma once
// Times the work of an attend on a drive and its route: in the drive as a pipeline, on a host route
// phase by phase.

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

#include "instinfer/core/traffic.hpp"
#include "instinfer/flash/attend/attend_phase.hpp"
#include "instinfer/flash/attend/attend_timeline.hpp"
#include "instinfer/flash/attend/attend_trace.hpp"
#include "instinfer/flash/call_times.hpp"
#include "instinfer/ssd/channel/timeline.hpp"
#include "instinfer/ssd/spec/drive_rules.hpp"

namespace instinfer::flash {

// The transfer time of pages to the GPU, without the type of the route: double(traffic), called
// before the full expression that made it ends.
class route_time {
 public:
  template <class F>
    requires(!std::same_as<F, route_time>)
  route_time(const F& f)
      : f_{&f}, call_{[](const void* of, const traffic& pages) {
          return (*static_cast<const F*>(of))(pages);
        }} {}
  double operator()(const traffic& pages) const { return call_(f_, pages); }

 private:
  const void* f_;
  double (*call_)(const void*, const traffic&);
};

// InDrive: the drive computes attention.
template <bool InDrive, class Arbitration>
class attend_clock {
 public:
  // Throws what attend_timeline and timeline throw.
  attend_clock(const drive_spec& drive, const drive_rules& rules, std::uint32_t group,
               std::uint32_t element_bytes, const Arbitration& arbitration = {})
      : element_bytes_{element_bytes},
        drive_{make(drive, rules, group, element_bytes, arbitration)} {}

  // Fills in attention_ns, units and phases of `done`, whose link_ns is the time before them.
  // locations: one per page of the work. route_ns(traffic): on host routes, the transfer time of
  // the pages of one phase to the GPU.
  template <class Trace>
  void time(const attend_work& work, std::span<const location> locations, call_times& done,
            Trace* trace, route_time route_ns) {
    if constexpr (InDrive) {
      in_drive(work, locations, done, trace);
    } else {
      on_host(work, locations, done, trace, route_ns);
    }
  }

  // Calls see(load, ps) with the release time of each load of the last timed work, by time.
  template <class See>
  void each_release(const attend_work& work, const call_times& done, See&& see) const {
    if constexpr (InDrive) {
      for (const load_release& r : drive_.releases()) {
        see(r.load, r.at / drive_.scale().ticks_per_ps);
      }
    } else {
      for (std::uint32_t p = 0; p < done.phases.size(); ++p) {
        for (std::uint32_t l = 0; l < work.loads.size(); ++l) {
          if (work.loads[l].phase == p) {
            see(l, static_cast<std::int64_t>(done.phases[p].begin * 1e3));
          }
        }
      }
    }
  }

 private:
  using drive_type =
      std::conditional_t<InDrive, attend_timeline<Arbitration>, timeline<Arbitration>>;

  static drive_type make(const drive_spec& drive, const drive_rules& rules, std::uint32_t group,
                         std::uint32_t element_bytes, const Arbitration& arbitration) {
    if constexpr (InDrive) {
      return {drive, group, element_bytes, rules, arbitration};
    } else {
      return {drive.geometry, drive.timing, rules, arbitration};
    }
  }

  template <class Trace>
  void in_drive(const attend_work& work, std::span<const location> locations, call_times& done,
                Trace* trace) {
    const double ps_per_tick = 1.0 / static_cast<double>(drive_.scale().ticks_per_ps);
    const attend_times times = [&] {
      if constexpr (draws<Trace>) {
        if (trace != nullptr) {
          return drive_.run(work, locations,
                            attend_trace<Trace>{*trace, done.link_ns * 1e3, ps_per_tick});
        }
      }
      return drive_.run(work, locations);
    }();
    done.attention_ns = times.ns(times.makespan_ticks);
    for (std::size_t u = 0; u < unit_count; ++u) {
      done.units.busy_ns[u] = times.ns(times.busy_ticks[u]);
    }
    done.stalled_ns = times.ns(times.stalled_ticks);
    for (std::size_t r = 0; r < resource_count; ++r) {
      done.bounds.busy_ns[r] = times.ns(times.bound_ticks[r]);
    }
    done.bounds[resource::link] = done.link_ns;
    for (const phase_ticks& phase : times.phases) {
      done.phases.push_back(in_ns(phase, [&](std::int64_t ticks) { return times.ns(ticks); }));
    }
  }

  // Phase after phase: the GPU selects what the next phase reads. Pages of a phase move to the GPU
  // while others are read.
  template <class Trace>
  void on_host(const attend_work& work, std::span<const location> locations, call_times& done,
               Trace* trace, route_time route_ns) {
    bus_ticks_.assign(static_cast<std::size_t>(drive_.shape().channels), 0);
    die_ticks_.assign(static_cast<std::size_t>(drive_.shape().dies_total()), 0);
    done.bounds[resource::link] = done.link_ns;
    std::uint32_t phases = 0;
    for (const head_load& load : work.loads) {
      phases = std::max(phases, load.phase + 1);
    }
    for (std::uint32_t p = 0; p < phases; ++p) {
      phase_ns time{.begin = done.attention_ns};
      phase_pages_.clear();
      phase_codewords_.clear();
      traffic moved;
      for (std::uint32_t l = 0; l < work.loads.size(); ++l) {
        const head_load& load = work.loads[l];
        if (load.phase != p) {
          continue;
        }
        time.op = load.op;
        for (std::uint32_t i = load.first_page; i < load.last_page; ++i) {
          if (work.pages[i].page == no_page) {
            moved.buffer_bytes += std::uint64_t{work.pages[i].elements} * element_bytes_;
          } else {
            phase_pages_.push_back(locations[i]);
            phase_codewords_.push_back(work.pages[i].codewords);
            moved.channel_bytes += bus_bytes(work.pages[i], drive_.shape());
          }
        }
      }
      time.pages = moved.pages_read = phase_pages_.size();
      time.route = route_ns(moved);
      const double start_ns = done.link_ns + time.begin;
      const batch_times read = [&] {
        if constexpr (draws<Trace>) {
          if (trace != nullptr) {
            const double ps_per_tick = 1.0 / static_cast<double>(drive_.scale().ticks_per_ps);
            return drive_.read_codewords(phase_pages_, phase_codewords_, {}, [&](const event& e) {
              draw_event(*trace, e, start_ns * 1e3, ps_per_tick);
            });
          }
        }
        return drive_.read_codewords(phase_pages_, phase_codewords_);
      }();
      time.flash = time.reading = static_cast<double>(read.makespan_ps()) * 1e-3;
      for (std::size_t c = 0; c < bus_ticks_.size(); ++c) {
        bus_ticks_[c] += read.channels[c].bus_ticks();
      }
      for (std::size_t d = 0; d < die_ticks_.size(); ++d) {
        die_ticks_[d] += read.dies[d].array_ticks;
      }
      done.bounds[resource::link] += time.route;
      draw_unit(trace, "route", "pages to the GPU", start_ns, time.route);
      done.units[unit::flash] += time.flash;
      time.end = time.begin + std::max(time.flash, time.route);
      done.attention_ns = time.end;
      done.phases.push_back(time);
    }
    const double ns_per_tick = 1e-3 / static_cast<double>(drive_.scale().ticks_per_ps);
    const auto most_ns = [&](const std::vector<std::int64_t>& ticks) {
      return static_cast<double>(*std::max_element(ticks.begin(), ticks.end())) * ns_per_tick;
    };
    done.bounds[resource::bus] = most_ns(bus_ticks_);
    done.bounds[resource::array] = most_ns(die_ticks_);
  }

  std::uint32_t element_bytes_;
  drive_type drive_;
  std::vector<location> phase_pages_;          // of one phase on a host route
  std::vector<std::int32_t> phase_codewords_;  // of them
  std::vector<std::int64_t> bus_ticks_;        // [channels] of all phases on a host route
  std::vector<std::int64_t> die_ticks_;        // [dies of the drive] of their arrays
};

}  // namespace instinfer::flash
