#pragma once
// The state of event_driven_attend.hpp's model: queues of every buffer, who is busy, and the events
// to come.

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <queue>
#include <span>
#include <vector>

#include "instinfer/flash/attend/attend_work.hpp"
#include "instinfer/ssd/spec/drive_rules.hpp"
#include "instinfer/ssd/spec/presets.hpp"

namespace oracle {

namespace flash = instinfer::flash;

struct attend_outcome {
  std::int64_t makespan = 0;
  std::vector<std::int64_t> decoded;  // [pages] flash pages: when the data was there; -1 otherwise
  // [pages] when the page was in its place of the kernel buffer.
  std::vector<std::int64_t> filtered;
  std::vector<std::int64_t> through;   // [pages] when the kernels were done with it
  std::vector<std::int64_t> released;  // [loads]
  std::vector<std::int64_t> finished;  // [loads]
  std::int64_t stalls = 0;             // times a bus had data and no room for it
  std::vector<std::int64_t> stalled;   // [channels] how long, with nothing else to do
};

class attend_state {
 protected:
  attend_state(const flash::drive_spec& drive, std::uint32_t group, std::uint32_t element_bytes,
               const flash::drive_rules& rules, bool data_first)
      : d_{drive},
        rules_{rules},
        data_first_{data_first},
        group_{group},
        element_bytes_{element_bytes} {
    const auto scale = flash::ticks_of(drive.timing, drive.geometry);
    ticks_per_ps_ = scale.ticks_per_ps;
    transfer_ = scale.page_transfer_ticks;
    channels_.resize(static_cast<std::size_t>(drive.geometry.channels));
    for (channel_state& c : channels_) {
      c.dies.resize(static_cast<std::size_t>(drive.geometry.dies_per_channel()));
    }
  }

  struct die_state {
    std::deque<std::size_t> waiting;
    std::vector<std::size_t> taken;
    std::int64_t issue = 0;
    bool busy = false;
    bool array_full = false;
    bool cache_full = false;
  };
  struct data_out {
    std::size_t die;
    std::size_t page;
    bool last;
    std::int64_t since;
    std::int64_t issue;
  };
  struct channel_state {
    std::vector<die_state> dies;
    std::deque<data_out> ready;
    bool bus_busy = false;
    bool stalled = false;
    std::size_t next_die = 0;
    std::int64_t commands = 0;
    int in_buffer = 0;  // pages on the bus, decoded, waiting, or in the filter
    std::deque<std::size_t> to_filter;
    bool filter_busy = false;  // or asking
  };
  struct place {
    std::size_t page;
    bool filled = false;
    bool through = false;
    bool last_of_set = false;
  };
  enum class kind {
    bus_free,
    array_done,
    moved,
    data_out_done,
    decoded,
    filtered,
    dram_done,
    gemv_done,
    softmax_done,
    top_k_done
  };
  struct event {
    std::int64_t time;
    std::int64_t order;
    kind what;
    std::size_t channel = 0;
    std::size_t die = 0;
    std::size_t item = 0;  // page, set or load
    bool last = false;
    bool operator>(const event& o) const {
      return time != o.time ? time > o.time : order > o.order;
    }
  };

  void after(std::int64_t ticks, kind what, std::size_t channel, std::size_t die, std::size_t item,
             bool last = false) {
    events_.push({now_ + ticks, scheduled_++, what, channel, die, item, last});
  }

  // Codewords of a page, and those that cross the bus.
  std::int64_t parts() const { return d_.geometry.page_bytes / d_.geometry.codeword_bytes; }
  std::int64_t part(std::size_t page) const {
    const std::int32_t of = work_->pages[page].codewords;
    return of == 0 ? parts() : of;
  }

  // Time of an amount of work, rounded up to whole ps.
  std::int64_t ps(std::int64_t amount, std::int64_t per_second) const {
    __extension__ using wide = __int128;
    return static_cast<std::int64_t>(
               (static_cast<wide>(amount) * 1'000'000'000'000 + per_second - 1) / per_second) *
           ticks_per_ps_;
  }

  flash::drive_spec d_;
  flash::drive_rules rules_;
  bool data_first_;
  std::uint32_t group_;
  std::uint32_t element_bytes_;
  std::int64_t ticks_per_ps_ = 1;
  std::int64_t transfer_ = 0;
  const flash::attend_work* work_ = nullptr;
  std::span<const flash::location> pages_;
  std::vector<channel_state> channels_;
  std::deque<std::size_t> asking_;  // channels, and the DRAM as one more
  std::deque<place> ring_;
  std::deque<std::size_t> to_dram_, to_softmax_, to_rank_;  // pages, sets, loads
  std::vector<std::uint32_t> sets_through_;
  std::vector<bool> sets_done_;
  bool gemv_busy_ = false, softmax_busy_ = false, top_k_busy_ = false, dram_busy_ = false;
  std::priority_queue<event, std::vector<event>, std::greater<>> events_;
  std::int64_t now_ = 0;
  std::int64_t scheduled_ = 0;
  attend_outcome result_;
};

}  // namespace oracle
