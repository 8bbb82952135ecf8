// The capacity planner against direct calls of the systems, and its choices against what its
// options say.

#include <doctest/doctest.h>

#include "support/plan.hpp"

namespace instinfer::test_plan {

namespace {

plan::request small() {
  return {.model = system::opt_6_7b,
          .job = {.batch = 16, .input_tokens = 1'024, .output_tokens = 256},
          .most_drives = 4};
}
const std::vector<plan::option>& all_of_small() {
  static const std::vector<plan::option> all = plan::options(small());
  return all;
}
const plan::option& at(const std::string& name, int drives) {
  for (const plan::option& o : all_of_small()) {
    if (o.system == name && o.drives == drives) {
      return o;
    }
  }
  throw bad_argument("no option of " + name);
}

}  // namespace

TEST_CASE("an option's numbers are those of the system itself") {
  const plan::request r = small();
  const plan::option& o = at("InstA-SparF", 2);
  CHECK(o.weights == system::weights_at::gpu);
  const system::server on{.drives = 2, .weights = system::weights_at::gpu};
  const system::insta_sparf_system<> s(r.model, on, r.job);
  const system::report direct = system::run(s);
  CHECK(o.run.tokens_per_s() == direct.tokens_per_s());
  CHECK(o.run.memory.drive.needed_bytes == direct.memory.drive.needed_bytes);
  // 8,000 + 4,650 + 96/64 x 300 + 2 x 400.
  CHECK(o.bill.usd == doctest::Approx(13'900));
  // A token reads this share of the stored pages of its sequence. A block of 1,024 pages bears
  // 100,000 reads before its pages move, and a sequence decodes 256 tokens.
  const double share = s.step(1'024 + 128).bytes.flash_read / (16.0 * 1'152 * 524'288 * 1.5);
  CHECK(share > 0.2);
  CHECK(share < 0.4);
  const double moves = std::floor(256 * 1'024 * share / 100'000);
  CHECK(o.write_amplification == 1 + moves);
  // 2 x 2 TiB x 3,000 cycles, of which the most worn block has 1/0.85 of the mean; K stored twice;
  // 16 x 1,280 tokens a run.
  const double bytes_a_run = 16.0 * 1'280 * 524'288 * 1.5 * (1 + moves);
  const double years =
      2 * 2.0 * (1ULL << 40) * 3'000 * 0.85 / bytes_a_run * direct.total_s() / 31'536e3;
  CHECK(o.lifetime_years == doctest::Approx(years));
  // The largest part of a step, and in the drives what limits them.
  CHECK(o.bottleneck == "drives: " + s.kv().bottleneck(1'152).name);
  CHECK(o.bottleneck_share ==
        doctest::Approx(direct.mean.time.kv_drive_s / direct.mean.time.total_s()));
  CHECK(o.bounds[flash::resource::gemv] ==
        doctest::Approx(s.kv().at(1'152).bounds[flash::resource::gemv]));
  const double sets = std::max(1.0, 4 / years);
  const double usd_per_s =
      (13'900 + (sets - 1) * 800) / (4 * 31'536e3) + o.bill.watts * 1.3 / 3.6e6 * 0.10;
  CHECK(o.usd_per_million_tokens == doctest::Approx(1e6 * usd_per_s / direct.tokens_per_s()));
}

TEST_CASE("a budget that is no number, or less than nothing, is refused") {
  for (const double budget : {std::nan(""), -1.0}) {
    plan::request r = small();
    r.usd = budget;
    CHECK_THROWS_WITH_AS(plan::options(r), doctest::Contains("plan: a budget must be 0 or more"),
                         bad_argument);
    r.usd.reset();
    r.watts = budget;
    CHECK_THROWS_AS(plan::options(r), bad_argument);
  }
}

TEST_CASE("without a budget the cheapest by the token is taken, with one the fastest within it") {
  const std::optional<plan::option> cheapest = plan::best(small(), all_of_small());
  REQUIRE(cheapest);
  plan::request rich = small();
  rich.usd = 1e6;
  const std::vector<plan::option> all = plan::options(rich);
  const std::optional<plan::option> fastest = plan::best(rich, all);
  REQUIRE(fastest);
  for (const plan::option& o : all_of_small()) {
    if (o.fails == plan::limit::none) {
      CHECK(cheapest->usd_per_million_tokens <= o.usd_per_million_tokens);
      CHECK(fastest->run.tokens_per_s() >= o.run.tokens_per_s());
    }
  }
}

TEST_CASE("a budget excludes what exceeds it, says by how much, and what it names would do") {
  plan::request r = small();
  r.systems = {"InstA"};
  r.usd = 13'600;  // one drive: 13,500
  std::vector<plan::option> all = plan::options(r);
  CHECK(plan::best(r, all)->drives == 1);
  CHECK(all[1].fails == plan::limit::usd);
  CHECK(all[1].why == "costs 13900 dollars, 300 over the budget; --dollars 13900 would do");
  r.usd = 13'900;
  CHECK(plan::options(r)[1].fails == plan::limit::none);
  r.usd = 100;
  all = plan::options(r);
  CHECK(!plan::best(r, all));
  REQUIRE(plan::closest_failures(all).size() == 1);
  CHECK(plan::closest_failures(all)[0].drives == 1);  // the cheapest
  r.usd.reset();
  r.watts = 100;
  CHECK(plan::options(r)[0].fails == plan::limit::watts);
}

TEST_CASE("memory that does not suffice is named with what would do") {
  plan::request r = small();
  r.systems = {"InstA"};
  r.most_drives = 1;
  r.job = {.batch = 4'096, .input_tokens = 1'024, .output_tokens = 16};  // 2.2 TB and more
  const plan::option full = plan::options(r)[0];
  CHECK(full.fails == plan::limit::memory);
  CHECK(full.why == "out of drive: needs 2233.4 GB of 2199.0 GB; 2 drives (--max-drives) would do");
  r.most_drives = 2;
  CHECK(plan::options(r)[1].fails == plan::limit::none);
}

TEST_CASE("the baselines of a cache in GPU or host memory") {
  plan::request r{.model = system::llama3_8b,
                  .job = {.batch = 64, .input_tokens = 32'768, .output_tokens = 256},
                  .systems = {"GPU", "Host"}};
  const double cache = 64.0 * 33'024 * 131'072;  // 277 GB
  std::vector<plan::option> all = plan::options(r);
  CHECK(all[0].fails == plan::limit::memory);
  CHECK(
      all[0].why.ends_with("about 7 such GPUs (--gpus), or a smaller batch or context, would do"));
  CHECK(all[1].fails == plan::limit::memory);
  CHECK(all[1].run.memory.host.needed_bytes == doctest::Approx(cache));
  CHECK(all[1].why.ends_with("278 GB of host memory (--host-gb) would do"));
  r.on.gpus = 7;
  r.on.host.memory_bytes = 278e9;
  all = plan::options(r);
  CHECK(all[0].fails == plan::limit::none);
  CHECK(all[1].fails == plan::limit::none);
  // The host sends the cache over seven links of 32 GB/s, or at its memory's 187.7 GB/s.
  CHECK(all[1].run.mean.time.total_s() > 64.0 * 32'768 * 131'072 / 187.7e9);
  CHECK(all[1].run.mean.time.total_s() < 1.1 * cache / 187.7e9);
  CHECK(all[1].bottleneck == "KV over links");
  CHECK(plan::best(r, all)->system == "GPU");
}

TEST_CASE("FlexGen's prompts need no matrix of the whole batch's scores") {
  plan::request r{.model = system::opt_13b,
                  .job = {.batch = 128, .input_tokens = 1'024, .output_tokens = 1'024},
                  .most_drives = 1,
                  .systems = {"FlexGen"}};
  CHECK(plan::options(r)[0].fails == plan::limit::none);  // the paper's runs overflow at 128
}

TEST_CASE("numbers of drives: all at which the busiest drive has less to do") {
  plan::request r = small();
  r.systems = {"InstA"};
  r.most_drives = 7;
  std::vector<int> drives;
  for (const plan::option& o : plan::options(r)) {
    drives.push_back(o.drives);
  }
  // 32 heads: 7 drives have up to 5 each, and 6 have 6; 5 have 7, 4 have 8, 3 have 11.
  CHECK(drives == std::vector<int>{1, 2, 3, 4, 5, 6, 7});
  // 12 drives have up to 3 heads each, like 11; and what does not fit on 8 is tried on 9.
  r.most_drives = 12;
  drives.clear();
  for (const int n : plan::detail::drive_counts(r)) {
    drives.push_back(n);
  }
  CHECK(drives == std::vector<int>{1, 2, 3, 4, 5, 6, 7, 8, 11, 12});
  plan::option full;
  full.run.memory.drive = {.needed_bytes = 8.5, .available_bytes = 1};
  CHECK(plan::detail::drives_that_hold(r, full) == 9);
  full.run.memory.drive.needed_bytes = 13;
  CHECK(!plan::detail::drives_that_hold(r, full));
}

TEST_CASE("recomputing is not taken further than it was calibrated") {
  plan::request r{.model = system::llama3_8b,
                  .job = {.batch = 16, .input_tokens = 32'768, .output_tokens = 256},
                  .systems = {"Recomp"}};
  const plan::option far = plan::options(r)[0];
  CHECK(far.fails == plan::limit::calibration);
  // 0.9 x 48 GB less 16.06 GB of weights is room for 6 sequences of 33,024 x 131,072 B.
  CHECK(far.why.ends_with("this one has 33024; a batch of 6, which stays on the GPU, would do"));
  r.job.batch = 6;
  CHECK(plan::options(r)[0].fails == plan::limit::none);
}

TEST_CASE("requests that mean nothing are refused") {
  plan::request r = small();
  r.systems = {"FlexInfer"};
  CHECK_THROWS_WITH_AS(plan::options(r), doctest::Contains("no system is called FlexInfer"),
                       bad_argument);
  r = small();
  r.job.batch = 0;
  CHECK_THROWS_WITH_AS(plan::options(r), doctest::Contains("got 0"), bad_argument);
  r = small();
  r.most_drives = 0;
  CHECK_THROWS_AS(plan::options(r), bad_argument);
  r = small();
  r.systems = {"InstA"};
  r.drive = plan::drive_presets[2];
  CHECK(plan::options(r)[0].fails == plan::limit::engine);
  r = small();
  r.job.input_tokens = 5 << 20;
  CHECK(plan::options(r)[0].fails == plan::limit::context);
}

}  // namespace instinfer::test_plan
