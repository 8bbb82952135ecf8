#pragma once
// Reports to a sink (ssd/report/events.hpp) what a command does on the bus and in the array.

#include <cstdint>

#include "instinfer/ssd/report/events.hpp"
#include "instinfer/ssd/spec/array_operation.hpp"

namespace instinfer::flash {

constexpr event_kind array_event(array_operation what) {
  return what == array_operation::read      ? event_kind::array_read
         : what == array_operation::program ? event_kind::program
                                            : event_kind::erase;
}

// Work is replay_work or plain_reads (replay_work.hpp).

// The cycles of a command on the bus.
template <class Work, class Sink>
void report_cycles(Sink& sink, event_kind kind, const Work& work, std::int32_t command,
                   std::int64_t begin, std::int64_t end) {
  report(sink, kind, work.pages, work.queues.page(command, 0), begin, end);
}

// The pages of a program go to the die from `begin` on, each in `ticks`. Nothing happens for 0.
template <class Work, class Sink>
void report_data_in(Sink& sink, const Work& work, std::int32_t command, std::int64_t begin,
                    std::int64_t ticks) {
  for (std::int32_t k = 0; traced<Sink> && ticks > 0 && k < work.queues.page_count(command); ++k) {
    const std::int64_t at = begin + k * ticks;
    report(sink, event_kind::data_in, work.pages, work.queues.page(command, k), at, at + ticks);
  }
}

// The array works on the pages of the command.
template <class Work, class Sink>
void report_array(Sink& sink, const Work& work, std::int32_t command, std::int64_t begin,
                  std::int64_t end) {
  for (std::int32_t k = 0; traced<Sink> && k < work.queues.page_count(command); ++k) {
    report(sink, array_event(work.what(command)), work.pages, work.queues.page(command, k), begin,
           end);
  }
}

}  // namespace instinfer::flash
