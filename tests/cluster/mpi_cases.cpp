// Engines over MPI against one engine. Every rank runs the same cases; rank 0 checks results, all
// ranks check what the construction refuses. tests/cluster/run starts it under mpirun. With a
// first argument `kill` or `leave`, a rank ends in the middle of a call instead.

#define DOCTEST_CONFIG_IMPLEMENT
#include "beside_one_engine.hpp"

#include <csignal>
#include <sstream>
#include <string_view>

#include "instinfer/flash.hpp"
#include "tests/support/counted_allocations.hpp"
#include "tests/support/shared_attends.hpp"

namespace {

using namespace instinfer;
using test::beside_one_engine;
using test::on_host;
using test::world_rank;
using test::world_size;

using format = kv_format<fp16, 64>;
using dense = cpu::engine<insta, format>;
using sparf = cpu::engine<insta_sparf, format>;

// 7 KV heads on 1 to 5 drives, two query heads each.
constexpr model_shape shape{.layers = 2, .q_heads = 14, .kv_heads = 7};
const store::capacity memory{.bytes = 24 << 20, .context_tokens = 1024};

// The allocations of this rank at the start of each attend, which may fail.
struct watched {
  static inline std::vector<std::int64_t> at_start;
  static inline int until_failure = 0;  // the first to count down to 0 fails
  std::size_t workers() const { return 1; }
  template <class Task>
  void for_each(std::size_t count, Task&& task) const {
    if (at_start.size() < at_start.capacity()) {
      at_start.push_back(test::allocations);
    }
    if (until_failure > 0 && --until_failure == 0) {
      throw io_error("page 5 cannot be read", 5);
    }
    parallel::serial{}.for_each(count, task);
  }
};

template <class Engine, class Split>
using many = cluster::engine<Engine, Split, watched>;

std::vector<cluster::options> roles() {
  std::vector<cluster::options> both{{.host_holds = true}};
  if (world_size() > 1) {
    both.push_back({.host_holds = false});
  }
  return both;
}

template <class Engine, class Split>
void check_life(const Split& split, double tolerance, const logit_rule& logits = {}) {
  for (const cluster::options& role : roles()) {
    CAPTURE(role.host_holds);
    if constexpr (requires { split.head_groups; }) {
      if ((world_size() - (role.host_holds ? 0 : 1)) % split.head_groups != 0) {
        continue;
      }
    }
    many<Engine, Split> c(MPI_COMM_WORLD, shape, memory, {}, logits, split, role);
    on_host(c, [&] {
      Engine one(shape, memory, {}, logits);
      beside_one_engine both(c, one, 1, tolerance);
      const auto a = both.open();
      const auto b = both.open();
      both.attend({a, b}, 0, 1);  // nothing there
      both.append_all(a, 333);
      both.append_all(b, 1);
      both.append(b, 1, 70);
      CHECK(both.attend({a, b}, 0, 1).filtered_bytes > 0);
      both.attend({b, a}, 1, 3);
      both.attend({a}, 1, 5, false);
      both.attend({a, b}, 1, 2, true, true);
      both.attend({a}, 0, 3, false, true);
      const auto f = both.fork(a);
      const auto g = both.open();
      both.append_all(f, 40);
      both.append_all(g, 200);
      both.attend({g, f, a, b}, 0, 1);
      both.reclaim(a, store::reclaim_range{.tokens_before = 100});
      both.reclaim(f, store::reclaim_range{.first_layer = 1, .tokens_before = 201});
      both.check_counts(a, 0);
      both.check_counts(f, 0);
      both.check_counts(f, 1);
      both.attend({a, f}, 0, 2);
      both.attend({f, a}, 0, 2, true, true);
      both.attend({a, f}, 1, 1);
      both.truncate(f, 350);
      both.append_all(f, 3);
      both.attend({f}, 0, 3);
      both.reclaim(b);
      const auto again = both.open();  // in b's slot
      both.append_all(again, 64);
      both.attend({again, g}, 1, 1);
      CHECK_THROWS_AS(c.tokens(b.many, 0), unknown_sequence);
    });
  }
}

}  // namespace

TEST_CASE("by_heads has the bits of one engine: dense, and SparF with shared choices") {
  if (world_size() <= 7) {
    check_life<dense>(cluster::by_heads{}, 0);
    check_life<sparf>(cluster::by_heads{}, 0);
  }
}

