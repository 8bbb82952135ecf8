// A cache file on the modelled drive: pages are programmed, and a translation layer takes them as
// any others.

#include <doctest/doctest.h>

#include <random>
#include <sstream>

#include "instinfer/flash/engine.hpp"
#include "instinfer/flash/ftl_store.hpp"
#include "instinfer/reference.hpp"
#include "tests/support/normals.hpp"

namespace instinfer::test_cache_file {

namespace {

using format = kv_format<fp16, 16>;

// 8 channels of 2 planes: 3072 pages of 4 KiB.
constexpr flash::geometry little{
    .channels = 8, .chips = 1, .dies = 1, .planes = 2, .blocks = 48, .pages = 4};
constexpr flash::drive_spec little_drive = [] {
  flash::drive_spec drive = flash::instcsd;
  drive.geometry = little;
  return drive;
}();
using on_ftl = flash::ftl_store<little, flash::kv_blocks{.frontiers = 4}, flash::page_array>;
using mine = design<attention::sparf, layout::dual<>, little_drive, transfer::in_storage>;
using timed_engine = flash::engine<mine, format, reference::path, flash::data_out_first, on_ftl>;
using plain_engine = reference::engine<mine, format>;

}  // namespace

TEST_CASE("a sequence of a plain engine is loaded to the drive, and costs its programs") {
  const model_shape shape{.layers = 2, .q_heads = 4, .kv_heads = 4};
  const store::capacity capacity{.bytes = 1024 * 4096, .context_tokens = 512};
  std::mt19937 random(1);
  plain_engine plain(shape, capacity);
  const sequence a = plain.open();
  for (int layer = 0; layer < shape.layers; ++layer) {
    const auto k = normals(random, 1500 * 4 * 16);
    plain.append(a, layer, k, normals(random, k.size()));
  }
  std::stringstream file;
  plain.save(a, file);

  timed_engine timed(shape, capacity);
  const sequence b = timed.open();
  const flash::receipt loaded = timed.load(b, file);
  CHECK(loaded.traffic.pages_written == 2 * plain.cache().at(a, 0).extent().pages);
  CHECK(loaded.traffic.pages_written == timed.pages().translation().counters().host_pages);
  CHECK(loaded.traffic.link_bytes == file.str().size());
  // 16 planes program at a time, 450 us each; the bus between them is far less, the link not seen.
  const double programs = static_cast<double>(loaded.traffic.pages_written) / 16 * 450e3;
  CHECK(loaded.flash_write_ns >= programs);
  CHECK(loaded.flash_write_ns < 1.5 * programs);
  CHECK(loaded.link_ns == 0);

  std::vector<float> expected(4 * 16);
  std::vector<float> out(expected.size());
  for (int step = 0; step < 40; ++step) {
    for (int layer = 0; layer < shape.layers; ++layer) {
      const auto k = normals(random, 4 * 16);
      const auto v = normals(random, k.size());
      std::vector<float> q;
      for (const fp16 x : normals(random, k.size())) {
        q.push_back(to_float(x));
      }
      plain.append(a, layer, k, v);
      timed.append(b, layer, k, v);
      plain.attend(a, layer, q, expected);
      timed.attend(b, layer, q, out);
      REQUIRE(out == expected);
    }
  }
  std::stringstream of_plain;
  std::stringstream of_timed;
  plain.save(a, of_plain);
  timed.save(b, of_timed);
  CHECK(of_timed.str() == of_plain.str());
  timed.reclaim(b);
  CHECK(timed.pages().free_pages() == timed.pages().capacity_pages());
}

TEST_CASE("a damaged file leaves no page on the drive") {
  const model_shape shape{.layers = 1, .q_heads = 4, .kv_heads = 4};
  const store::capacity capacity{.bytes = 1024 * 4096, .context_tokens = 512};
  std::mt19937 random(2);
  plain_engine plain(shape, capacity);
  const sequence a = plain.open();
  const auto k = normals(random, 1000 * 4 * 16);
  plain.append(a, 0, k, k);
  std::ostringstream file;
  plain.save(a, file);
  timed_engine timed(shape, capacity);
  const sequence b = timed.open();
  for (const std::size_t length : {file.str().size() - 1, file.str().size() / 2}) {
    std::istringstream in(file.str().substr(0, length));
    CHECK_THROWS_AS(timed.load(b, in), bad_file);
    CHECK(timed.pages().translation().live_pages() == 0);
    CHECK(timed.tokens(b, 0) == 0);
  }
  std::istringstream in(file.str());
  timed.load(b, in);
  CHECK(timed.tokens(b, 0) == 1000);
}

}  // namespace instinfer::test_cache_file
