// Quantised pages on the drive: fewer pages, less time, the same bytes down the link; and the
// translation layer carries them.

#include <random>
#include <vector>

#include <doctest/doctest.h>

#include "instinfer/codec/int4_groups.hpp"
#include "instinfer/codec/scaled_pages.hpp"
#include "instinfer/flash/engine.hpp"

namespace instinfer::test_quantised_pages {

namespace {

struct calls {
  flash::receipt append;
  flash::receipt attend;
};

// Tokens and heads that fill whole pages in all formats: 7168 = 16 * 448 = 56 * 128.
template <class Format>
calls timed() {
  flash::engine<insta, Format> engine({.layers = 1, .q_heads = 32, .kv_heads = 32},
                                      {.bytes = 256 << 20});
  const sequence seq = engine.open();
  calls done;
  done.append = engine.append_count(seq, 0, 7168);
  const std::vector<float> q(32 * 128, 1.0f);
  std::vector<float> out(32 * 128);
  done.attend = engine.attend(seq, 0, q, out);
  return done;
}

}  // namespace

TEST_CASE("pages, time and bytes on the drive follow the codec") {
  const calls wide = timed<kv_format<fp16, 128>>();
  const calls int4 = timed<kv_format<int4_groups<fp16>, 128>>();
  const calls int8 = timed<kv_format<int8_pages<fp16>, 128>>();
  CHECK(wide.append.traffic.pages_written == 32u * 2 * 448);
  CHECK(int4.append.traffic.pages_written == 32u * 2 * 128);
  CHECK(int8.append.traffic.pages_written == 32u * 2 * (7168 / 31));
  // The drive quantises: K and V come down the link as they are.
  CHECK(int4.append.traffic.link_bytes == wide.append.traffic.link_bytes);
  CHECK(wide.attend.traffic.filtered_bytes == 32u * 7168 * 2 * 256);
  CHECK(int4.attend.traffic.filtered_bytes == 32u * 7168 * 2 * 72);
  CHECK(int4.attend.traffic.buffer_bytes == 0);
  // 7 tokens are left open: they are read from the group buffer, as appended.
  CHECK(int8.attend.traffic.buffer_bytes == 32u * (7168 % 31) * 2 * 256);
  CHECK(int8.attend.traffic.filtered_bytes == 32u * 2 * (7168 / 31) * (31 * 128 + 4));
  const auto flash_ns = [](const calls& c) { return c.attend.phases.at(0).flash; };
  // 3.5 and 1.94 times fewer pages; the first array read does not shrink.
  CHECK(flash_ns(wide) / flash_ns(int4) == doctest::Approx(3.5).epsilon(0.05));
  CHECK(flash_ns(wide) / flash_ns(int8) == doctest::Approx(448.0 / 231).epsilon(0.05));
  CHECK(int4.append.flash_write_ns + int4.append.link_ns < wide.append.flash_write_ns);
}

}  // namespace instinfer::test_quantised_pages
