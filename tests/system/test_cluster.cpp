// Drives over many hosts: one host is the system itself; an infinite network leaves its commands;
// the rest by hand.

#include <doctest/doctest.h>

#include "instinfer/codec/scaled_pages.hpp"
#include "instinfer/system/cluster.hpp"
#include "instinfer/system/run.hpp"
#include "instinfer/system/spec/models.hpp"

namespace instinfer::test_cluster {

using namespace system;

namespace {

static_assert(System<cluster_system<>>);

// 4 KV heads of 2 query heads each, 2 layers.
constexpr model_spec small() {
  model_spec model = llama3_8b;
  model.name = "small";
  model.shape = {.layers = 2, .q_heads = 8, .kv_heads = 4};
  model.hidden = 1024;
  model.ffn = 2048;
  return model;
}
constexpr workload job{.batch = 16, .input_tokens = 1'024, .output_tokens = 64};

insta_system<> drives(int count) {
  return {small(), {.drives = count, .weights = weights_at::gpu}, job};
}
double step_s(const auto& s) { return s.step(1'040).time.total_s(); }

}  // namespace

TEST_CASE("one host is the system itself, whatever the network") {
  const insta_system<> alone = drives(8);
  const cluster_system<> one(alone, 1, home_fibre);
  CHECK(step_s(one) == step_s(alone));
  CHECK(one.prefill().total_s == alone.prefill().total_s);
  CHECK(run(one).tokens_per_s() == run(alone).tokens_per_s());
}

TEST_CASE("an infinite network leaves the commands, which the hosts send side by side") {
  const insta_system<> alone = drives(16);
  const cluster_system<> many(alone, 8, no_network);
  const decode_step a = alone.step(1'040);
  const decode_step m = many.step(1'040);
  CHECK(many.network_s(m) == 0);
  CHECK(m.time.command_s == doctest::Approx(a.time.command_s / 8));
  CHECK(m.time.total_s() ==
        doctest::Approx(a.time.total_s() - a.time.command_s + a.time.command_s / 8));
  CHECK(many.prefill().total_s == doctest::Approx(alone.prefill().total_s));
}

TEST_CASE("network time by hand") {
  // 16 drives: 4 heads x 4 groups of sequences, 4 hosts. A layer: 16 sequences x (2 x 1024 q and
  // out + 2 x 512 k, v) x 2 B.
  const double bytes = 2.0 * 16 * (2 * 1'024 + 2 * 512) * 2;
  const network_spec slow{"slow", 1e6, 2e6, 1e6};
  const cluster_system<> s(drives(16), 4, slow);
  CHECK(s.hosts_used() == 4);
  const decode_step step = s.step(1'040);
  CHECK(step.bytes.drive_link == doctest::Approx(bytes));
  // The head's link carries three quarters at 2 MB/s, a host's a quarter at 1 MB/s; 2 layers x
  // there and back.
  CHECK(s.network_s(step) == doctest::Approx(bytes * 0.75 / 2e6 + 2 * 2 * 1e-3));
  const network_spec slow_hosts{"slow hosts", 1e5, 2e6, 0};
  CHECK(cluster_system<>(drives(16), 4, slow_hosts).network_s(step) ==
        doctest::Approx(bytes * 0.25 / 1e5));
}

TEST_CASE("a better network is never slower, and prompts wait for a bad one") {
  double before = 1e300;
  for (double rate = 1e6; rate < 1e12; rate *= 10) {
    const cluster_system<> s(drives(16), 8, {"net", rate, rate, 1e12 / rate});
    CHECK(step_s(s) <= before);
    before = step_s(s);
  }
  CHECK(cluster_system<>(drives(16), 8, {"net", 1e6, 1e6, 0}).prefill().total_s >
        drives(16).prefill().total_s);
}

TEST_CASE("drives beyond heads times sequences stand idle, and so do their hosts") {
  const cluster_system<> s(drives(128), 64, fabric_400g);
  CHECK(s.inside().kv().split().drives_used() == 64);
  CHECK(s.hosts_used() == 32);
}

TEST_CASE("hosts without a drive, or a network without a rate, are refused") {
  CHECK_THROWS_WITH_AS(cluster_system<>(drives(2), 3, fabric_400g),
                       doctest::Contains("at most the 2 drives, got 3"), bad_argument);
  CHECK_THROWS_WITH_AS(cluster_system<>(drives(2), 0, fabric_400g), doctest::Contains("got 0"),
                       bad_argument);
  CHECK_THROWS_WITH_AS(cluster_system<>(drives(2), 2, {"none", 0, 1, 0}),
                       doctest::Contains("network_spec none"), bad_argument);
}

TEST_CASE("int8 pages: half the bytes, 16/31 of the pages") {
  // 31 tokens and a scale in 4 KiB, where fp16 has 16.
  using int8_kv = kv_format<int8_pages<fp16>, 128>;
  model_spec narrow = small();
  narrow.kv_element_bytes = 1;
  CHECK(narrow.kv_bytes_per_token() == small().kv_bytes_per_token() / 2);
  CHECK(narrow.weight_bytes() == small().weight_bytes());
  const server on{.drives = 1, .weights = weights_at::gpu};
  const insta_system<> wide(small(), on, job);
  const insta_system<insta, int8_kv> half(narrow, on, job);
  CHECK(half.step(1'088).bytes.flash_read ==
        doctest::Approx(wide.step(1'088).bytes.flash_read * 16 / 31).epsilon(0.02));
  CHECK(half.step(1'088).time.kv_drive_s < wide.step(1'088).time.kv_drive_s);
  CHECK(half.memory().drive.needed_bytes == wide.memory().drive.needed_bytes / 2);
  // A format of another width than the model's is refused.
  CHECK_THROWS_WITH_AS((insta_system<insta, int8_kv>(small(), on, job)),
                       doctest::Contains("dims of 2 bytes, the format has 128 of 1"), bad_argument);
}

}  // namespace instinfer::test_cluster
