#pragma once
// What fails on one rank: typed errors on the host, and every rank as before.

#include "instinfer/methods/squeezed.hpp"
#include "tests/cluster/cases.hpp"

namespace instinfer::test {

TEST_CASE("a full drive: the host gets its error with the rank, and every drive is as before") {
  const int full = world_size() - 1;  // the last rank has little memory
  for (const cluster::options& role : roles()) {
    CAPTURE(role.host_holds);
    const auto check = [&](auto split) {
      many<dense, decltype(split)> c(
          MPI_COMM_WORLD, shape,
          [&](const cluster::drive_part& part) {
            store::capacity mine = memory;
            mine.bytes = world_rank() == full ? 4 << 20 : mine.bytes;
            return dense(part.shape, mine);
          },
          split, role);
      on_host(c, [&] {
        dense one(shape, memory);
        beside_one_engine both(c, one, 3, decltype(split)::splits_tokens ? 1e-5 : 0);
        const auto s = both.open();
        both.append_all(s, 90);
        const auto before = s;
        const auto k = both.rows(15'000, 1.0f);
        const auto start_of = [&](const std::string& call) {
          return "rank " + std::to_string(full) + ": " + call + ": ";
        };
        for (int i = 0; i < 2; ++i) {
          try {
            c.append(s.many, 1, k, k);
            FAIL("it has room");
          } catch (const drive_full& e) {
            CAPTURE(e.what());
            CHECK(std::string_view(e.what()).starts_with(start_of("append")));
          }
        }
        both.check_counts(s, 1);
        both.attend({s}, 1, 1);
        both.append_all(before, 7);
        both.attend({s}, 1, 2);

        dense large(shape, {.bytes = 128 << 20, .context_tokens = 1024});
        const sequence of_large = large.open();
        large.append(of_large, 1, k, k);
        std::stringstream file;
        large.save(of_large, file);
        const auto empty = both.open();
        try {
          c.load(empty.many, file);
          FAIL("it has room");
        } catch (const drive_full& e) {
          CAPTURE(e.what());
          CHECK(std::string_view(e.what()).starts_with(start_of("load")));
        }
        both.check_counts(empty, 1);
        both.move_to(s, empty);
        both.attend({empty, s}, 1, 1);
      });
    };
    check(cluster::by_heads{});
    check(cluster::by_tokens{.block = 64});
  }
}

TEST_CASE("a drive that cannot read: the host gets its error, and outputs stay as they were") {
  const int broken = world_size() - 1;
  const auto check = [&](auto split, const cluster::options& role) {
    many<dense, decltype(split)> c(MPI_COMM_WORLD, shape, memory, {}, {}, split, role);
    watched::until_failure = world_rank() == broken ? 2 : 0;
    on_host(c, [&] {
      dense one(shape, memory);
      beside_one_engine both(c, one, 6, decltype(split)::splits_tokens ? 1e-5 : 0);
      const auto s = both.open();
      both.append_all(s, 150);
      both.attend({s}, 0, 1);
      std::vector<float> q(14 * 64, 1.0f), out(14 * 64, 7.0f);
      try {
        c.attend(s.many, 0, q, out);
        FAIL("it can read");
      } catch (const io_error& e) {
        CHECK(std::string(e.what()) ==
              "rank " + std::to_string(broken) + ": page 5 cannot be read");
        CHECK(e.code == 5);
      }
      CHECK(out == std::vector<float>(out.size(), 7.0f));
      both.append_all(s, 1);
      both.attend({s}, 0, 1);
      const attend_request posted{.seq = s.many, .q = q, .out = out};
      c.post(0, {&posted, 1});
      c.close();  // nobody waits for the results
      CHECK(out == std::vector<float>(out.size(), 7.0f));
    });
  };
  for (const cluster::options& role : roles()) {
    check(cluster::by_heads{}, role);
    check(cluster::by_tokens{.block = 16}, role);
  }
}

TEST_CASE("a prefill that fails on one drive: every drive is as before") {
  const int broken = world_size() - 1;
  const auto check = [&](auto split, const cluster::options& role) {
    many<dense, decltype(split)> c(MPI_COMM_WORLD, shape, memory, {}, {}, split, role);
    watched::until_failure = world_rank() == broken ? 2 : 0;
    on_host(c, [&] {
      dense one(shape, memory);
      beside_one_engine both(c, one, 8, decltype(split)::splits_tokens ? 1e-5 : 0);
      const auto s = both.open();
      both.append_all(s, 90);
      const auto k = both.rows(150, 1.0f);
      const std::vector<float> q(150 * 14 * 64, 1.0f);
      std::vector<float> out(q.size(), 7.0f);
      CHECK_THROWS_WITH_AS(c.prefill(s.many, 0, k, k, q, out),  // in its second 64 queries
                           ("rank " + std::to_string(broken) + ": page 5 cannot be read").c_str(),
                           io_error);
      CHECK(out == std::vector<float>(out.size(), 7.0f));
      both.check_counts(s, 0);
      both.attend({s}, 0, 1);
      both.prefill(s, 0, 20, 20);
      both.attend({s}, 0, 2);
    });
  };
  for (const cluster::options& role : roles()) {
    check(cluster::by_heads{}, role);
    check(cluster::by_tokens{.block = 16}, role);
  }
}

TEST_CASE(
    "an index: a prefill builds it on all drives, and settings that contradict it are refused") {
  using clustered = reference::engine<
      design<attention::squeezed, layout::token_indexed<>, flash::instcsd, transfer::in_storage>,
      format>;
  const attention::squeezed few_clusters{.threshold = 0.1, .clusters = 0.2, .window = 8};
  const auto check = [&](auto split, const cluster::options& role) {
    cluster::engine<clustered, decltype(split)> c(MPI_COMM_WORLD, shape, memory, few_clusters, {},
                                                  split, role);
    on_host(c, [&] {
      clustered one(shape, memory, few_clusters);
      beside_one_engine both(c, one, 9);
      const auto s = both.open();  // by sequences, one drive has it and the others have no index
      both.prefill(s, 0, 60, 4);
      both.attend({s}, 0, 1);
      both.prefill(s, 1, 50, 0);
      attention::squeezed other = few_clusters;
      other.clusters = 0.3;
      const auto refused = [&](auto& engine) {
        try {
          engine.set_policy(other);
        } catch (const bad_argument& e) {
          return std::string(e.what());
        }
        return std::string("no error");
      };
      const std::string said = refused(c);
      CHECK(said.starts_with("rank "));
      CHECK(said.ends_with(": " + refused(one)));
      CHECK(c.attention().clusters == few_clusters.clusters);
      both.attend({s}, 0, 1);
      const auto next = both.open();  // every drive still has the old settings
      both.prefill(next, 0, 60, 0);
      both.attend({next, s}, 0, 1);
      both.reclaim(s);
      both.reclaim(next);
      both.set_policy(other);
      const auto last = both.open();
      both.prefill(last, 0, 60, 0);
      both.attend({last}, 0, 1);
    });
  };
  for (const cluster::options& role : roles()) {
    check(cluster::by_heads{}, role);
    check(cluster::by_sequences{}, role);
  }
}

TEST_CASE("bad input gets one engine's error, and the calls of other ranks and orders a sentence") {
  many<dense, cluster::by_heads> c(MPI_COMM_WORLD, shape, memory, {}, {}, {}, {.host_holds = true});
  if (!c.is_host()) {
    CHECK_THROWS_WITH_AS(c.open(), "open: rank 0 calls, the other ranks serve", bad_argument);
  }
  on_host(c, [&] {
    CHECK_THROWS_WITH_AS(c.serve(), "serve: rank 0 is the host, the other ranks serve",
                         bad_argument);
    CHECK_THROWS_WITH_AS(c.wait(), "wait: no attend is posted", bad_argument);
    dense one(shape, memory);
    beside_one_engine both(c, one, 4);
    const auto s = both.open();
    both.append_all(s, 20);
    std::vector<float> q(14 * 64, 1.0f), out(14 * 64, 7.0f);
    const std::vector<fp16> rows(7 * 64);
    const auto same = [&](auto&& call) {
      const auto message = [&](auto& engine, sequence seq) {
        try {
          call(engine, seq);
        } catch (const error& e) {
          return std::string(e.what());
        }
        return std::string("no error");
      };
      CHECK(message(c, s.many) == message(one, s.one));
      CHECK(message(c, s.many) != "no error");
    };
    same([&](auto& e, sequence seq) { e.attend(seq, 2, q, out); });
    same([&](auto& e, sequence seq) { e.attend(seq, 0, std::span(q).first(63), out); });
    same([&](auto& e, sequence seq) { e.append(seq, 0, rows, std::span(rows).first(64)); });
    same([&](auto& e, sequence seq) { e.append(seq, -1, rows, rows); });
    same([&](auto& e, sequence seq) { e.reclaim(seq, store::reclaim_range{.tokens_before = 21}); });
    same([&](auto& e, sequence seq) { e.truncate(seq, 21); });
    same([&](auto& e, sequence seq) { e.prefill(seq, 2, rows, rows, q, out); });
    same([&](auto& e, sequence seq) { e.prefill(seq, 0, rows, {}, q, out); });
    same(
        [&](auto& e, sequence seq) { e.prefill(seq, 0, rows, rows, std::span(q).first(63), out); });
    same([&](auto& e, sequence seq) { e.prefill(seq, 0, {}, {}, q, out); });
    q[100] = std::numeric_limits<float>::infinity();
    same([&](auto& e, sequence seq) { e.attend(seq, 0, q, out); });
    same([&](auto& e, sequence seq) { e.prefill(seq, 0, rows, rows, q, out); });
    both.check_counts(s, 0);
    CHECK(out == std::vector<float>(out.size(), 7.0f));
    q[100] = 1.0f;
    const sequence strange{0, 0, &q};
    CHECK_THROWS_AS(c.attend(strange, 0, q, out), unknown_sequence);
    const attend_request posted{.seq = s.many, .q = q, .out = out};
    c.post(0, {&posted, 1});
    CHECK_THROWS_WITH_AS(c.open(), "open: an attend is posted; wait for it first", bad_argument);
    CHECK(out == std::vector<float>(out.size(), 7.0f));
    c.wait();
    std::vector<float> expected(out.size());
    one.attend(s.one, 0, q, expected);
    CHECK(out == expected);
    same([&](auto& e, sequence seq) {
      const attend_request of_64_tokens{.seq = seq, .q = q, .out = out, .bias = q};
      if constexpr (requires { e.attend({&of_64_tokens, 1}, 0); }) {
        e.attend({&of_64_tokens, 1}, 0);
      } else {
        dense::scratch work;
        e.attend({&of_64_tokens, 1}, 0, work, parallel::serial{});
      }
    });
    c.post(0, {&posted, 1});  // never waited for: close ends it
  });
}

TEST_CASE("ranks that differ are found at construction, by all of them") {
  if (world_size() == 1) {
    using cluster_type = many<dense, cluster::by_heads>;
    CHECK_THROWS_WITH_AS(
        cluster_type(MPI_COMM_WORLD, shape, memory),
        "rank 0: cluster: one rank and a host that holds nothing; start two or more, or set options::host_holds",
        bad_argument);
    return;
  }
  const int odd = world_size() - 1;
  const bool am_odd = world_rank() == odd;
  const auto refused = [&](auto&& construct) {
    try {
      construct();
    } catch (const bad_argument& e) {
      return std::string(e.what());
    }
    return std::string("no error");
  };
  using heads = many<dense, cluster::by_heads>;
  using tokens = many<dense, cluster::by_tokens>;
  const std::string rank = "rank " + std::to_string(odd) + ": ";
  const cluster::options role{.host_holds = true};
  model_shape other_shape = shape;
  other_shape.layers = am_odd ? 3 : 2;
  CHECK(refused([&] { heads c(MPI_COMM_WORLD, other_shape, memory, {}, {}, {}, role); }) ==
        rank + "cluster: this rank has \"layers: 3\", not \"layers: 2\"");
  CHECK(refused([&] {
          tokens c(MPI_COMM_WORLD, shape, memory, {}, {},
                   cluster::by_tokens{.block = am_odd ? 8u : 16u}, role);
        }) == rank +
                  "cluster: this rank has \"split: by_tokens, blocks of 8\", not \"split: "
                  "by_tokens, blocks of 16\"");
  CHECK(refused([&] {
          heads c(MPI_COMM_WORLD, shape, memory, {}, {.soft_cap = am_odd ? 5.0f : 0.0f}, {}, role);
        }) == rank +
                  "cluster: this rank has \"scale, soft cap: 0.000000, 5.000000\", not \"scale, "
                  "soft cap: 0.000000, 0.000000\"");
  CHECK(refused([&] {
          heads c(
              MPI_COMM_WORLD, shape,
              [&](const cluster::drive_part& part) {
                require(!am_odd, [] { return std::string("no such folder"); });
                return dense(part.shape, memory);
              },
              {}, role);
        }) == rank + "no such folder");
  CHECK(refused([&] {
          heads c(
              MPI_COMM_WORLD, shape,
              [&](const cluster::drive_part& part) {
                model_shape mine = part.shape;
                mine.layers += am_odd ? 1 : 0;
                return dense(mine, memory);
              },
              {}, role);
        }).starts_with(rank + "cluster: the drive's engine must have 2 layers, "));
  if (world_size() > 2) {
    model_shape narrow = shape;
    narrow.kv_heads = narrow.q_heads = 2;
    CHECK(refused([&] { heads c(MPI_COMM_WORLD, narrow, memory, {}, {}, {}, role); }) ==
          "rank 0: by_heads: every drive needs a KV head, got " + std::to_string(world_size()) +
              " drives for 2 heads");
  }
}

}  // namespace instinfer::test