TEST_CASE("by_heads gives each drive the logit rule of its own heads") {
  std::vector<float> slopes, sinks;
  for (int h = 0; h < 14; ++h) {
    slopes.push_back(0.01f * static_cast<float>(h));
  }
  for (int h = 0; h < 28; ++h) {
    sinks.push_back(0.5f * static_cast<float>(h % 5));
  }
  check_life<dense>(cluster::by_heads{}, 0,
                    {.window = 60, .sinks = 4, .slopes = slopes, .sink_logits = sinks});
}

TEST_CASE("by_sequences has the bits of one engine") {
  check_life<dense>(cluster::by_sequences{}, 0);
  check_life<sparf>(cluster::by_sequences{}, 0);
}

TEST_CASE("by_heads_and_sequences has the bits of one engine") {
  check_life<dense>(cluster::by_heads_and_sequences{.head_groups = 2}, 0);
}

TEST_CASE("by_tokens is within rounding of one engine") {
  // Each output is a mean of up to 400 values, summed in another order: 2^-24 times a few tens.
  check_life<dense>(cluster::by_tokens{.block = 16}, 1e-5);
  check_life<dense>(cluster::by_tokens{.block = 1}, 1e-5);
  check_life<dense>(cluster::by_tokens{.block = 1000}, 1e-5);  // most drives have nothing
}

TEST_CASE("by_heads_and_tokens is within rounding of one engine") {
  check_life<dense>(cluster::by_heads_and_tokens{.head_groups = 2, .block = 16}, 1e-5);
}

TEST_CASE("by_tokens refuses rules that need a token's distance, on all ranks") {
  using cluster_type = many<dense, cluster::by_tokens>;
  CHECK_THROWS_WITH_AS(
      cluster_type(MPI_COMM_WORLD, shape, memory, {}, {.window = 8}, {}, {.host_holds = true}),
      "rank 0: cluster: where tokens are split, a drive does not know the distances of its tokens; logit_rule must have no window, slopes, distance_bias and sink_logits",
      bad_argument);
}

TEST_CASE("a file loads on the same split, and by_sequences on another number of drives") {
  const cluster::options role{.host_holds = true};
  std::stringstream by_heads, by_sequence;
  std::vector<float> q(14 * 64, 0.25f), expected(q.size());
  const auto save_to = [&](auto& c, std::ostream& file) {
    on_host(c, [&] {
      dense one(shape, memory);
      beside_one_engine both(c, one, 2);
      const auto s = both.open();
      both.append_all(s, 150);
      both.reclaim(s, store::reclaim_range{.tokens_before = 30});
      one.attend(s.one, 1, q, expected);
      c.save(s.many, file, "tiny");
    });
  };
  const auto load_from = [&](auto& c, std::istream& file, std::istream& other) {
    on_host(c, [&] {
      const sequence s = c.open();
      std::vector<float> out(q.size());
      CHECK_THROWS_WITH_AS(c.load(s, file, "big"),
                           "load: the file has model \"tiny\", the cluster \"big\"", bad_file);
      file.seekg(0);
      CHECK_THROWS_AS(c.load(s, other, "tiny"), bad_file);
      c.load(s, file, "tiny");
      CHECK(c.tokens(s, 1) == 120);
      CHECK(c.positions(s, 0) == 150);
      c.attend(s, 1, q, out);
      CHECK(out == expected);
      CHECK_THROWS_WITH_AS(c.load(s, file, "tiny"),
                           "load: the sequence has 150 tokens already; open another one",
                           bad_argument);
    });
  };
  {
    many<dense, cluster::by_heads> c(MPI_COMM_WORLD, shape, memory, {}, {}, {}, role);
    save_to(c, by_heads);
  }
  {
    many<dense, cluster::by_heads> c(MPI_COMM_WORLD, shape, memory, {}, {}, {}, role);
    std::string bytes = by_heads.str();
    if (!bytes.empty()) {
      bytes[bytes.size() - 9] ^= 1;  // found by the last drive; the others have loaded theirs
    }
    std::istringstream damaged(bytes);
    load_from(c, by_heads, damaged);
  }
  MPI_Comm fewer;  // the first ranks: one less than all
  const bool in = world_rank() < std::max(1, world_size() - 1);
  MPI_Comm_split(MPI_COMM_WORLD, in ? 0 : MPI_UNDEFINED, world_rank(), &fewer);
  if (in) {
    many<dense, cluster::by_sequences> c(fewer, shape, memory, {}, {}, {}, role);
    save_to(c, by_sequence);
  }
  {
    many<dense, cluster::by_sequences> c(MPI_COMM_WORLD, shape, memory, {}, {}, {}, role);
    std::istringstream other_split(by_heads.str());
    load_from(c, by_sequence, other_split);
  }
  if (in) {
    if (world_size() > 1) {
      many<dense, cluster::by_heads> c(fewer, shape, memory, {}, {}, {}, role);
      on_host(c, [&] {
        const sequence s = c.open();
        std::istringstream file(by_heads.str());
        const std::string expected_start =
            "load: the file has parts of " + std::to_string(world_size()) +
            " drives, the sequence is on " + std::to_string(world_size() - 1);
        try {
          c.load(s, file, "tiny");
          FAIL("loaded");
        } catch (const bad_file& e) {
          CHECK(std::string_view(e.what()).starts_with(expected_start));
        }
      });
    }
    MPI_Comm_free(&fewer);
  }
}

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
        const std::string start = "rank " + std::to_string(full) + ": append: ";
        for (int i = 0; i < 2; ++i) {
          try {
            c.append(s.many, 1, k, k);
            FAIL("it has room");
          } catch (const drive_full& e) {
            CAPTURE(e.what());
            CHECK(std::string_view(e.what()).starts_with(start));
          }
        }
        both.check_counts(s, 1);
        both.attend({s}, 1, 1);
        both.append_all(before, 7);
        both.attend({s}, 1, 2);
      });
    };
    check(cluster::by_heads{});
    check(cluster::by_tokens{.block = 16});
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

