// The routes: their bytes and times against arithmetic done by hand.

#include <doctest/doctest.h>

#include <limits>

#include "instinfer/transfer/gpu_direct.hpp"
#include "instinfer/transfer/host_bounce.hpp"
#include "instinfer/transfer/in_storage.hpp"
#include "instinfer/transfer/peer_to_peer.hpp"

namespace instinfer::test_routes {

using namespace transfer;

static_assert(link_spec{}.bytes_per_s == 0 && link_spec{}.latency_ns == 0);  // none by default
static_assert(Transfer<host_bounce> && !host_bounce::computes_in_drive);
static_assert(Transfer<gpu_direct> && !gpu_direct::computes_in_drive);
static_assert(Transfer<peer_to_peer> && !peer_to_peer::computes_in_drive);
static_assert(Transfer<in_storage> && in_storage::computes_in_drive);

namespace {

struct without_side : in_storage {
  static constexpr struct nothing {
  } computes_in_drive{};
};
struct without_bytes {
  static constexpr bool computes_in_drive = true;
  static route_time time(link_bytes, const route_spec&);
};
struct without_time {
  static constexpr bool computes_in_drive = true;
  static link_bytes bytes(const traffic&, std::uint64_t, std::uint64_t);
};
struct time_as_number : without_time {
  static double time(link_bytes, const route_spec&);
};
struct time_by_conversion : without_time {
  struct soon {
    operator route_time() const;  // NOLINT: what the concept must not be content with
  };
  static soon time(link_bytes, const route_spec&);
};
struct bytes_as_number : without_bytes {
  static std::uint64_t bytes(const traffic&, std::uint64_t, std::uint64_t);
};
struct with_state : without_time {  // a route is stateless: its functions are called on the type
  route_time time(link_bytes, const route_spec&);
};
struct changes_machine : without_time {
  static route_time time(link_bytes, route_spec&);
};
struct complete : without_time {
  static route_time time(link_bytes, const route_spec&);
};

static_assert(Transfer<complete>);
static_assert(!Transfer<int> && !Transfer<route_spec>);
static_assert(!Transfer<without_side> && !Transfer<without_bytes> && !Transfer<without_time>);
static_assert(!Transfer<time_as_number> && !Transfer<time_by_conversion> &&
              !Transfer<bytes_as_number>);
static_assert(!Transfer<with_state> && !Transfer<changes_machine>);

// Numbers that divide well: 2 bytes a ns to the host, 4 to the GPU, requests of 1000 bytes.
constexpr route_spec plain{.drive_link = {.bytes_per_s = 2e9, .latency_ns = 30},
                           .gpu_link = {.bytes_per_s = 4e9, .latency_ns = 500},
                           .request_bytes = 1000,
                           .file_system_ns = 70,
                           .nvme_command_ns = 9};

constexpr traffic moved{.pages_read = 3,
                        .pages_written = 1,
                        .array_bytes = 13'000,
                        .channel_bytes = 12'288,
                        .filtered_bytes = 5'000,
                        .buffer_bytes = 712,
                        .written_bytes = 4'096,
                        .link_bytes = 77};

template <class Route>
void check_time(link_bytes bytes, const route_spec& route, double link, double latency,
                double software) {
  CAPTURE(bytes.up);
  CAPTURE(bytes.down);
  const route_time time = Route::time(bytes, route);
  CHECK(time.link_ns == doctest::Approx(link).epsilon(1e-12));
  CHECK(time.latency_ns == doctest::Approx(latency).epsilon(1e-12));
  CHECK(time.software_ns == doctest::Approx(software).epsilon(1e-12));
  CHECK(time.total_ns() == doctest::Approx(link + latency + software).epsilon(1e-12));
}

}  // namespace

TEST_CASE_TEMPLATE("routes to the GPU carry whole pages and what waits in the group buffer", Route,
                   host_bounce, gpu_direct, peer_to_peer) {
  const link_bytes bytes = Route::bytes(moved, 111, 222);
  CHECK(bytes.up == 12'288 + 712);  // over the channels, unfiltered, and buffered
  CHECK(bytes.down == 0);           // the query is on the GPU already
  const link_bytes none = Route::bytes({}, 111, 222);
  CHECK(none.up == 0);
  CHECK(none.down == 0);
}

TEST_CASE("in storage, the query goes down and the output comes up, whatever was read") {
  const link_bytes bytes = in_storage::bytes(moved, 111, 222);
  CHECK(bytes.down == 111);
  CHECK(bytes.up == 222);
  CHECK(in_storage::bytes({}, 111, 222).up == 222);
}

TEST_CASE("host bounce: both links, one after the other, and the file system per request") {
  // 10,000 B / (2 B/ns) + 10,000 B / (4 B/ns) = 5,000 + 2,500; 30 + 500; 10 requests of 70 ns.
  check_time<host_bounce>({.up = 10'000}, plain, 7'500, 530, 700);
  // Down the same way; both directions add up.
  check_time<host_bounce>({.down = 10'000}, plain, 7'500, 530, 700);
  check_time<host_bounce>({.up = 6'000, .down = 4'000}, plain, 7'500, 530, 700);
  // 10,500 B are 10.5 requests; 400 B are still one.
  check_time<host_bounce>({.up = 10'500}, plain, 7'875, 530, 735);
  check_time<host_bounce>({.up = 400}, plain, 300, 530, 70);
  check_time<host_bounce>({.up = 1}, plain, 0.75, 530, 70);
}

TEST_CASE("GPU direct: one link, the same file system") {
  // 10,000 B / (2 B/ns); 30; 10 requests of 70 ns.
  check_time<gpu_direct>({.up = 10'000}, plain, 5'000, 30, 700);
  check_time<gpu_direct>({.up = 9'000, .down = 1'500}, plain, 5'250, 30, 735);
  check_time<gpu_direct>({.up = 400}, plain, 200, 30, 70);
}

TEST_CASE_TEMPLATE("peer to peer and in storage: one link and the first command", Route,
                   peer_to_peer, in_storage) {
  // 10,000 B / (2 B/ns); 30; one command of 9 ns, however many bytes follow.
  check_time<Route>({.up = 10'000}, plain, 5'000, 30, 9);
  check_time<Route>({.up = 3'000, .down = 7'000}, plain, 5'000, 30, 9);
  check_time<Route>({.up = 1'000'000'000}, plain, 5e8, 30, 9);
  check_time<Route>({.down = 1}, plain, 0.5, 30, 9);
}

TEST_CASE_TEMPLATE("nothing to move needs no request", Route, host_bounce, gpu_direct, peer_to_peer,
                   in_storage) {
  const route_time time = Route::time({}, plain);
  CHECK(time.link_ns == 0);
  CHECK(time.software_ns == 0);
}

TEST_CASE("the paper's machine, one MiB") {
  // 1,048,576 B / (7 B/ns) = 149,796.571 ns; / (32 B/ns) = 32,768 ns; latency 2 us a link; 8
  // requests of 128 KiB, 121 us each.
  const link_bytes mib{.up = 1 << 20};
  check_time<host_bounce>(mib, {}, 1'048'576 / 7.0 + 32'768, 4'000, 968'000);
  check_time<gpu_direct>(mib, {}, 1'048'576 / 7.0, 2'000, 968'000);
  check_time<peer_to_peer>(mib, {}, 1'048'576 / 7.0, 2'000, 10'000);
  check_time<in_storage>(mib, {}, 1'048'576 / 7.0, 2'000, 10'000);
}

// InstInfer Fig. 14 and 18: FlexGen's KV cache comes at 0.91 GB/s. A byte takes 1/7 + 1/32 ns on
// the links and 121,000 / 131,072 ns in the file system, 1.0973 ns together: 0.9114 GB/s.
TEST_CASE("calibrated: the rate of FlexGen's route on a large transfer") {
  const link_bytes large{.up = std::uint64_t{10} << 30};
  const double gb_per_s = static_cast<double>(large.up) / host_bounce::time(large, {}).total_ns();
  CHECK(gb_per_s == doctest::Approx(0.91).epsilon(0.01));
  // GDS saves the second link only; the link alone would give 7 GB/s.
  const double direct = static_cast<double>(large.up) / gpu_direct::time(large, {}).total_ns();
  CHECK(direct > gb_per_s);
  CHECK(direct < 1.05 * gb_per_s);
  const double commands = static_cast<double>(large.up) / peer_to_peer::time(large, {}).total_ns();
  CHECK(commands == doctest::Approx(7.0).epsilon(0.001));
}

TEST_CASE_TEMPLATE("more bytes never take less time", Route, host_bounce, gpu_direct, peer_to_peer,
                   in_storage) {
  double before = 0;
  for (std::uint64_t bytes = 1; bytes < (std::uint64_t{1} << 40); bytes += 1 + bytes / 3) {
    CAPTURE(bytes);
    const double ns = Route::time({.up = bytes}, route_spec{}).total_ns();
    CHECK(ns >= before);
    before = ns;
  }
}

TEST_CASE("a machine without rates, or with negative times, is refused") {
  CHECK_NOTHROW(validate(route_spec{}));
  CHECK_NOTHROW(validate(plain));
  CHECK(route_time{}.total_ns() == 0);
  CHECK_NOTHROW(validate(route_spec{.drive_link = {0.5, 0},
                                    .gpu_link = {0.5, 0},
                                    .request_bytes = 0.5,
                                    .file_system_ns = 0,
                                    .nvme_command_ns = 0}));  // a route that costs nothing else
  const auto refused = [](auto&& change) {
    route_spec route;
    change(route);
    CHECK_THROWS_AS(validate(route), bad_argument);
  };
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const double rate : {0.0, -1.0, nan}) {
    CAPTURE(rate);
    refused([&](route_spec& m) { m.drive_link.bytes_per_s = rate; });
    refused([&](route_spec& m) { m.gpu_link.bytes_per_s = rate; });
    refused([&](route_spec& m) { m.request_bytes = rate; });
  }
  for (const double time : {-1.0, nan}) {
    CAPTURE(time);
    refused([&](route_spec& m) { m.drive_link.latency_ns = time; });
    refused([&](route_spec& m) { m.gpu_link.latency_ns = time; });
    refused([&](route_spec& m) { m.file_system_ns = time; });
    refused([&](route_spec& m) { m.nvme_command_ns = time; });
  }
}

}  // namespace instinfer::test_routes
