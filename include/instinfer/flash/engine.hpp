#pragma once
// The flash path: the same commands as every engine, and the time that they take on the modelled drive and route.

#include "instinfer/engine.hpp"
#include "instinfer/flash/drawn.hpp"
#include "instinfer/flash/phases.hpp"
#include "instinfer/flash/placement.hpp"
#include "instinfer/flash/timeline.hpp"
#include "instinfer/store/ledger.hpp"

namespace instinfer::flash {

// Time of one phase by resource, in nanoseconds. The resources work as a pipeline while channels read (InstInfer
// Fig. 8), so a phase takes as long as its slowest one; arg-top-k needs all scores and comes before.
struct phase_time {
  attention::operation op = attention::operation::fold;
  std::uint64_t pages = 0;
  double flash_ns = 0;    // the timeline's makespan
  double filter_ns = 0;   // busiest channel's filter
  double gemv_ns = 0;     // attention kernels
  double softmax_ns = 0;  // softmax units
  double top_k_ns = 0;
  double route_ns = 0;  // host routes: the pages' way to the GPU

  double total_ns() const {
    return top_k_ns + std::max({flash_ns, filter_ns, gemv_ns, softmax_ns, route_ns});
  }
};

struct receipt : instinfer::receipt {
  std::vector<phase_time> phases;
  double link_ns = 0;  // in storage: q down and the output up; append: K and V down
  double flash_write_ns = 0;

  double total_ns() const {
    double sum = link_ns + flash_write_ns;
    for (const phase_time& phase : phases) {
      sum += phase.total_ns();
    }
    return sum;
  }
};

// What attend takes for a trace where there is none; chrome_trace (flash/chrome_trace.hpp) is what to pass.
struct no_trace {};

// Path decides what is selected: by default drawn at random, without data; a compute path (cpu::path, reference::path)
// attends as its own engine does, and is timed beside it. The GPU's own work is not counted on any route.
template <Design D, class Format = kv_format<>, class Path = drawn,
          class Arbitration = data_out_first>
class engine {
 public:
  static constexpr bool holds_data = !std::is_same_v<Path, drawn>;
  using store_type = std::conditional_t<holds_data, store::memory, store::ledger>;
  using inner_type = instinfer::engine<D, Format, Path, store_type>;
  using element = typename inner_type::element;
  using policy = typename inner_type::policy;
  using route = typename D::transfer_policy;

  // drive and machine default to the design's and the paper's; a sweep passes its own. The drive's link rate replaces that
  // of the machine. Throws bad_argument for a drive that cannot be, has another page size than the layout, or is smaller
  // than the capacity.
  engine(const model_shape& shape, const store::capacity& capacity, const policy& attention = {},
         const logit_rule& logits = {}, const drive_spec& drive = D::drive,
         const transfer::machine_spec& machine = {})
      : drive_{(validate(drive), drive)},
        machine_{with_link_of(drive, machine)},
        inner_{shape, capacity, attention, logits,
               static_cast<std::uint32_t>(drive.geometry.channels)},
        placement_{drive.geometry},
        timeline_{drive.geometry, drive.timing} {
    require(drive.geometry.page_bytes == static_cast<std::int32_t>(D::layout_policy::page_bytes),
            [&] {
              return "flash engine: the drive's pages have " +
                     std::to_string(drive.geometry.page_bytes) + " bytes, the layout's " +
                     std::to_string(D::layout_policy::page_bytes);
            });
    require(!route::computes_in_drive || drive.units.present(), [] {
      return std::string(
          "flash engine: attention in storage needs a drive with engine units, this one has none");
    });
    require(capacity.bytes <= static_cast<std::uint64_t>(drive.geometry.bytes()), [&] {
      return "flash engine: the drive holds " + std::to_string(drive.geometry.bytes()) +
             " bytes, the capacity is " + std::to_string(capacity.bytes);
    });
  }

  sequence open() { return inner_.open(); }

