// The flash path: computes as the compute paths do, charges exactly the planned pages, and its times obey what every
// model of a drive must.

#include <doctest/doctest.h>

#include <array>
#include <map>
#include <random>
#include <tuple>
#include <vector>

#include "flash/trace_bars.hpp"
#include "instinfer/cpu.hpp"
#include "instinfer/flash/engine.hpp"
#include "instinfer/reference.hpp"
#include "instinfer/ssd/report/chrome_trace.hpp"
#include "paths/random_cache.hpp"
#include "paths/watched.hpp"

using namespace instinfer;

namespace {

using format = kv_format<fp16, 64>;
constexpr int dim = 64;
constexpr model_shape shape{.layers = 2, .q_heads = 6, .kv_heads = 2};  // GQA 3
const store::capacity capacity{.bytes = 16 << 20, .context_tokens = 512};

std::uint64_t charged_pages(const flash::receipt& done) {
  std::uint64_t pages = 0;
  for (const flash::phase_ns& phase : done.phases) {
    pages += phase.pages;
  }
  return pages;
}

double flash_ns(const flash::receipt& done) {
  double sum = 0;
  for (const flash::phase_ns& phase : done.phases) {
    sum += phase.flash;
  }
  return sum;
}

void check_same(const flash::receipt& a, const flash::receipt& b) {
  CHECK(a.traffic == b.traffic);
  CHECK(a.link_ns == b.link_ns);
  CHECK(a.flash_write_ns == b.flash_write_ns);
  REQUIRE(a.phases.size() == b.phases.size());
  for (std::size_t i = 0; i < a.phases.size(); ++i) {
    CHECK(a.phases[i].op == b.phases[i].op);
    CHECK(a.phases[i].pages == b.phases[i].pages);
    CHECK(a.phases[i].total() == b.phases[i].total());
  }
}

// What a machine planned, in order, with nothing left out.
struct planned_read {
  stream kind;
  std::uint32_t token_tile, dim_tile;
  page_id page;
  bool buffered;
  std::vector<index_run> tokens, dims;
  friend bool operator==(const planned_read&, const planned_read&) = default;
};

std::vector<planned_read> planned(const test::recorder& seen) {
  std::vector<planned_read> all;
  for (const test::head_record& head : seen.heads) {
    for (const access_plan& plan : head.plans) {
      for (const page_read& read : plan.reads()) {
        const auto tokens = plan.tokens(read).runs();
        const auto dims = plan.dims(read).runs();
        all.push_back({read.kind,
                       read.token_tile,
                       read.dim_tile,
                       read.page,
                       read.buffered,
                       {tokens.begin(), tokens.end()},
                       {dims.begin(), dims.end()}});
      }
    }
  }
  return all;
}

// The attend of an engine's own path, watched.
template <class Inner>
test::recorder watch(const Inner& inner, sequence seq, int layer, std::span<const float> q) {
  test::recorder seen(inner.cache().shape().kv_heads);
  typename Inner::scratch work;
  std::vector<float> out(q.size());
  inner.attend(seq, layer, q, out, work, parallel::serial{}, seen);
  return seen;
}

using place = std::array<std::int32_t, 4>;  // channel, chip, die, plane

std::map<place, int> places(const std::map<page_id, int>& pages, const flash::geometry& g) {
  const flash::placement where{g};
  std::map<place, int> all;
  for (const auto& [page, n] : pages) {
    const flash::location at = where(page);
    all[{at.channel, at.chip, at.die, at.plane}] += n;
  }
  return all;
}

std::vector<test::trace_bar> bars_of(const flash::chrome_trace& trace) {
  return test::read_bars(trace.json());
}

// The array reads of a trace by the plane that did them.
std::map<place, int> places(const std::vector<test::trace_bar>& bars) {
  std::map<place, int> all;
  for (const test::trace_bar& bar : bars) {
    if (bar.name == "array read") {
      place at{};
      REQUIRE(std::sscanf(bar.group.c_str(), "channel %d", &at[0]) == 1);
      REQUIRE(std::sscanf(bar.row.c_str(), "chip %d die %d plane %d", &at[1], &at[2], &at[3]) == 3);
      ++all[at];
    }
  }
  return all;
}

// A decode on four engines at once: timed and plain, on the CPU and the reference path.
template <class D>
void check_decode(unsigned seed) {
  CAPTURE(seed);
  const test::random_cache<format> data(seed, 420, shape.q_heads, shape.kv_heads);
  flash::engine<D, format, cpu::path> timed(shape, capacity);
  cpu::engine<D, format> plain(shape, capacity);
  flash::engine<D, format, reference::path> timed_exact(shape, capacity);
  reference::engine<D, format> exact(shape, capacity);
  const auto with_all = [&](auto&& f) {
    return std::tuple{f(timed), f(plain), f(timed_exact), f(exact)};
  };
  const auto opened = with_all([](auto& engine) { return engine.open(); });
  const sequence t = std::get<0>(opened);
  for (const sequence other : {std::get<1>(opened), std::get<2>(opened), std::get<3>(opened)}) {
    REQUIRE(other == t);
  }

  std::array<std::vector<float>, 4> out;
  for (std::vector<float>& o : out) {
    o.assign(static_cast<std::size_t>(shape.q_heads * dim), -1.0f);
  }
  int tokens = 0;
  for (int step = 0; step <= 60; ++step) {
    const int layer = step % 2;
    CAPTURE(step);
    const int more = step == 0   ? 0
                     : step <= 2 ? 300
                                 : 1 + step % 3;  // nothing, a prompt a layer, a decode
    const int first = step <= 2 ? 0 : tokens;
    tokens = step <= 2 ? more : tokens + more;
    for (int l = step <= 2 ? layer : 0; l <= (step <= 2 ? layer : 1); ++l) {
      const auto [a, b, c, d] = with_all([&](auto& engine) {
        return engine.append(t, l, data.k_tokens(first, tokens), data.v_tokens(first, tokens));
      });
      CHECK(a.traffic == b.traffic);
      CHECK(a.traffic == c.traffic);
      CHECK(a.traffic == d.traffic);
      CHECK((a.total_ns() > 0) == (tokens > first));
    }
    if (step == 40) {
      with_all([&](auto& engine) {
        engine.reclaim(t, {.first_layer = 0, .last_layer = 2, .tokens_before = 77});
        return 0;
      });
    }
    if (step > 2 && step % 4 > 1) {
      continue;
    }
    flash::chrome_trace trace;
    const flash::receipt a = timed.attend(t, layer, data.q, out[0], &trace);
    const receipt b = plain.attend(t, layer, data.q, out[1]);
    const flash::receipt c = timed_exact.attend(t, layer, data.q, out[2]);
    const receipt d = exact.attend(t, layer, data.q, out[3]);
    CHECK(out[0] == out[1]);
    CHECK(out[2] == out[3]);
    CHECK(a.traffic == b.traffic);
    CHECK(a.traffic == c.traffic);
    CHECK(a.traffic == d.traffic);
    check_same(a, c);  // the same pages take the same time

    const test::recorder mine = watch(timed.inner(), t, layer, data.q);
    const test::recorder theirs = watch(exact, t, layer, data.q);
    std::uint64_t planned_pages = 0;
    for (const auto& [page, n] : mine.pages()) {
      planned_pages += static_cast<std::uint64_t>(n);
    }
    CHECK(charged_pages(a) == a.traffic.pages_read);
    CHECK(charged_pages(a) == planned_pages);
    CHECK(mine.pages() == theirs.pages());
    CHECK(planned(mine) == planned(theirs));
    CHECK(planned(mine) == planned(watch(plain, t, layer, data.q)));
    // The timeline's array reads are those pages, plane by plane.
    CHECK(places(bars_of(trace)) == places(mine.pages(), timed.drive().geometry));
  }
}

// A drawn engine that holds `tokens` in one sequence of one layer.
template <class D, class Format = format>
struct random_cache {
  using engine_type = flash::engine<D, Format>;
  engine_type engine;
  std::vector<float> q;
  std::vector<float> out;

