// A drive's calibration: the fit finds the drive that made the samples, the spec reads as fast on
// the flash model, and its file is read back or refused in a sentence.

#include <doctest/doctest.h>

#include <fstream>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "instinfer/ssd/channel/timeline.hpp"
#include "instinfer/ssd/spec/placement.hpp"
#include "support/design_point.hpp"
#include "support/drive_file.hpp"
#include "support/fitted_drive.hpp"
#include "support/parameters.hpp"
#include "tests/support/refusal.hpp"

namespace instinfer::test_drive_file {

using namespace examples;

namespace {

// 8 servers, 100 us a request, 1 GB/s each, 2 GB/s in all.
constexpr drive_rates disk{8, 100e-6, 1e9, 2e9};

std::vector<read_sample> samples_of(const drive_rates& drive) {
  std::vector<read_sample> samples;
  for (const double bytes : {4096.0, 16384.0, 65536.0, 262144.0}) {
    for (const double depth : {1.0, 4.0, 16.0, 64.0}) {
      samples.push_back({bytes, depth, drive.predict(bytes, depth)});
    }
  }
  return samples;
}

// Bytes a second of all pages of `order`, read at once.
double model_rate(const flash::drive_spec& drive, const std::vector<std::uint32_t>& order) {
  flash::timeline<> time(drive.geometry, drive.timing);
  const flash::placement place(drive.geometry);
  std::vector<flash::location> pages;
  for (const std::uint32_t page : order) {
    pages.push_back(place(page_id{page}));
  }
  return static_cast<double>(order.size()) * drive.geometry.page_bytes /
         (static_cast<double>(time.read(pages).makespan_ps()) * 1e-12);
}

nlohmann::json example() { return json_of({.spec = spec_of(disk, 4096, 1 << 30, 1e9)}); }

std::string refusal_with(const char* entry, const nlohmann::json& value) {
  nlohmann::json file = example();
  file[entry] = value;
  return test::refusal_of<error>([&] { (void)drive_of_json(file, "my.json"); });
}

}  // namespace

TEST_CASE("one request at a time takes its own time, and many share the servers and the link") {
  CHECK(disk.predict(4096, 1) == doctest::Approx(4096 / 104.096e-6));
  CHECK(disk.predict(4096, 57) == doctest::Approx(57 / 8.0 * 4096 / 104.096e-6));  // 8 57 / 64
  CHECK(disk.predict(1e6, 64) == doctest::Approx(2e9));
}

TEST_CASE("the fit finds the drive that made the samples, also if one in eight is disturbed") {
  std::vector<read_sample> samples = samples_of(disk);
  for (const bool disturbed : {false, true}) {
    if (disturbed) {
      samples[3].bytes_per_s /= 3;
      samples[9].bytes_per_s /= 2;
    }
    const drive_rates found = fit(samples);
    CHECK(found.servers == 8);
    CHECK(found.request_s == doctest::Approx(100e-6).epsilon(0.03));
    CHECK(found.server_bytes_per_s == doctest::Approx(1e9).epsilon(0.1));
    CHECK(found.link_bytes_per_s == doctest::Approx(2e9).epsilon(0.03));
  }
  CHECK(test::refusal_of<bad_argument>([&] { (void)fit({}); }).find("no samples") !=
        std::string::npos);
  samples[0].bytes_per_s = 0;
  CHECK(test::refusal_of<bad_argument>([&] { (void)fit(samples); }).find("needs bytes") !=
        std::string::npos);
}

TEST_CASE("as flash, scattered pages take a request each and neighbours share one") {
  for (const std::int32_t page_bytes : {4096, 65536}) {
    CAPTURE(page_bytes);
    const flash::drive_spec spec = spec_of(disk, page_bytes, std::uint64_t{8} << 30, 1e9);
    CHECK(spec.geometry.bytes() >= std::int64_t{8} << 30);
    std::vector<std::uint32_t> order(8 * 8192);
    std::iota(order.begin(), order.end(), 0u);
    const double request = std::min(512 << 10, 8 * page_bytes);
    CHECK(model_rate(spec, order) ==
          doctest::Approx(8 * request / (100e-6 + request / 1e9)).epsilon(0.02));
    // One page of each row.
    std::vector<std::uint32_t> scattered;
    for (std::uint32_t i = 0; i < 800; ++i) {
      const auto planes = static_cast<std::uint32_t>(spec.geometry.planes);
      scattered.push_back((i / 8 * planes + i % planes) * 8 + i % 8);
    }
    CHECK(model_rate(spec, scattered) ==
          doctest::Approx(8 * page_bytes / (100e-6 + page_bytes / 1e9)).epsilon(0.02));
  }
  // A bus far above all that was measured: ticks still fit, for millions of pages.
  const drive_rates instant{8, 100e-6, 288'303'123'456.0, 2e9};
  CHECK(spec_of(instant, 4096, 1 << 30, 1e9).timing.bus_bytes_per_s == 288'000'000'000);
  CHECK(model_rate(spec_of(instant, 4096, 1 << 30, 1e9), std::vector<std::uint32_t>(100'000)) > 0);
  // 8 channels of a row of 32 KiB: 256 KiB a round, at 1 GB/s in all.
  const flash::drive_spec spec = spec_of(disk, 4096, 1 << 30, 1e9);
  CHECK(static_cast<double>(spec.timing.program_ps) * 1e-12 ==
        doctest::Approx(262144e-9 - 32768e-9));
}

TEST_CASE("a drive file is read back, and refused with the entry that is wrong") {
  const flash::drive_spec spec = spec_of(disk, 4096, 1 << 30, 1e9);
  nlohmann::json file = json_of({.spec = spec, .pair = flash::pairing::any});
  file["samples"] = {1, 2};
  const drive_file back = drive_of_json(file, "my.json");
  CHECK(back.spec == spec);
  CHECK(back.pair == flash::pairing::any);

  CHECK(refusal_with("kind", "plan").find("my.json: not a drive file") != std::string::npos);
  CHECK(refusal_with("planes", "4").find("planes must be an integer, got \"4\"") !=
        std::string::npos);
  CHECK(refusal_with("read_ps", 1.5).find("read_ps must be an integer") != std::string::npos);
  CHECK(refusal_with("channels", 5'000'000'000).find("channels is out of range") !=
        std::string::npos);
  CHECK(refusal_with("channels", 0).find("my.json: flash geometry: channels") != std::string::npos);
  CHECK(refusal_with("pairing", 7).find("pairing must be") != std::string::npos);
  file.erase("dram_bytes");
  CHECK(test::refusal_of<bad_file>([&] {
          (void)drive_of_json(file, "x");
        }).find("dram_bytes must be an integer, it is missing") != std::string::npos);
  CHECK(test::refusal_of<bad_file>([&] { (void)read_drive_file("not-there.json"); }) ==
        "not-there.json: cannot be read");
}

TEST_CASE("the sweep takes a drive file by its name") {
  const flash::drive_spec spec = spec_of(disk, 4096, std::uint64_t{4} << 30, 1e9);
  add_drive("disk.json", spec);
  const parameter& drive = parameter_of("drive");
  CHECK(value_list::of(drive, "instcsd,disk.json").size() == 2);
  design_point point;
  drive.set(point, "disk.json");
  point.route = "peer_to_peer";
  point.attention = "dense";
  point.layout = "token_indexed";
  point.layers = 1;
  point = resolved(point);
  CHECK(drive_of(point) == spec);
  const step_cost cost = cost_of(point);
  // 8 heads of a batch of 8, 40 x 2048 tokens of 512 bytes: every row whole.
  const double bytes = 8.0 * 40 * 2048 * 512;
  CHECK(cost.step.traffic.array_bytes == bytes);
  CHECK(bytes / (cost.step.total_ns() * 1e-9) == doctest::Approx(1.97e9).epsilon(0.05));
}

}  // namespace instinfer::test_drive_file