  // As instinfer::engine::append, timed. Out of memory while timing leaves the tokens appended.
  receipt append(sequence seq, int layer, std::span<const element> k, std::span<const element> v) {
    return timed_write(inner_.append(seq, layer, k, v));
  }
  receipt append_count(sequence seq, int layer, std::uint64_t count)
    requires(!holds_data)
  {
    return timed_write(inner_.append_count(seq, layer, count));
  }

  // As instinfer::engine::build, timed: tokens are read, and written in another order.
  receipt build(sequence seq, int layer)
    requires requires(inner_type& e) { e.build(seq, layer); }
  {
    return timed_write(inner_.build(seq, layer));
  }

  // One query of a batch; q [q_heads, k_dim], out [q_heads, v_dim].
  using request = attend_request;

  // As instinfer::engine::attend, timed.
  template <class Trace = no_trace>
  receipt attend(sequence seq, int layer, std::span<const float> q, std::span<float> out,
                 Trace* trace = nullptr) {
    const request one{seq, q, out};
    return attend_batch(layer, {&one, 1}, trace);
  }

  // One layer's attention for many sequences: the drive works on all their heads at once, phase by phase. Bars go to
  // `trace` if there is one. A request that is not valid throws; the outputs of those before it are then written.
  template <class Trace = no_trace>
  receipt attend_batch(int layer, std::span<const request> batch, Trace* trace = nullptr) {
    const model_shape& shape = inner_.cache().shape();
    receipt done;
    phases_.clear();
    transfer::link_bytes link;
    for (const request& r : batch) {
      require(r.q.size() <= static_cast<std::size_t>(shape.q_heads * Format::k_dim), [&] {
        return std::string("flash engine: one query a sequence is timed, q must be [") +
               std::to_string(shape.q_heads) + ", " + std::to_string(Format::k_dim) + "]";
      });
      attend_phases observed(static_cast<std::uint32_t>(shape.kv_heads),
                             static_cast<std::uint32_t>(shape.group()), Format::k_dim,
                             Format::element_bytes);
      done.moved +=
          inner_.attend(r.seq, layer, r.q, r.out, scratch_, parallel::serial{}, observed).moved;
      observed.add_to(phases_);
      const auto moved =
          route::bytes({}, r.q.size() * sizeof(element), r.out.size() * sizeof(element));
      link.up += moved.up;
      link.down += moved.down;
    }
    double now_ns = 0;
    done.link_ns = route_ns(link);
    add_bar(trace, "link", "q down, output up", now_ns, done.link_ns);
    now_ns += done.link_ns;
    for (const phase_load& load : phases_) {
      done.phases.push_back(timed_phase(load, trace, now_ns));
      now_ns += done.phases.back().total_ns();
    }
    return done;
  }

  void reclaim(sequence seq) { inner_.reclaim(seq); }
  void reclaim(sequence seq, const store::reclaim_range& range) { inner_.reclaim(seq, range); }

  // As instinfer::engine's.
  std::uint32_t tokens(sequence seq, int layer) const { return inner_.tokens(seq, layer); }
  std::uint32_t positions(sequence seq, int layer) const { return inner_.positions(seq, layer); }

  // The engine that is timed: for attends with a parallel policy, a workspace or an observer of your own.
  const inner_type& inner() const { return inner_; }
  const drive_spec& drive() const { return drive_; }

 private:
  static transfer::machine_spec with_link_of(const drive_spec& drive,
                                             transfer::machine_spec machine) {
    machine.drive_link.bytes_per_s = static_cast<double>(drive.link_bytes_per_s);
    transfer::validate(machine);
    return machine;
  }

  template <class Trace>
  static void add_bar(Trace* trace, const char* row, const char* name, double begin_ns,
                      double duration_ns) {
    if constexpr (!std::is_same_v<Trace, no_trace>) {
      if (trace != nullptr && duration_ns > 0) {
        trace->add("units", row, name, begin_ns * 1e3, duration_ns * 1e3);
      }
    }
  }

  // No bytes, no request: not even its latency.
  double route_ns(const transfer::link_bytes& moved) const {
    return moved.up + moved.down == 0 ? 0.0 : route::time(moved, machine_).total_ns();
  }

