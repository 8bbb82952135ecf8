// docs/beyond.md is what the models give; its break-even prices break even; and what it says in
// words holds.

#include <doctest/doctest.h>

#include <tuple>

#include "beyond/document.hpp"
#include "beyond/json.hpp"
#include "tests/charts/same_keys.hpp"
#include "tests/support/generated_page.hpp"

namespace instinfer::test_beyond {

namespace {

const beyond::results& all() {
  static const beyond::results r = beyond::run_everything();
  return r;
}
const beyond::answer& at(const beyond::ladder& l, std::size_t context, const char* name) {
  return l.rungs[context][beyond::text::index_of(l, name)];
}

}  // namespace

TEST_CASE("docs/beyond.md is what ./dev bench beyond --doc writes") {
  check_page(INSTINFER_BEYOND, beyond::document(page::text_of(INSTINFER_BEYOND_TEMPLATE), all()),
             "run ./dev bench beyond --doc docs/beyond.md --figures docs/figures");
}

TEST_CASE("the JSON has what bench/charts is tested with, and says what the study gave") {
  const auto json = beyond::json(all());
  check_same_keys("beyond", json);
  const auto& answers = json["ladders"][1]["answers"];
  CHECK(answers.size() == beyond::contexts.size() * all().large.rungs.front().size());
  CHECK(json["ladders"][1]["model"] == system::llama3_70b.name);
  CHECK(answers.back()["name"] == all().large.rungs.back().back().name);
  CHECK(answers.back()["context"] == 1 << 20);
  CHECK(answers.back()["tokens_per_s"] == all().large.rungs.back().back().tokens_per_s);
  CHECK(answers.back()["joules_per_token"] ==
        beyond::text::joules(all().large.rungs.back().back()));
  const auto& homes = json["pools"][3]["runs"];
  REQUIRE(homes.size() == all().at_home.size());
  CHECK(homes[0]["drives"] == all().at_home[0].drives);
  CHECK(homes[0]["tokens_per_s"] == all().at_home[0].tokens_per_s());
  CHECK(json["pools"][1]["runs"][0]["fits"] == false);  // one drive does not hold 1,024 sequences
}

TEST_CASE("at the break-even price the drives give as many tokens for a dollar") {
  const beyond::ladder& l = all().small;
  const beyond::answer& ours = at(l, 2, "InstA-SparF, wide");
  for (const char* name : {"HBM", "DRAM", "SSD"}) {
    const beyond::answer& other = at(l, 2, name);
    const double usd = beyond::break_even_drive_usd(ours, other);
    system::bill turned = ours.cost;
    turned.usd = ours.cost_without_drives_usd + beyond::drives * usd;
    CAPTURE(std::string(name));
    if (turned.usd > 0) {
      CHECK(turned.tokens_per_usd(ours.tokens_per_s) ==
            doctest::Approx(other.cost.tokens_per_usd(other.tokens_per_s)).epsilon(1e-6));
    }
  }
}

TEST_CASE("the lead starts where two straight lines cross") {
  // Double logarithmic: 4 -> 1 against 1 -> 4 meet in the middle, at the geometric mean of the
  // contexts.
  beyond::ladder l{system::llama3_8b, {}};
  for (const auto& [context, ours, other] :
       {std::tuple{100.0, 1.0, 4.0}, std::tuple{10'000.0, 4.0, 1.0}}) {
    l.rungs.push_back({{.name = "ours", .context = context, .tokens_per_s = ours},
                       {.name = "other", .context = context, .tokens_per_s = other}});
  }
  CHECK(*beyond::ahead_from(l, 0, 1, beyond::text::per_second) == doctest::Approx(1'000));
  CHECK(!beyond::ahead_from(l, 1, 0, beyond::text::per_second));
}

TEST_CASE("what the page says in words") {
  for (const beyond::ladder* l : {&all().small, &all().large}) {
    for (std::size_t c = 0; c < l->rungs.size(); ++c) {
      for (const beyond::answer& a : l->rungs[c]) {
        CHECK(a.tokens_per_s <= at(*l, c, "HBM").tokens_per_s);
      }
      // Reading less, and a faster accelerator, is never slower.
      CHECK(at(*l, c, "DRAM, 1/8").tokens_per_s >= at(*l, c, "DRAM").tokens_per_s);
      CHECK(at(*l, c, "InstA-SparF, wide").tokens_per_s >= at(*l, c, "InstA-SparF").tokens_per_s);
      CHECK(at(*l, c, "DRAM, 1/8").tokens_per_s > at(*l, c, "InstA-SparF, wide").tokens_per_s);
    }
    // An accelerator for one query head a KV head is what binds.
    CHECK(at(*l, 2, "InstA-SparF, wide").tokens_per_s >
          1.5 * at(*l, 2, "InstA-SparF").tokens_per_s);
  }
  CHECK(beyond::gpus_for(system::llama3_8b) == 1);
  CHECK(beyond::gpus_for(system::llama3_70b) == 3);
}

// Dense, groups of 4, on a drive of 16 channels whose accelerator is `wide` times the preset's: ns
// of a layer.
template <class Arbitration>
double dense_layer_ns(int wide) {
  using design_point =
      design<attention::dense, layout::token_indexed<>, flash::pcie5_16ch, transfer::in_storage>;
  using engine = flash::engine<design_point, kv_format<>, flash::random_selection, Arbitration>;
  constexpr std::uint32_t tokens = 16'384;
  engine drive({.layers = 1, .q_heads = 32, .kv_heads = 8},
               {.bytes = std::uint64_t{1} << 30, .context_tokens = tokens}, {}, {},
               beyond::with_accelerator(flash::pcie5_16ch, wide));
  const std::vector<float> q(32 * 128, 1.0f);
  std::vector<float> out(q.size());
  std::vector<typename engine::request> batch;
  for (int i = 0; i < 4; ++i) {
    batch.push_back({drive.open(), q, out});
    drive.append_untimed(batch.back().seq, 0, tokens);
  }
  return drive.attend_batch(0, batch).attention_ns;
}

TEST_CASE("with data first a wider accelerator may be slower, since stalls keep dies out of step") {
  CHECK(dense_layer_ns<flash::data_out_first>(8) > 1.15 * dense_layer_ns<flash::data_out_first>(4));
  CHECK(dense_layer_ns<flash::command_first>(8) < 0.95 * dense_layer_ns<flash::command_first>(4));
}

TEST_CASE("more drives are never slower, a better network neither, and homes wait for light") {
  for (std::size_t i = 0; i < all().on_fabric.size(); ++i) {
    CHECK(all().on_fabric[i].step.total_s() >= all().on_nothing[i].step.total_s());
    CHECK(all().on_ethernet[i].step.total_s() >= all().on_fabric[i].step.total_s());
    if (i > 0) {
      CHECK(all().on_nothing[i].step.total_s() <= all().on_nothing[i - 1].step.total_s());
    }
  }
  for (const beyond::pool& p : all().at_home) {
    CHECK(p.step.seconds[4] > 80 * 2 * 0.015);
  }
}

TEST_CASE("more drives overtake a memory behind the GPU's link, never the GPU's own") {
  for (std::size_t i = 1; i < all().by_drives.size(); ++i) {
    CHECK(all().by_drives[i].tokens_per_s >= all().by_drives[i - 1].tokens_per_s);
  }
  CHECK(all().by_drives.front().tokens_per_s < at(all().small, 2, "DRAM, 1/8").tokens_per_s);
  CHECK(all().by_drives.back().tokens_per_s > at(all().small, 2, "DRAM, 1/8").tokens_per_s);
  CHECK(all().by_drives.back().tokens_per_s < at(all().small, 2, "HBM").tokens_per_s);
}

TEST_CASE(
    "one long sequence: heads stop at 8 drives, tokens go on, and shared tokens cost commands") {
  const auto seconds = [](std::string_view split, int drives) {
    for (const beyond::pool& p : all().long_sequence) {
      if (p.split.starts_with(split) && p.drives == drives) {
        return p.step.total_s();
      }
    }
    FAIL("no such row");
    return 0.0;
  };
  const double one = seconds("by_heads", 1);
  CHECK(one / seconds("by_heads", 8) == doctest::Approx(8).epsilon(0.02));
  CHECK(one / seconds("by_tokens", 8) == doctest::Approx(8).epsilon(0.02));
  CHECK(one / seconds("by_heads_and_tokens", 64) > 50);
  CHECK(one / seconds("by_heads_and_tokens", 1'000) < 500);  // the GPU and the host stay
}

TEST_CASE("shares add up to the step of the cluster itself") {
  const beyond::pool p =
      beyond::pool_of<insta_sparf>(system::llama3_8b, 64, 32 << 10, 32, 4, system::fabric_400g,
                                   system::split_over(32, system::llama3_8b.shape, 64));
  system::server on = beyond::h100_server(system::llama3_8b);
  on.gpus = beyond::pool_gpus;
  on.drives = 32;
  using inside = system::insta_system<insta_sparf>;
  const system::cluster_system<inside> s(
      inside(system::llama3_8b, on, {64, 32 << 10, beyond::output_tokens}, {},
             beyond::with_accelerator(flash::pcie5_16ch, 4)),
      4, system::fabric_400g);
  CHECK(p.step.total_s() ==
        doctest::Approx(s.step((32 << 10) + beyond::output_tokens / 2).time.total_s()));
}

}  // namespace instinfer::test_beyond