  explicit random_cache(const flash::drive_spec& drive = D::drive,
                        const model_shape& heads = {1, 6, 2})
      : engine(heads, {.bytes = 256 << 20, .context_tokens = 2048}, {}, {}, drive),
        q(static_cast<std::size_t>(heads.q_heads * Format::k_dim), 1.0f),
        out(static_cast<std::size_t>(heads.q_heads * Format::v_dim), -1.0f) {}

  sequence filled(std::uint64_t tokens) {
    const sequence seq = engine.open();
    engine.append_count(seq, 0, tokens);
    return seq;
  }
  flash::receipt attend(sequence seq) { return engine.attend(seq, 0, q, out); }
  flash::receipt attend_all(std::span<const sequence> all) {
    std::vector<typename engine_type::request> batch;
    for (const sequence seq : all) {
      batch.push_back({seq, q, out});
    }
    return engine.attend_batch(0, batch);
  }
};

template <class D>
flash::receipt one_attend(std::uint64_t tokens, const flash::drive_spec& drive = D::drive) {
  random_cache<D> cache(drive);
  return cache.attend(cache.filled(tokens));
}

static_assert(Engine<flash::engine<insta>> && Engine<flash::engine<flexgen_sparq, format>>);
static_assert(Engine<flash::engine<insta_sparf, format, cpu::path>> &&
              Engine<flash::engine<insta_sparf, format, reference::path, flash::command_first>>);

// Sealed pages that a head's selection touches, from the layout's own words: groups of `group` tokens, dim pages of
// `dims` x `run` tokens.
std::uint64_t pages_of(const test::head_record& head, bool dual, std::uint32_t tokens,
                       const layout::tiling& tiles) {
  const auto touched = [](const std::vector<int>& chosen, std::uint32_t tile,
                          std::uint32_t tiles_sealed) {
    std::set<std::uint32_t> all;
    for (const int i : chosen) {
      if (const std::uint32_t at = static_cast<std::uint32_t>(i) / tile; at < tiles_sealed) {
        all.insert(at);
      }
    }
    return static_cast<std::uint64_t>(all.size());
  };
  using attention::operation;
  const auto chosen = [&](operation op) { return head.chosen[static_cast<int>(op)].at(0); };
  const std::uint32_t group = tiles.v_by_token.tokens;
  const auto& folded = dual ? chosen(operation::top_tokens) : chosen(operation::all_tokens);
  std::uint64_t pages = 2 * touched(folded, group, tokens / group);  // K and V
  if (dual) {
    const layout::tile& k = tiles.k_by_dim;
    pages += touched(chosen(operation::top_dims), k.dims, UINT32_MAX) *
             touched(chosen(operation::all_tokens), k.tokens, tokens / k.tokens);
  }
  return pages;
}

template <class D>
void check_drawn() {
  constexpr bool sparse = !std::is_same_v<typename D::attention_policy, attention::dense>;
  for (const std::uint32_t tokens : {0u, 1u, 31u, 32u, 33u, 511u, 512u, 700u, 2500u}) {
    CAPTURE(tokens);
    random_cache<D> cache;
    const sequence seq = cache.filled(tokens);
    const flash::receipt done = cache.attend(seq);
    CHECK(cache.out == std::vector<float>(cache.out.size(), 0.0f));
    const test::recorder seen = watch(cache.engine.inner(), seq, 0, cache.q);
    std::uint64_t pages = 0;
    std::map<page_id, int> once;
    for (const test::head_record& head : seen.heads) {
      pages += pages_of(head, sparse, tokens, cache.engine.inner().cache().tiles());
      for (const auto& [page, n] : head.pages) {
        CHECK(++once[page] == 1);  // heads share no page
        CHECK(n == 1);             // no page is read twice by one operation, and K lies twice
      }
      if constexpr (sparse) {
        const typename D::attention_policy policy;
        CHECK(head.chosen[static_cast<int>(attention::operation::top_dims)].at(0).size() ==
              policy.keep_dims.of(dim, "dims"));
        const auto& kept = head.chosen[static_cast<int>(attention::operation::top_tokens)].at(0);
        REQUIRE(kept.size() == policy.keep_tokens.of(tokens, "tokens"));
        const std::uint32_t local =
            policy.local.of(static_cast<std::uint32_t>(kept.size()), "local");
        for (std::uint32_t i = 0; i < local; ++i) {  // the newest are kept
          CHECK(kept[kept.size() - 1 - i] == static_cast<int>(tokens - 1 - i));
        }
      }
    }
    CHECK(charged_pages(done) == pages);
    CHECK(done.traffic.pages_read == pages);
    check_same(done, cache.attend(seq));      // again
    check_same(done, one_attend<D>(tokens));  // elsewhere
    if constexpr (!sparse) {                  // nothing to draw: as with data
      flash::engine<D, format, cpu::path> with_data({1, 6, 2},
                                                    {.bytes = 256 << 20, .context_tokens = 2048});
      const test::random_cache<format> data(5, static_cast<int>(tokens), 6, 2);
      const sequence real = with_data.open();
      with_data.append(real, 0, data.k, data.v);
      std::vector<float> out(6 * dim);
      check_same(done, with_data.attend(real, 0, data.q, out));
    }
  }
}

}  // namespace