  void locate(std::span<const page_id> pages) {
    locations_.clear();
    for (const page_id page : pages) {
      locations_.push_back(placement_(page));
    }
  }

  template <class Trace>
  phase_time timed_phase(const phase_load& load, Trace* trace, double begin_ns) {
    const auto ns = [](std::int64_t ps) { return static_cast<double>(ps) * 1e-3; };
    phase_time time{.op = load.op, .pages = load.pages.size()};
    const engine_units& units = drive_.units;
    if constexpr (route::computes_in_drive) {
      time.top_k_ns = ns(units.top_k_ps(static_cast<std::int64_t>(load.ranked_elements)));
      time.gemv_ns = ns(units.gemv_ps(static_cast<std::int64_t>(load.gemv_flops)));
      time.softmax_ns = ns(units.softmax_ps(static_cast<std::int64_t>(load.scores)));
    } else {
      const traffic pages{.pages_read = load.pages.size(),
                          .channel_bytes = load.pages.size() * D::layout_policy::page_bytes,
                          .buffer_bytes = load.buffer_bytes};
      time.route_ns = route_ns(route::bytes(pages, 0, 0));
    }
    const double start_ns = begin_ns + time.top_k_ns;
    locate(load.pages);
    const batch_times read = [&] {
      if constexpr (!std::is_same_v<Trace, no_trace>) {
        if (trace != nullptr) {
          return timeline_.read(locations_, {},
                                [&](const event& e) { add_event(*trace, e, start_ns); });
        }
      }
      return timeline_.read(locations_);
    }();
    time.flash_ns = ns(read.makespan_ps());
    if constexpr (route::computes_in_drive) {
      std::int64_t busiest = 0;
      for (const channel_load& channel : read.channels) {
        busiest = std::max(busiest, channel.pages);
      }
      time.filter_ns = ns(units.filter_ps(busiest * drive_.geometry.page_bytes));
    }
    add_bar(trace, "arg-top-k", "rank", begin_ns, time.top_k_ns);
    add_bar(trace, "filters", "entry filter", start_ns, time.filter_ns);
    add_bar(trace, "GeMV", load.op == attention::operation::fold ? "Logit and Attend" : "Logit-0",
            start_ns, time.gemv_ns);
    add_bar(trace, "softmax", "softmax", start_ns, time.softmax_ns);
    add_bar(trace, "route", "pages to the GPU", start_ns, time.route_ns);
    return time;
  }

  template <class Trace>
  void add_event(Trace& trace, const event& e, double start_ns) const {
    const double ps_per_tick = 1.0 / static_cast<double>(timeline_.scale().ticks_per_ps);
    const bool on_bus = e.kind == event_kind::command || e.kind == event_kind::data_out;
    const std::string row = on_bus
                                ? "bus"
                                : "chip " + std::to_string(e.chip) + " die " +
                                      std::to_string(e.die) + " plane " + std::to_string(e.plane);
    trace.add("channel " + std::to_string(e.channel), row, event_name(e.kind),
              start_ns * 1e3 + static_cast<double>(e.begin_ticks) * ps_per_tick,
              static_cast<double>(e.end_ticks - e.begin_ticks) * ps_per_tick);
  }

  // New K and V go down the link while earlier groups are programmed; the slower one shows.
  receipt timed_write(const instinfer::receipt& written) {
    receipt done{written, {}};
    locate(inner_.written());
    const double program_ns =
        static_cast<double>(timeline_.program(locations_).makespan_ps()) * 1e-3;
    const double link_ns = route_ns({.up = 0, .down = written.moved.link_bytes});
    (program_ns > link_ns ? done.flash_write_ns : done.link_ns) = std::max(program_ns, link_ns);
    return done;
  }

  drive_spec drive_;
  transfer::machine_spec machine_;
  inner_type inner_;
  placement placement_;
  timeline<Arbitration> timeline_;
  typename inner_type::scratch scratch_;
  std::vector<location> locations_;
  std::vector<phase_load> phases_;
};

}  // namespace instinfer::flash
