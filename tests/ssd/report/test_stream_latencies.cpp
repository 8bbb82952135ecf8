#include <doctest/doctest.h>

#include <array>
#include <vector>

#include "instinfer/ssd/channel/mixed_timeline.hpp"
#include "instinfer/ssd/report/stream_latencies.hpp"
#include "instinfer/ssd/spec/presets.hpp"

namespace instinfer::test_stream_latencies {

using flash::array_operation;
using flash::drive_rules;
using flash::geometry;
using flash::io_request;
using flash::location;
using flash::mixed_timeline;
using flash::timing;

namespace {

constexpr geometry one_die{.channels = 1, .pages = 64};
constexpr timing v6 = flash::vnand_v6_timing;
constexpr timing whole_ns = [] {  // a page takes 3 us on the bus: sums by hand
  timing t = v6;
  t.page_transfer_ps = 3 * flash::ps_per_us;
  return t;
}();
constexpr drive_rules suspending{.suspend = {.of_programs = true, .of_erases = true}};

}  // namespace

TEST_CASE("mixed: latencies of one stream count from its arrivals") {
  const std::array requests{io_request{.priority = 1}, io_request{.what = array_operation::program},
                            io_request{.arrival_ps = 1},
                            io_request{.arrival_ps = 20, .priority = 1}};
  const std::array<std::int64_t, 4> finish{700, 700, 807, 840};  // of 7 ticks a ps
  const flash::tick_scale sevenths{.ticks_per_ps = 7};
  std::vector<std::int64_t> scratch;
  CHECK(flash::stream_latencies(requests, finish, sevenths, array_operation::read, 1, scratch) ==
        flash::latencies{2, 700, 700, 700, 700});
  CHECK(flash::stream_latencies(requests, finish, sevenths, array_operation::read, 0, scratch) ==
        flash::latencies{1, 800, 800, 800, 800});
  CHECK(flash::stream_latencies(requests, finish, sevenths, array_operation::erase, 0, scratch) ==
        flash::latencies{});
  CHECK_THROWS_AS(flash::stream_latencies(requests, std::span(finish).first(3), sevenths,
                                          array_operation::read, 0, scratch),
                  instinfer::bad_argument);
}

}  // namespace instinfer::test_stream_latencies
