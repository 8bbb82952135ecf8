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
  // 2 x 2 TiB x 3,000 cycles, K stored twice; 16 x 1,280 tokens a run.
  const double bytes_a_run = 16.0 * 1'280 * 524'288 * 1.5;
  const double years = 2 * 2.0 * (1ULL << 40) * 3'000 / bytes_a_run * direct.total_s() / 31'536e3;
  CHECK(o.lifetime_years == doctest::Approx(years));
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