TEST_CASE("of engines that model time, a receipt has the time of the slowest drive") {
  using timed = flash::engine<insta, format>;  // holds no data
  for (const cluster::options& role : roles()) {
    cluster::engine<timed, cluster::by_heads> c(MPI_COMM_WORLD, shape, memory, {}, {}, {}, role);
    on_host(c, [&] {
      const int drives = world_size() - (role.host_holds ? 0 : 1);
      const int heads = (7 + drives - 1) / drives;
      timed slowest({.layers = 2, .q_heads = 2 * heads, .kv_heads = heads}, memory);
      const auto rows = [](int n) { return std::vector<fp16>(static_cast<std::size_t>(n) * 64); };
      const sequence many_seq = c.open();
      const sequence one_seq = slowest.open();
      const auto written = c.append(many_seq, 0, rows(300 * 7), rows(300 * 7));
      const double write_ns =
          slowest.append(one_seq, 0, rows(300 * heads), rows(300 * heads)).total_ns();
      CHECK(written.modelled_ns == doctest::Approx(write_ns));
      std::vector<float> q(14 * 64, 1.0f), out(q.size());
      const double attend_ns =
          slowest
              .attend(one_seq, 0, std::span(q).first(static_cast<std::size_t>(heads) * 128),
                      std::span(out).first(static_cast<std::size_t>(heads) * 128))
              .total_ns();
      const auto done = c.attend(many_seq, 0, q, out);
      CHECK(attend_ns > 0);
      CHECK(done.modelled_ns == doctest::Approx(attend_ns));
      CHECK(done.traffic.link_bytes == 2 * 14 * 64 * sizeof(fp16));  // q down, outputs up
    });
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
    q[100] = std::numeric_limits<float>::infinity();
    same([&](auto& e, sequence seq) { e.attend(seq, 0, q, out); });
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
      const std::int64_t allocated = test::allocations;
      for (int i = 0; i < calls; ++i) {
        c.post(i % 2, batch);
        c.wait();
      }
      CHECK(test::allocations == allocated);
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

namespace {

// A rank ends while the host waits for it.
int end_a_rank(std::string_view how) {
  many<dense, cluster::by_heads> c(MPI_COMM_WORLD, shape, memory);
  if (c.is_host()) {
    const sequence s = c.open();
    const std::vector<fp16> rows(7 * 64);
    c.append(s, 0, rows, rows);
    for (;;) {
      std::vector<float> q(14 * 64), out(14 * 64);
      c.attend(s, 0, q, out);
    }
  }
  if (world_rank() == 1) {
    if (how == "leave") {
      return 0;
    }
    std::raise(SIGKILL);
  }
  c.serve();
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const cluster::session mpi(&argc, &argv);
  if (argc == 2 && (std::string_view(argv[1]) == "kill" || std::string_view(argv[1]) == "leave")) {
    return end_a_rank(argv[1]);
  }
  return doctest::Context(argc, argv).run();
}
