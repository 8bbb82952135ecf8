// Parts of pages in an attend: which ones it asks for, and what they save.

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "instinfer/codec/scaled_pages.hpp"
#include "instinfer/engine/design.hpp"
#include "instinfer/flash/engine.hpp"

namespace instinfer::test_codewords {

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

}  // namespace instinfer::test_codewords
