#pragma once
// One channel of a mixed stream: its dies and the requests that wait for them, and who of them should
// have the bus next.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "instinfer/ssd/channel/batch_rules.hpp"
#include "instinfer/ssd/channel/io_request.hpp"
#include "instinfer/ssd/channel/mixed_die.hpp"
#include "instinfer/ssd/channel/request_queues.hpp"
#include "instinfer/ssd/spec/geometry.hpp"
#include "instinfer/ssd/spec/suspension.hpp"

namespace instinfer::flash {

class mixed_channel {
 public:
  enum class command { start, suspend, resume };
  struct offer {
    std::int32_t die;
    std::int32_t priority;
    command kind = command::start;
  };

  mixed_channel(const geometry& g, const suspension_ticks& suspend)
      : suspend_{suspend},
        queues_{g},
        dies_(static_cast<std::size_t>(g.dies_per_channel())),
        planes_{static_cast<std::size_t>(g.planes)},
        members_(3 * dies_.size() * planes_) {}

  // See request_queues::sort.
  void sort(std::span<const io_request> requests, pairing pair, std::int64_t ticks_per_ps) {
    queues_.sort(requests, pair, ticks_per_ps);
  }
  void begin(std::int32_t channel) {
    queues_.begin_channel(channel);
    std::ranges::fill(dies_, mixed_die{});
  }
  void admit(std::int64_t now) { queues_.admit(now); }

  std::int32_t count() const { return static_cast<std::int32_t>(dies_.size()); }
  mixed_die& die(std::int32_t d) { return dies_[static_cast<std::size_t>(d)]; }
  const mixed_die& die(std::int32_t d) const { return dies_[static_cast<std::size_t>(d)]; }
  const io_request& of(std::int32_t i) const { return queues_.of(i); }

  // The die's oldest requests of its highest priority become its work.
  void take(std::int32_t d) {
    die_work& work = die(d).work;
    const io_request& first = of(queues_.head(d));
    std::int32_t list = 0;
    while ((die(d).suspended && list == die(d).parked.members) ||
           (die(d).leaves && list == die(d).leaving.members)) {
      ++list;
    }
    work = {.what = first.what, .priority = first.priority, .members = list};
    work.pages = queues_.take(d, std::span(members_).subspan(members_at(d, list), planes_));
  }

  // Requests of the die's work, or of another command on it, by arrival.
  std::span<const std::int32_t> pages_of(std::int32_t d) const { return pages_of(d, die(d).work); }
  std::span<const std::int32_t> pages_of(std::int32_t d, const die_work& work) const {
    return std::span(members_).subspan(members_at(d, work.members),
                                       static_cast<std::size_t>(work.pages));
  }

  // Of highest priority, then ready first, then issued first.
  std::optional<offer> best_data_out() const {
    std::optional<offer> best;
    for (std::int32_t d = 0; d < count(); ++d) {
      const mixed_die& one = die(d);
      if (one.has_data() && (!best || before(one, die(best->die)))) {
        best = offer{d, one.data().priority};
      }
    }
    return best;
  }

  // Of highest priority, then the first at or after die `first`, cyclically.
  std::optional<offer> next_command(std::int64_t now, std::int32_t first) const {
    const std::int32_t dies = count();
    std::optional<offer> best;
    for (std::int32_t step = 0; step < dies; ++step) {
      const std::int32_t d = first + step < dies ? first + step : first + step - dies;
      const std::optional<offer> wish = command_for(d, now);
      if (wish && (!best || wish->priority < best->priority)) {
        best = wish;
      }
    }
    return best;
  }

  // When something that is under way will be over, a request comes, or a suspend may be sent.
  std::int64_t next_change(std::int64_t now) const {
    std::int64_t soonest = queues_.next_arrival();
    for (const mixed_die& die : dies_) {
      if (die.at == phase::array || die.at == phase::suspending || die.at == phase::moving) {
        soonest = std::min(soonest, die.until);
      }
      if (die.at == phase::array && die.suspend_from > now) {
        soonest = std::min(soonest, die.suspend_from);
      }
    }
    return soonest;
  }

 private:
  using phase = mixed_die::phase;

  static bool before(const mixed_die& a, const mixed_die& b) {
    return a.data().priority != b.data().priority ? a.data().priority < b.data().priority
           : a.data_since() != b.data_since()     ? a.data_since() < b.data_since()
                                                  : a.data().issue < b.data().issue;
  }

  // What the die would have the bus for, if anything.
  std::optional<offer> command_for(std::int32_t d, std::int64_t now) const {
    const mixed_die& one = die(d);
    const std::int32_t head = queues_.head(d);
    const bool waits = head != request_queues::nothing;
    if (one.at == phase::idle && one.suspended) {
      if (waits && overtakes(queues_.of(head), one.parked)) {
        return offer{d, queues_.of(head).priority};
      }
      return offer{d, one.parked.priority, command::resume};
    }
    if (one.at == phase::idle && waits) {
      if (one.leaves && queues_.of(head).what != array_operation::read) {
        return std::nullopt;
      }
      return offer{d, queues_.of(head).priority};
    }
    if (waits && could_suspend(one, queues_.of(head), now) && now >= one.suspend_from) {
      return offer{d, queues_.of(head).priority, command::suspend};
    }
    return std::nullopt;
  }

  static bool overtakes(const io_request& r, const die_work& work) {
    return r.what == array_operation::read && r.priority < work.priority;
  }
  // But for the least run.
  bool could_suspend(const mixed_die& die, const io_request& r, std::int64_t now) const {
    return die.at == phase::array && suspend_.allows(die.work.what) && overtakes(r, die.work) &&
           now + suspend_.command() + suspend_.latency(die.work.what) < die.until;
  }

  std::size_t members_at(std::int32_t d, std::int32_t list) const {
    return static_cast<std::size_t>(3 * d + list) * planes_;
  }

  suspension_ticks suspend_;
  request_queues queues_;
  std::vector<mixed_die> dies_;
  std::size_t planes_;
  std::vector<std::int32_t> members_;  // [dies, 3, planes]: of work, suspended and leaving
};

}  // namespace instinfer::flash