TEST_CASE_TEMPLATE(
    "flash engine: a decode computes as the path it times, and charges the planned pages", D, insta,
    insta_sparf, flexgen, flexgen_sparq) {
  for (const unsigned seed : {21u, 22u}) {
    check_decode<D>(seed);
  }
}

TEST_CASE_TEMPLATE("flash engine: drawn selections", D, insta, insta_sparf, flexgen,
                   flexgen_sparq) {
  check_drawn<D>();
}

// 40 heads of 128 dims, as OPT-13B: 20 KiB a token and layer. 256 sequences of 1024 tokens in 40 layers are 215 GB; the
// test fills one layer, 5.4 GB in 1.3 million pages, and attends with an eighth of the batch.
TEST_CASE("flash engine: a cache of 215 GB is timed without the bytes") {
  using engine_type = flash::engine<insta, kv_format<fp16, 128>>;
  engine_type engine({.layers = 40, .q_heads = 40, .kv_heads = 40},
                     {.bytes = 215'000'000'000, .context_tokens = 1024});
  constexpr std::uint64_t tokens = 1024;
  constexpr std::uint64_t token_bytes = 40 * 2 * 128 * 2;
  const std::vector<float> q(40 * 128, 1.0f);
  std::vector<float> out(40 * 128, -1.0f);
  std::vector<engine_type::request> batch;
  traffic written;
  for (int i = 0; i < 256; ++i) {
    const sequence seq = engine.open();
    written += engine.append_count(seq, i % 40, tokens).traffic;
    if (i % 40 == 7) {
      batch.push_back({seq, q, out});
    }
  }
  CHECK(written.written_bytes == 256 * tokens * token_bytes);
  CHECK(written.link_bytes == 256 * tokens * token_bytes);
  const auto& cache = engine.inner().cache();
  CHECK(cache.pages().capacity_pages() * 4096 > 214'000'000'000);
  CHECK(cache.pages().capacity_pages() - cache.pages().free_pages() == written.pages_written);
  const std::uint64_t resident = cache.at(batch[0].seq, 7).resident_bytes();
  CHECK(resident < tokens * token_bytes / 500);  // an L2P entry a page, no group buffer

  const flash::receipt done = engine.attend_batch(7, batch);
  CHECK(done.traffic.array_bytes == batch.size() * tokens * token_bytes);
  CHECK(done.traffic.pages_read == charged_pages(done));
  // Between the buses' rate and the sequential read rate of the preset.
  const double bytes = static_cast<double>(done.traffic.array_bytes);
  CHECK(flash_ns(done) > bytes / static_cast<double>(engine.drive().bus_bytes_per_s()) * 1e9);
  CHECK(flash_ns(done) < 1.2 * bytes / flash::sequential_read_bytes_per_s(engine.drive()) * 1e9);
  CHECK(out == std::vector<float>(out.size(), 0.0f));
  CHECK_THROWS_AS(
      engine.append_count(batch[0].seq, 0, std::uint64_t{215'000'000'000} / token_bytes),
      drive_full);
}

TEST_CASE_TEMPLATE("flash engine: dense reads more pages for more tokens, never fewer", D, insta,
                   flexgen) {
  random_cache<D> cache;
  const sequence seq = cache.engine.open();
  flash::receipt before = cache.attend(seq);
  CHECK(before.traffic.pages_read == 0);
  std::mt19937 random(31);
  for (int total = 0; total < 3000;) {
    const int more = 1 + static_cast<int>(random() % 90);
    cache.engine.append_count(seq, 0, static_cast<std::uint64_t>(more));
    total += more;
    CAPTURE(total);
    const flash::receipt now = cache.attend(seq);
    CHECK(now.traffic.pages_read >= before.traffic.pages_read);
    CHECK(now.traffic.pages_read == static_cast<std::uint64_t>(2 * 2 * (total / 32)));
    CHECK(now.traffic.filtered_bytes + now.traffic.buffer_bytes ==
          static_cast<std::uint64_t>(total) * 2 * 2 * dim *
              2);  // pages of whole groups: all wanted
    before = now;
  }
}

TEST_CASE_TEMPLATE("flash engine: a faster bus or more channels do not slow dense attention down",
                   D, insta, flexgen) {
  for (const std::uint64_t tokens : {40u, 500u, 1111u, 4096u, 10'000u}) {
    CAPTURE(tokens);
    double slowest_ns = 1e300;
    for (const std::int64_t rate : {std::int64_t{400'000'000}, std::int64_t{700'000'000},
                                    std::int64_t{1'400'000'000}, std::int64_t{2'400'000'000}}) {
      CAPTURE(rate);
      flash::drive_spec drive = D::drive;
      drive.timing.bus_bytes_per_s = rate;
      const flash::receipt done = one_attend<D>(tokens, drive);
      CHECK(flash_ns(done) <= slowest_ns);
      slowest_ns = flash_ns(done);
    }
    // Behind units that keep up: slow ones with little room make the order of pages matter, and more channels deliver all
    // of K before V.
    double total_ns = 1e300;
    for (const std::int32_t channels : {1, 2, 4, 8, 16, 32}) {
      CAPTURE(channels);
      flash::drive_spec drive = D::drive;
      drive.geometry.channels = channels;
      if (drive.units.present()) {
        drive.units = flash::accelerator_for(1'000'000'000'000);
      }
      const flash::receipt done = one_attend<D>(tokens, drive);
      CHECK(done.total_ns() <= total_ns);
      total_ns = done.total_ns();
    }
  }
}

TEST_CASE_TEMPLATE(
    "flash engine: a batch moves the sum of its requests, in no more than their time", D, insta,
    insta_sparf, flexgen, flexgen_sparq) {
  for (const unsigned seed : {41u, 42u, 43u}) {
    CAPTURE(seed);
    std::mt19937 random(seed);
    random_cache<D> cache;
    std::vector<sequence> all;
    traffic moved;
    double ns = 0;
    double slowest_ns = 0;
    for (int i = 0; i < 12; ++i) {
      all.push_back(cache.filled(random() % 1500));
      const flash::receipt alone = cache.attend(all.back());
      moved += alone.traffic;
      ns += alone.total_ns();
      slowest_ns = std::max(slowest_ns, alone.total_ns());
      const flash::receipt together = cache.attend_all(all);
      CHECK(together.traffic == moved);
      CHECK(charged_pages(together) == moved.pages_read);
      CHECK(together.total_ns() <= ns);
      CHECK(together.total_ns() >= slowest_ns);
    }
  }
  CHECK(random_cache<D>{}.attend_all({}).traffic == traffic{});
}

TEST_CASE_TEMPLATE("flash engine: host routes take at least the links' time and the software's", D,
                   flexgen, flexgen_gds, flexgen_sparq) {
  constexpr bool through_host = !std::is_same_v<D, flexgen_gds>;
  for (const std::uint64_t tokens : {1u, 40u, 700u, 5000u}) {
    CAPTURE(tokens);
    const flash::receipt done = one_attend<D>(tokens);
    const auto bytes = static_cast<double>(done.traffic.link_bytes);
    CHECK(done.traffic.link_bytes == done.traffic.channel_bytes + done.traffic.buffer_bytes);
    CHECK(done.traffic.filtered_bytes ==
          done.traffic.channel_bytes);  // no filter in front of a host
    double route_ns = 0;
    for (const flash::phase_ns& phase : done.phases) {
      route_ns += phase.route;
      CHECK(phase.filter + phase.gemv + phase.softmax + phase.top_k == 0);
    }
    // 7 GB/s to the host, 32 GB/s to the GPU, 121 us for each 128 KiB.
    const double least_ns =
        bytes / 7.0 + (through_host ? bytes / 32.0 : 0.0) + bytes / (128 * 1024) * 121'000;
    CHECK(route_ns >= least_ns);
    CHECK(route_ns <= least_ns + static_cast<double>(done.phases.size()) * (4'000 + 121'000));
    CHECK(done.total_ns() >= least_ns);
    CHECK(done.link_ns == 0);
  }
}

TEST_CASE_TEMPLATE("flash engine: in storage, only the query and the output cross the link", E,
                   fp16, bf16, fp32) {
  const auto check = [&]<class D>(const D&) {
    for (const std::uint64_t tokens : {0u, 1u, 700u}) {
      random_cache<D, kv_format<E, 64, 80>> cache;
      const flash::receipt done = cache.attend(cache.filled(tokens));
      CHECK(done.traffic.link_bytes == (6 * 64 + 6 * 80) * sizeof(E));
      CHECK(done.traffic.filtered_bytes <= done.traffic.channel_bytes);
      CHECK(done.traffic.channel_bytes == done.traffic.array_bytes);
      // Peer to peer: 7 GB/s, 2 us for the first byte, 10 us for the command.
      CHECK(done.link_ns == doctest::Approx((6 * 64 + 6 * 80) * sizeof(E) / 7.0 + 2'000 + 10'000));
      for (const flash::phase_ns& phase : done.phases) {
        CHECK(phase.route == 0);
        CHECK((phase.pages == 0 || phase.filter > 0));
        CHECK((tokens == 0 || phase.gemv > 0));
      }
    }
  };
  check(insta{});
  check(insta_sparf{});
}

TEST_CASE("flash engine: a sparse policy filters, and ranks what the paper's unit ranks") {
  const flash::receipt done = one_attend<insta_sparf>(2048);
  REQUIRE(done.phases.size() == 2);
  CHECK(done.phases[0].op == attention::operation::score_dims);
  CHECK(done.phases[1].op == attention::operation::fold);
  CHECK(done.traffic.filtered_bytes < done.traffic.channel_bytes);
  // One element a cycle of 285 MHz: 64 dims before the first pass, 2048 tokens before the second, 2 KV heads.
  CHECK(done.phases[0].top_k == doctest::Approx(2 * 64 / 0.285).epsilon(1e-3));
  CHECK(done.phases[1].top_k == doctest::Approx(2 * 2048 / 0.285).epsilon(1e-3));
  // Wanted bytes: 8 of 64 dims of K, all tokens; then 128 of 2048 tokens, K and V. 2 bytes an element, 2 heads.
  CHECK(done.traffic.filtered_bytes + done.traffic.buffer_bytes ==
        2 * 2 * (8 * 2048 + 128 * 2 * 64));
  // GeMV: 2 FLOP a wanted element and query head, on two kernels of 12.7 GFLOPS.
  CHECK(done.phases[0].gemv == doctest::Approx(2 * 6 * 8 * 2048 / 25.4).epsilon(1e-3));
  CHECK(done.phases[1].gemv == doctest::Approx(2 * 6 * 128 * 2 * 64 / 25.4).epsilon(1e-3));
  // Softmax: 5 FLOP a score and query head, 22 units of 14.2 MFLOPS.
  CHECK(done.phases[0].softmax == doctest::Approx(5 * 6 * 2048 / (22 * 14.2e-3)).epsilon(1e-3));
  CHECK(done.phases[1].softmax == doctest::Approx(5 * 6 * 128 / (22 * 14.2e-3)).epsilon(1e-3));
}

TEST_CASE("flash engine: the arbitration is part of the model") {
  const auto attend = [](auto engine) {
    const sequence seq = engine.open();
    engine.append_count(seq, 0, 20'000);
    const std::vector<float> q(2 * dim, 1.0f);
    std::vector<float> out(2 * dim);
    return engine.attend(seq, 0, q, out);
  };
  const model_shape heads{.layers = 1, .q_heads = 2, .kv_heads = 2};
  const auto data_first = attend(flash::engine<insta_sparf, format>(heads, {}));
  const auto commands_first = attend(
      flash::engine<insta_sparf, format, flash::random_selection, flash::command_first>(heads, {}));
  CHECK(data_first.traffic == commands_first.traffic);
  CHECK(flash_ns(data_first) != flash_ns(commands_first));
}

// 64 groups of K and 64 of V over 8 channels, one KV head: 16 pages each. A single head must not leave a channel idle.
TEST_CASE("flash engine: the pages of one head lie on all channels alike") {
  random_cache<insta> cache(flash::instcsd, {.layers = 1, .q_heads = 3, .kv_heads = 1});
  flash::chrome_trace trace;
  const sequence seq = cache.filled(64 * 32);
  cache.engine.attend(seq, 0, cache.q, cache.out, &trace);
  std::map<std::string, int> pages;
  for (const test::trace_bar& bar : bars_of(trace)) {
    pages[bar.group] += bar.name == "data out" ? 1 : 0;
  }
  for (int channel = 0; channel < 8; ++channel) {
    CAPTURE(channel);
    CHECK(pages["channel " + std::to_string(channel)] == 16);
  }
}

TEST_CASE("flash engine: appends take the slower of link and flash") {
  random_cache<insta> cache;
  const sequence seq = cache.engine.open();
  const flash::receipt one = cache.engine.append_count(seq, 0, 1);  // into the group buffer
  CHECK(one.traffic.pages_written == 0);
  CHECK(one.flash_write_ns == 0);
  CHECK(one.traffic.link_bytes == 2 * 2 * dim * 2);
  CHECK(one.link_ns == doctest::Approx(2 * 2 * dim * 2 / 7.0 + 12'000));
  const flash::receipt group = cache.engine.append_count(seq, 0, 31);  // seals K and V of two heads
  CHECK(group.traffic.pages_written == 4);
  CHECK(group.traffic.written_bytes == 4 * 4096);
  CHECK(group.flash_write_ns > 450'000);  // tPROG
  CHECK(group.link_ns == 0);
  CHECK(group.total_ns() == group.flash_write_ns);
  const flash::receipt prompt = cache.engine.append_count(seq, 0, 32 * 1024);
  CHECK(prompt.traffic.pages_written == 4 * 1024);
  CHECK(prompt.total_ns() >= 4 * 1024 * 4096 / 7.0);
}

TEST_CASE("flash engine: drives that do not fit are refused") {
  using engine_type = flash::engine<insta, format>;
  flash::drive_spec large_pages = flash::instcsd;
  large_pages.geometry.page_bytes = 16384;
  large_pages.geometry.codeword_bytes = 4096;
  CHECK_THROWS_WITH_AS(engine_type(shape, capacity, {}, {}, large_pages),
                       "flash engine: the drive's pages have 16384 bytes, the layout's 4096",
                       bad_argument);
  flash::drive_spec small = flash::instcsd;
  small.geometry.blocks = 1;  // 8 x 4 x 4 x 2 planes x 1024 pages: 1 GiB
  CHECK_THROWS_WITH_AS(engine_type(shape, {.bytes = (1u << 30) + 1}, {}, {}, small),
                       "flash engine: the drive holds 1073741824 bytes, the capacity is 1073741825",
                       bad_argument);
  CHECK_NOTHROW(engine_type(shape, {.bytes = 1u << 30}, {}, {}, small));
  flash::drive_spec no_channels = flash::instcsd;
  no_channels.geometry.channels = 0;
  CHECK_THROWS_AS(engine_type(shape, capacity, {}, {}, no_channels), bad_argument);
  flash::drive_spec no_bus = flash::instcsd;
  no_bus.timing.bus_bytes_per_s = 0;
  CHECK_THROWS_AS(engine_type(shape, capacity, {}, {}, no_bus), bad_argument);
}

TEST_CASE("flash engine: a call that throws leaves cache and output as they were") {
  flash::engine<insta, format, cpu::path> engine(shape, capacity);
  const test::random_cache<format> data(51, 100, shape.q_heads, shape.kv_heads);
  const sequence seq = engine.open();
  engine.append(seq, 0, data.k, data.v);
  const std::vector<float> untouched(data.q.size(), -1.0f);
  std::vector<float> out = untouched;
  const flash::receipt good = engine.attend(seq, 0, data.q, out);
  const std::vector<float> answer = out;
  out = untouched;

  const sequence never{.slot = 3, .generation = 0};
  CHECK_THROWS_AS(engine.attend(never, 0, data.q, out), unknown_sequence);
  CHECK_THROWS_AS(engine.append(never, 0, data.k, data.v), unknown_sequence);
  CHECK_THROWS_AS(engine.reclaim(never), unknown_sequence);
  const sequence gone = engine.open();
  engine.reclaim(gone);
  CHECK_THROWS_AS(engine.attend(gone, 0, data.q, out), unknown_sequence);
  CHECK_THROWS_AS(engine.attend(seq, 2, data.q, out), bad_argument);
  CHECK_THROWS_AS(engine.attend(seq, -1, data.q, out), bad_argument);
  CHECK_THROWS_AS(engine.attend(seq, 0, std::span(data.q).first(data.q.size() - 1), out),
                  bad_argument);
  CHECK_THROWS_AS(engine.attend(seq, 0, data.q, std::span(out).first(out.size() - 1)),
                  bad_argument);
  std::vector<float> not_finite = data.q;
  not_finite[130] = std::numeric_limits<float>::quiet_NaN();
  CHECK_THROWS_WITH_AS(engine.attend(seq, 0, not_finite, out),
                       "attend: q must be finite, is not at [head 2, dim 2]", bad_argument);
  CHECK(out == untouched);

  // In a batch, requests before the bad one are answered; the next batch is not disturbed.
  std::vector<float> first = untouched;
  const std::array<flash::engine<insta, format, cpu::path>::request, 2> batch{
      {{seq, data.q, first}, {gone, data.q, out}}};
  CHECK_THROWS_AS(engine.attend_batch(0, batch), unknown_sequence);
  CHECK(first == answer);
  CHECK(out == untouched);
  const flash::receipt again = engine.attend(seq, 0, data.q, out);
  check_same(good, again);
  CHECK(out == answer);
}

TEST_CASE_TEMPLATE("chrome trace: reads back, every bar in a named row, nothing overlaps on a bus",
                   D, insta, insta_sparf, flexgen, flexgen_sparq) {
  random_cache<D> cache;
  const sequence seq = cache.filled(1000);
  flash::chrome_trace trace;
  CHECK(trace.empty());
  const flash::receipt done = cache.engine.attend(seq, 0, cache.q, cache.out, &trace);
  CHECK(!trace.empty());
  check_same(done, cache.attend(seq));  // watching changes nothing

  const std::vector<test::trace_bar> bars = bars_of(trace);
  std::map<std::string, int> names;
  std::map<std::pair<std::string, std::string>, std::vector<std::pair<double, double>>> rows;
  double end_us = 0;
  for (const test::trace_bar& bar : bars) {
    CHECK(!bar.group.empty());
    CHECK(!bar.row.empty());
    CHECK(bar.begin_us >= 0);
    CHECK(bar.duration_us >= 0);
    ++names[bar.name];
    rows[{bar.group, bar.row}].push_back({bar.begin_us, bar.begin_us + bar.duration_us});
    end_us = std::max(end_us, bar.begin_us + bar.duration_us);
  }
  const auto pages = static_cast<int>(done.traffic.pages_read);
  CHECK(names["data out"] == pages);
  CHECK(names["array read"] == pages);
  CHECK(names["command"] > 0);
  CHECK(names["command"] <= pages);
  CHECK(names["pages to the GPU"] ==
        (D::transfer_policy::computes_in_drive ? 0 : static_cast<int>(done.phases.size())));
  CHECK(names["entry filter"] == (D::transfer_policy::computes_in_drive ? pages : 0));
  CHECK(end_us == doctest::Approx(done.total_ns() * 1e-3));
  for (auto& [row, spans] : rows) {
    const std::string where = row.first + ", " + row.second;
    CAPTURE(where);
    std::ranges::sort(spans);
    for (std::size_t i = 1; i < spans.size(); ++i) {
      CHECK(spans[i].first >= spans[i - 1].second - 1e-3);  // to the nanosecond
    }
  }
}

TEST_CASE("chrome trace: times keep their picoseconds, however late") {
  for (const double begin_ps :
       {0.0, 1.0, 1e6, 123'456'789.0, 98'765'432'101.0, 1'234'567'890'123.0}) {
    flash::chrome_trace trace;
    trace.add("group", "row", "bar", begin_ps, 290'001.0);
    const std::vector<test::trace_bar> bars = bars_of(trace);
    CAPTURE(begin_ps);
    REQUIRE(bars.size() == 1);
    CHECK(bars[0].group == "group");
    CHECK(bars[0].row == "row");
    CHECK(bars[0].name == "bar");
    CHECK(std::abs(bars[0].begin_us - begin_ps * 1e-6) < 1e-6);
    CHECK(std::abs(bars[0].duration_us - 0.290001) < 1e-9);
  }
}

TEST_CASE("chrome trace: nothing recorded is a trace, too, and rows of the same name stay apart") {
  CHECK(bars_of(flash::chrome_trace{}).empty());
  flash::chrome_trace trace;
  trace.add("channel 1", "bus", "a", 0, 1);
  trace.add("channel 0", "bus", "b", 0, 1);
  trace.add("channel 1", "bus", "c", 1, 1);
  const std::vector<test::trace_bar> bars = bars_of(trace);
  REQUIRE(bars.size() == 3);
  CHECK(bars[0].group == "channel 1");
  CHECK(bars[1].group == "channel 0");
  CHECK(bars[2].group == "channel 1");
}

TEST_CASE("chrome trace: any name is written so that it reads back") {
  flash::chrome_trace trace;
  trace.add("\"quoted\"", "back\\slash", "line\nbreak\ttab", 0, 1);
  trace.add("a, b}", "{\"name\":1}", "", 0, 1);
  const std::vector<test::trace_bar> bars = bars_of(trace);
  REQUIRE(bars.size() == 2);
  CHECK(bars[0].group == "\"quoted\"");
  CHECK(bars[0].row == "back\\slash");
  CHECK(bars[0].name == "line break tab");  // as blanks
  CHECK(bars[1].group == "a, b}");
  CHECK(bars[1].row == "{\"name\":1}");
  CHECK(bars[1].name.empty());
}

TEST_CASE("flash engine: attention in storage on a drive without accelerator is refused") {
  using no_engine =
      design<attention::dense, layout::token_indexed<>, flash::pcie4_ssd, transfer::in_storage>;
  CHECK_THROWS_WITH_AS(
      (flash::engine<no_engine>({}, {})),
      "flash engine: attention in storage needs a drive with an accelerator, this one has none",
      bad_argument);
}

TEST_CASE("flash engine: nothing moved takes no time") {
  flash::engine<flexgen> drive({}, {});
  const sequence seq = drive.open();
  CHECK(drive.append_count(seq, 0, 0).total_ns() == 0.0);
  const std::vector<float> q(128, 1.0f);
  std::vector<float> out(128);
  CHECK(drive.attend(seq, 0, q, out).total_ns() == 0.0);
}
