#pragma once
// The events of array operations that a timeline reports during a replay: for traces, and for
// downstream resources.

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

#include "instinfer/ssd/spec/location.hpp"

namespace instinfer::flash {

enum class event_kind { command, array_read, data_out, data_in, program, erase, suspend, resume };

constexpr const char* event_name(event_kind kind) {
  switch (kind) {
    case event_kind::command:
      return "command";
    case event_kind::array_read:
      return "array read";
    case event_kind::data_out:
      return "data out";
    case event_kind::data_in:
      return "data in";
    case event_kind::program:
      return "program";
    case event_kind::erase:
      return "erase";
    case event_kind::suspend:
      return "suspend";
    case event_kind::resume:
      return "resume";
  }
  return "";
}

// `command`, `data_out`, `data_in`, `suspend` and `resume` occupy the channel's bus; the other
// kinds occupy the plane (a suspended program or erase once for each run of its array). A
// multi-plane command is one event, on the plane of its first page. Channels come one after the
// other; within a channel, bus events are in ascending time.
struct event {
  event_kind kind;
  std::int32_t channel;
  std::int32_t chip;
  std::int32_t die;
  std::int32_t plane;
  std::size_t index;         // index of the page in the batch
  std::int64_t begin_ticks;  // since the start of the batch
  std::int64_t end_ticks;
};

template <class S>
concept EventSink = std::invocable<S&, const event&>;

// The default sink: does nothing and has no cost.
struct no_events {
  constexpr void operator()(const event&) const {}
};

template <class Sink>
inline constexpr bool traced = !std::is_same_v<std::remove_cvref_t<Sink>, no_events>;

// Reports one event of pages[page] to the sink.
template <class Sink>
void report(Sink& sink, event_kind kind, std::span<const location> pages, std::size_t page,
            std::int64_t begin, std::int64_t end) {
  static_assert(
      EventSink<Sink>,
      "instinfer: an event sink must be callable with const event&, see ssd/report/events.hpp");
  if constexpr (traced<Sink>) {
    const location& at = pages[page];
    sink(event{kind, at.channel, at.chip, at.die, at.plane, page, begin, end});
  }
}

}  // namespace instinfer::flash
