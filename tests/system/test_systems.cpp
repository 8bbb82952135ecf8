// What every system must obey: parts add up, more bandwidth is never slower, more sequences never
// need less memory.

#include <doctest/doctest.h>

#include <algorithm>
#include <iterator>
#include <random>
#include <string>

#include "instinfer/system.hpp"

namespace instinfer::test_systems {

using namespace system;

static_assert(System<deepspeed_system> && System<flexgen_system<>> &&
              System<flexgen_gds_system<>> && System<flexgen_sparq_system<>> &&
              System<recomp_system> && System<insta_system<>> && System<insta_sparf_system<>>);

namespace {

// A model of OPT's kind that is quick to simulate: 8 heads, 4 layers.
constexpr model_spec tiny() {
  model_spec model = opt_6_7b;
  model.name = "tiny";
  model.shape = {.layers = 4, .q_heads = 8, .kv_heads = 8};
  model.hidden = 1024;
  model.ffn = 4096;
  return model;
}
constexpr workload job{.batch = 6, .input_tokens = 512, .output_tokens = 256};

template <class S>
void check_run(const server& on, const workload& of) {
  const S s(tiny(), on, of);
  CAPTURE(std::string(S::name));
  const report done = run(s);
  const step_time& t = done.mean.time;
  CHECK(t.total_s() == doctest::Approx(t.weights_s + t.compute_s + t.kv_drive_s + t.kv_link_s +
                                       t.kv_software_s + t.kv_write_s + t.qo_link_s + t.command_s));
  for (const double part : {t.weights_s, t.compute_s, t.kv_drive_s, t.kv_link_s, t.kv_software_s,
                            t.kv_write_s, t.qo_link_s, t.command_s}) {
    CHECK(part >= 0);
  }
  CHECK(done.decode_s == doctest::Approx(t.total_s() * static_cast<double>(of.output_tokens)));
  CHECK(done.fits());
  CHECK(done.memory.verdict().empty());
  CHECK(done.tokens_per_s() * done.total_s() == doctest::Approx(of.tokens_out()));
  // The prompt's pipeline takes at least its slowest stage, and at most all of them in turn.
  CHECK(done.prefill.total_s >=
        std::max({done.prefill.compute_s, done.prefill.weights_s, done.prefill.kv_write_s}));
  CHECK(done.prefill.total_s <=
        done.prefill.compute_s + done.prefill.weights_s + done.prefill.kv_write_s + 1e-12);
  // Attention uses some of what it reads, and steps grow with the context. A sparse step of few
  // pages may shorten by 3 %: which channels the drawn pages share, and what is still buffered,
  // differs from one context to the next.
  CHECK(done.mean.bytes.kv_wanted > 0);
  const double first = s.step(static_cast<double>(of.input_tokens)).time.total_s();
  CHECK(0.97 * first <= s.step(static_cast<double>(of.context_tokens())).time.total_s());
}

template <class S>
double seconds(const server& on, const workload& of = job) {
  const report done = run(S(tiny(), on, of), 8);
  return done.total_s();
}

template <class S>
void check_bandwidths() {
  CAPTURE(std::string(S::name));
  const server plain = paper_server();
  const double before = seconds<S>(plain);
  server m = plain;
  m.gpu_link.bytes_per_s *= 2;
  CHECK(seconds<S>(m) <= before);
  m = plain;
  m.gpu.memory_bytes_per_s *= 2;
  CHECK(seconds<S>(m) <= before);
  m = plain;
  m.gpu.flops_per_s *= 2;
  CHECK(seconds<S>(m) <= before);
  m = plain;
  m.host.memory_bytes *= 2;
  CHECK(seconds<S>(m) <= before);
  m = plain;
  m.host.software.cached_request_ns /= 2;
  m.host.software.pageable_bytes_per_s *= 2;
  m.host.software.swapped_page_ns /= 2;
  m.host.software.recomputed_tokens /= 2;
  m.host.nvme_command_ns /= 2;
  CHECK(seconds<S>(m) <= before);
}

template <class S>
void check_memory_grows() {
  CAPTURE(std::string(S::name));
  memory_use last;
  for (const std::int64_t batch : {1, 2, 5, 16}) {
    const memory_use now = S(tiny(), paper_server(), workload{batch, 512, 256}).memory();
    CHECK(now.gpu.needed_bytes >= last.gpu.needed_bytes);
    CHECK(now.host.needed_bytes >= last.host.needed_bytes);
    CHECK(now.drive.needed_bytes >= last.drive.needed_bytes);
    CHECK(now.drive_dram.needed_bytes >= last.drive_dram.needed_bytes);
    last = now;
  }
}

template <class F>
void for_every_system(F&& f) {
  f.template operator()<deepspeed_system>();
  f.template operator()<flexgen_system<>>();
  f.template operator()<flexgen_gds_system<>>();
  f.template operator()<flexgen_sparq_system<>>();
  f.template operator()<recomp_system>();
  f.template operator()<insta_system<>>();
  f.template operator()<insta_sparf_system<>>();
}

}  // namespace

TEST_CASE("parts add up") {
  for_every_system([]<class S>() {
    check_run<S>(paper_server(), job);
    check_run<S>(paper_server(2), job);
    check_run<S>(paper_server(3, 2), {1, 64, 16});
  });
}

TEST_CASE("times and bytes of steps add up and scale, each by itself") {
  const auto check_times = [](const step_time& t, double f) {
    CHECK(t.weights_s == 1 * f);
    CHECK(t.compute_s == 2 * f);
    CHECK(t.kv_drive_s == 3 * f);
    CHECK(t.kv_link_s == 4 * f);
    CHECK(t.kv_software_s == 5 * f);
    CHECK(t.kv_write_s == 6 * f);
    CHECK(t.qo_link_s == 7 * f);
    CHECK(t.command_s == 8 * f);
  };
  step_time time{1, 2, 3, 4, 5, 6, 7, 8};
  check_times(time.scaled(0.5), 0.5);
  time += {10, 20, 30, 40, 50, 60, 70, 80};
  check_times(time, 11);
  const auto check_bytes = [](const step_bytes& b, double f) {
    CHECK(b.weights == 1 * f);
    CHECK(b.gpu_link_kv == 2 * f);
    CHECK(b.drive_link == 3 * f);
    CHECK(b.flash_read == 4 * f);
    CHECK(b.kv_wanted == 5 * f);
    CHECK(b.kv_written == 6 * f);
  };
  step_bytes bytes{1, 2, 3, 4, 5, 6};
  check_bytes(bytes.scaled(0.5), 0.5);
  bytes += {10, 20, 30, 40, 50, 60};
  check_bytes(bytes, 11);
}

TEST_CASE("more bandwidth is never slower") {
  for_every_system([]<class S>() { check_bandwidths<S>(); });
  // Faster drives, too.
  const auto with_link = [](std::int64_t bytes_per_s) {
    flash::drive_spec drive = flash::pcie4_ssd;
    drive.link_bytes_per_s = bytes_per_s;
    return run(flexgen_gds_system<>(tiny(), paper_server(), job, {}, drive)).total_s();
  };
  CHECK(with_link(7'000'000'000) < with_link(3'500'000'000));
  for (int drives = 1; drives < 8; drives *= 2) {
    CHECK(seconds<flexgen_gds_system<>>(paper_server(2 * drives)) <=
          seconds<flexgen_gds_system<>>(paper_server(drives)));
  }
}

// Random machines and workloads; the drives' own simulation is left out, for its time.
TEST_CASE("random machines: a better part is never slower") {
  for (unsigned seed = 1; seed <= 300; ++seed) {
    CAPTURE(seed);
    std::mt19937 random(seed);
    const auto between = [&](double low, double high) {
      return std::exp(std::uniform_real_distribution<>(std::log(low), std::log(high))(random));
    };
    const model_spec& model = *all_models[random() % std::size(all_models)];
    server m = paper_server(1, 1 + static_cast<int>(random() % 4));
    m.gpu = {"random", between(1e9, 1e12), between(1e10, 1e13), between(1e12, 1e15), 0};
    m.host.memory_bytes = between(1e9, 1e13);
    m.gpu_link.bytes_per_s = between(1e9, 1e12);
    const workload of{1 + static_cast<std::int64_t>(random() % 300),
                      1 + static_cast<std::int64_t>(random() % 4096),
                      1 + static_cast<std::int64_t>(random() % 4096)};
    server better = m;
    const double gain = between(1.01, 10);
    switch (random() % 3) {
      case 0:
        better.gpu.memory_bytes_per_s *= gain;
        break;
      case 1:
        better.gpu_link.bytes_per_s *= gain;
        break;
      default:
        better.host.memory_bytes *= gain;
    }
    const double slack = 1 + 1e-12;
    CHECK(run(deepspeed_system(model, better, of), 8).total_s() <=
          run(deepspeed_system(model, m, of), 8).total_s() * slack);
    CHECK(run(recomp_system(model, better, of), 8).total_s() <=
          run(recomp_system(model, m, of), 8).total_s() * slack);
    workload more = of;
    more.batch += 1 + static_cast<std::int64_t>(random() % 50);
    CHECK(deepspeed_system(model, m, more).memory().host.needed_bytes >=
          deepspeed_system(model, m, of).memory().host.needed_bytes);
    CHECK(recomp_system(model, m, more).memory().gpu.needed_bytes >=
          recomp_system(model, m, of).memory().gpu.needed_bytes);
  }
}

TEST_CASE("a larger batch never needs less memory") {
  for_every_system([]<class S>() { check_memory_grows<S>(); });
}

TEST_CASE("traffic by hand") {
  const double kv_token = tiny().kv_bytes_per_token();
  const double context = 640;
  const decode_step dense = insta_system<>(tiny(), paper_server(), job).step(context);
  // q, k, v down and the output up: 4 vectors of 1024 fp16 a sequence and layer.
  CHECK(dense.bytes.gpu_link_kv == 6 * 4 * 4 * 1024 * 2.0);
  CHECK(dense.bytes.drive_link == dense.bytes.gpu_link_kv);
  CHECK(dense.bytes.kv_written == 6 * kv_token);
  CHECK(dense.bytes.weights == tiny().weight_bytes());
  // 6 sequences x 4 layers x 10 us.
  CHECK(dense.time.command_s == doctest::Approx(6 * 4 * 10e-6));
  const decode_step sparf = insta_sparf_system<>(tiny(), paper_server(), job).step(context);
  CHECK(sparf.bytes.kv_written == 1.5 * 6 * kv_token);
  CHECK(sparf.bytes.flash_read < dense.bytes.flash_read);

  // DeepSpeed moves the whole cache in each step, at the rate of pageable memory.
  const decode_step host = deepspeed_system(tiny(), paper_server(), job).step(context);
  CHECK(host.bytes.gpu_link_kv == 6 * context * kv_token);
  CHECK(
      host.time.kv_link_s ==
      doctest::Approx(6 * context * kv_token / xeon_5320.software.pageable_bytes_per_s + 4 * 2e-6));
  CHECK(host.time.kv_software_s == 0);

  // FlexGen from the page cache: nothing of the drive, one request each 128 KiB. All heads and
  // tokens are wanted.
  const flexgen_system<> cached(tiny(), paper_server(), job);
  CHECK(cached.in_page_cache(context));
  const decode_step files = cached.step(context);
  CHECK(files.bytes.drive_link == 0);
  CHECK(files.bytes.gpu_link_kv == doctest::Approx(6 * context * kv_token));
  CHECK(files.time.kv_software_s == doctest::Approx(6 * context * kv_token / 131'072 *
                                                    xeon_5320.software.cached_request_ns * 1e-9));

  // Recomp moves nothing over any link.
  const decode_step gpu = recomp_system(tiny(), paper_server(), job).step(context);
  CHECK(gpu.bytes.gpu_link_kv + gpu.bytes.drive_link + gpu.bytes.weights == 0);
}

}  // namespace instinfer::test_systems
