#pragma once
// Messages of clusters: how many, how large, and how much memory they take.

#include "tests/cluster/cases.hpp"

namespace instinfer::test {

TEST_CASE(
    "a batch is one message to each drive and one back, and takes no memory after the first") {
  for (const cluster::options& role : roles()) {
    constexpr int calls = 10;
    watched::at_start.clear();
    watched::at_start.reserve(2 + 3 * calls);
    many<dense, cluster::by_tokens> c(MPI_COMM_WORLD, shape, memory, {}, {},
                                      cluster::by_tokens{.block = 16}, role);
    on_host(c, [&] {
      dense one(shape, memory);
      beside_one_engine both(c, one, 5, 1e-5);
      const auto a = both.open();
      const auto b = both.open();
      both.append_all(a, 200);
      both.append_all(b, 90);
      std::vector<float> q(2 * 14 * 64, 0.5f), out(q.size());
      std::vector<attend_request> batch;
      for (const sequence s : {a.many, b.many}) {
        const std::size_t at = batch.size() * 14 * 64;
        batch.push_back({.seq = s,
                         .q = std::span(q).subspan(at, 14 * 64),
                         .out = std::span(out).subspan(at, 14 * 64)});
      }
      c.attend(batch, 0);
      c.attend(batch, 1);
      const auto before = c.reports();
      const std::int64_t allocated = allocations;
      for (int i = 0; i < calls; ++i) {
        c.post(i % 2, batch);
        c.wait();
      }
      CHECK(allocations == allocated);
      for (std::size_t d = 0; d < before.size(); ++d) {
        const auto& now = c.reports()[d];
        CHECK(now.commands == before[d].commands + calls);
        // q and the outputs, as fp32, log-sum-exp, and at most 512 bytes around them.
        const std::uint64_t values = 2 * 14 * 64 * sizeof(float);
        const std::uint64_t sums = 2 * 14 * sizeof(float);
        const std::uint64_t sent = (now.bytes_sent - before[d].bytes_sent) / calls;
        const std::uint64_t received = (now.bytes_received - before[d].bytes_received) / calls;
        CHECK(sent >= values);
        CHECK(sent <= values + 512);
        CHECK(received >= values + sums);
        CHECK(received <= values + sums + 512);
      }
    });
    // Of this rank, whoever it is: from the third attend to the last.
    const auto& at = watched::at_start;
    if (role.host_holds || world_rank() > 0) {
      REQUIRE(at.size() >= 2 + calls);
      CHECK(at[2 + calls - 1] == at[2]);
    }
  }
}

}  // namespace instinfer::test
