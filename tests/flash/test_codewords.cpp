// Parts of pages over the bus: against the event-driven drive to the tick, by hand, and what an attend asks for.

#include <doctest/doctest.h>

#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "instinfer/codec/scaled_pages.hpp"
#include "instinfer/engine/design.hpp"
#include "instinfer/flash/engine.hpp"
#include "random_batches.hpp"

using namespace instinfer;
using oracle::pick;
using oracle::random_case;

namespace {

// Codewords of 1 KiB, four a page, 1 us each.
constexpr flash::geometry one_die{.channels = 1, .pages = 64, .codeword_bytes = 1024};
constexpr flash::timing whole_us{.read_ps = 10 * flash::ps_per_us,
                                 .program_ps = 1,
                                 .erase_ps = 1,
                                 .page_transfer_ps = 4 * flash::ps_per_us,
                                 .read_command_ps = 0,
                                 .read_address_ps = 0,
                                 .read_turnaround_ps = 0};

flash::receipt attend(int codeword_bytes, flash::transfer_size unit, std::uint32_t tokens = 2000) {
  flash::drive_spec drive = flash::instcsd;
  drive.geometry.codeword_bytes = codeword_bytes;
  flash::engine<insta_sparf> engine({.layers = 1, .q_heads = 4, .kv_heads = 4},
                                    {.bytes = 64 << 20, .context_tokens = tokens}, {}, {}, drive,
                                    {}, {.transfer = unit});
  const sequence seq = engine.open();
  engine.append_untimed(seq, 0, tokens);
  const std::vector<float> q(4 * 128, 1.0f);
  std::vector<float> out(q.size());
  return engine.attend(seq, 0, q, out);
}

}  // namespace

TEST_CASE("codewords: equal to the event-driven drive, every page, every option") {
  for (unsigned seed = 1; seed <= 300; ++seed) {
    INFO("seed " << seed);
    random_case drive{seed};
    std::mt19937 random{seed * 31};
    flash::drive_rules rules;
    rules.cache_read = pick(random, 0, 1) != 0;
    rules.pair = static_cast<flash::pairing>(pick(random, 0, 2));
    rules.arrive = static_cast<flash::arrival>(pick(random, 0, 1));
    if (pick(random, 0, 1) != 0) {
      rules.retry = flash::independent_failures(300'000'000, 5, seed);
    }
    std::vector<std::int32_t> codewords;
    for (std::size_t i = 0; i < drive.pages.size(); ++i) {
      codewords.push_back(pick(random, 0, drive.shape.codewords_per_page()));
    }
    oracle::check_against_oracle<flash::data_out_first>(drive, flash::array_operation::read, rules,
                                                        codewords);
    oracle::check_against_oracle<flash::command_first>(drive, flash::array_operation::read, rules,
                                                       codewords);
  }
}

TEST_CASE("codewords: by hand") {
  const std::vector<flash::location> pages{{.page = 0}, {.page = 1}, {.page = 2}};
  const std::vector<std::int32_t> codewords{1, 0, 3};
  std::vector<std::int64_t> finish(3);
  flash::timeline<> drive{one_die, whole_us};
  const flash::batch_times times = drive.read_codewords(pages, codewords, finish);
  CHECK(finish == std::vector<std::int64_t>{11'000'000, 25'000'000, 38'000'000});
  CHECK(times.channels[0].data_ticks == 8'000'000);
  // All of each page is a plain read, and the next batch knows nothing of the parts before.
  const std::vector<std::int32_t> all{4, 4, 0};
  CHECK(drive.read_codewords(pages, all).makespan_ticks == 42'000'000);
  CHECK(drive.read(pages).makespan_ticks == 42'000'000);
}

TEST_CASE("codewords: ticks in which a part is whole") {
  flash::timing t = whole_us;
  t.page_transfer_ps = 10;  // a quarter: 2 1/2 ps
  const flash::tick_scale scale = flash::ticks_of(t, one_die);
  CHECK(scale == flash::tick_scale{2, 20});
  flash::timeline<> drive{one_die, t};
  const flash::location page{};
  const std::int32_t three = 3;
  CHECK(drive.read_codewords({&page, 1}, {&three, 1}).makespan_ticks == 2 * t.read_ps + 15);
}

TEST_CASE("codewords: how many hold the wanted bytes") {
  CHECK(flash::codewords_of(0, 1, one_die) == 1);
  CHECK(flash::codewords_of(0, 1024, one_die) == 1);
  CHECK(flash::codewords_of(1023, 1025, one_die) == 2);
  CHECK(flash::codewords_of(0, 4096, one_die) == 4);
  CHECK(flash::codewords_of(2048, 4096, one_die) == 2);
}

TEST_CASE("codewords: an attend moves those with wanted entries, and the same entries pass") {
  const flash::receipt whole = attend(1024, flash::transfer_size::page);
  const flash::receipt parts = attend(1024, flash::transfer_size::codeword);
  CHECK(parts.traffic.pages_read == whole.traffic.pages_read);
  CHECK(parts.traffic.array_bytes == whole.traffic.array_bytes);
  CHECK(parts.traffic.filtered_bytes == whole.traffic.filtered_bytes);
  CHECK(whole.traffic.channel_bytes == whole.traffic.array_bytes);
  CHECK(parts.traffic.channel_bytes < 0.7 * static_cast<double>(whole.traffic.channel_bytes));
  CHECK(parts.traffic.channel_bytes >= parts.traffic.filtered_bytes);
  CHECK(parts.attention_ns < whole.attention_ns);
  CHECK(parts.units[flash::unit::filter] < whole.units[flash::unit::filter]);
  // One codeword a page is the whole page.
  const flash::receipt one = attend(4096, flash::transfer_size::codeword);
  CHECK(one.traffic == whole.traffic);
  CHECK(one.attention_ns == doctest::Approx(whole.attention_ns));
}

TEST_CASE("codewords: on the way to a GPU, fewer bytes cross the link, too") {
  const auto with = [](flash::transfer_size unit) {
    flash::drive_spec drive = flash::pcie4_ssd;
    drive.geometry.codeword_bytes = 1024;
    flash::engine<flexgen_sparq> engine({.layers = 1, .q_heads = 4, .kv_heads = 4},
                                        {.bytes = 64 << 20, .context_tokens = 2000}, {}, {}, drive,
                                        {}, {.transfer = unit});
    const sequence seq = engine.open();
    engine.append_untimed(seq, 0, 2000);
    const std::vector<float> q(4 * 128, 1.0f);
    std::vector<float> out(q.size());
    return engine.attend(seq, 0, q, out);
  };
  const flash::receipt whole = with(flash::transfer_size::page);
  const flash::receipt parts = with(flash::transfer_size::codeword);
  CHECK(parts.traffic.array_bytes == whole.traffic.array_bytes);
  CHECK(parts.traffic.channel_bytes < whole.traffic.channel_bytes);
  CHECK(parts.traffic.filtered_bytes == parts.traffic.channel_bytes);
  CHECK(parts.traffic.link_bytes == parts.traffic.channel_bytes + parts.traffic.buffer_bytes);
  CHECK(whole.traffic.link_bytes == whole.traffic.channel_bytes + whole.traffic.buffer_bytes);
  CHECK(parts.attention_ns < whole.attention_ns);
}

TEST_CASE("codewords: bad input is refused") {
  flash::timeline<> drive{one_die, whole_us};
  const std::vector<flash::location> pages(2);
  const auto complaint = [&](std::vector<std::int32_t> codewords) {
    try {
      drive.read_codewords(pages, codewords);
    } catch (const bad_argument& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  CHECK(complaint({1}) == "flash codewords: there must be none or one count a page (2), got 1");
  CHECK(complaint({1, 5}) == "flash codewords: page 1 has 4, got 5");
  CHECK(complaint({-1, 1}) == "flash codewords: page 0 has 4, got -1");
  CHECK(complaint({1, 4}).empty());
  using quantised = flash::engine<insta, kv_format<int8_pages<fp16>, 128>>;
  CHECK_THROWS_AS((quantised{{.layers = 1, .q_heads = 1, .kv_heads = 1},
                             {.bytes = 1 << 20, .context_tokens = 64},
                             {},
                             {},
                             flash::instcsd,
                             {},
                             {.transfer = flash::transfer_size::codeword}}),
                  bad_argument);
}
