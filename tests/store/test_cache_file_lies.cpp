// Cache files whose checksums are right and whose sizes are not: each is refused before a size is
// relied on, and the engine is then as before.

#include <doctest/doctest.h>

#include <functional>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "instinfer/methods.hpp"
#include "instinfer/reference.hpp"
#include "tests/support/normals.hpp"

namespace instinfer::test_cache_file_lies {

namespace {

using format = kv_format<fp16, 64>;
constexpr int layers = 2;
constexpr std::uint32_t tokens = 150;

template <class Method>
using engine_of =
    reference::engine<design<Method, layout::token_indexed<>, flash::instcsd, transfer::in_storage>,
                      format>;

template <class Method>
engine_of<Method> make_engine() {
  return {{.layers = layers, .q_heads = 2, .kv_heads = 2},
          {.bytes = 8 << 20, .context_tokens = 256}};
}

// What a file says of its layers, before it is written.
using extents_edit = std::function<void(std::vector<store::layer_extent>&)>;

// Replaces the summaries of head 0 in layer 0 by those of another sequence; nothing: they stay.
struct lie {
  extents_edit extents = [](auto&) {};
  std::uint32_t summaries_of_tokens = tokens;
};

// As store::save writes it, checksums included, but for the lie.
template <class Method>
std::string lying_file(const lie& told) {
  auto engine = make_engine<Method>();
  const auto fill = [&](std::uint32_t count) {
    const sequence seq = engine.open();
    std::mt19937 random(1);
    normal_distribution normal;
    std::vector<fp16> kv(std::size_t{count} * 2 * 64);
    for (fp16& x : kv) {
      x = from_float<fp16>(normal(random));
    }
    for (int l = 0; l < layers; ++l) {
      engine.append(seq, l, kv, kv);
    }
    return seq;
  };
  const sequence seq = fill(tokens);
  const sequence other = fill(told.summaries_of_tokens);
  const auto& cache = engine.cache();

  std::ostringstream out;
  store::file_writer to{out};
  store::cache_file_mark mark;
  std::string description = store::file_description(cache, "", cache.tiles());
  std::vector<store::layer_extent> extents;
  for (int l = 0; l < layers; ++l) {
    extents.push_back(cache.at(seq, l).extent());
  }
  told.extents(extents);
  to(mark, description, extents);
  to.end_block();
  for (int l = 0; l < layers; ++l) {
    const auto& layer = cache.at(seq, l);
    layer.for_each_stream([&](const auto& s) {
      s.save(cache.pages(), layer.tokens(),
             [&](std::span<const std::byte> bytes) { to.bytes(bytes); });
    });
    for (std::uint32_t h = 0; h < 2; ++h) {
      auto& states = cache.at(l == 0 && h == 0 ? other : seq, l).summaries(h);
      layer.summaries().for_each(states, [&](auto& state) { state.each_part(to); });
    }
    to.end_block();
  }
  return out.str();
}

// Why a load of the file is refused; "" where it is taken.
template <class Method>
std::string why_refused(const std::string& file) {
  auto engine = make_engine<Method>();
  const sequence seq = engine.open();
  const std::uint64_t free_pages = engine.cache().pages().free_pages();
  std::istringstream in(file);
  try {
    engine.load(seq, in);
  } catch (const error& e) {
    CHECK(engine.tokens(seq, 0) == 0);
    CHECK(engine.cache().pages().free_pages() == free_pages);
    return e.what();
  }
  CHECK(engine.tokens(seq, 0) == tokens);
  return "";
}

void check_extents(const extents_edit& edit, const std::string& why) {
  CAPTURE(why);
  const std::string refusal =
      why_refused<attention::dense>(lying_file<attention::dense>({.extents = edit}));
  CHECK(refusal.find(why) != std::string::npos);
}

template <class Method>
void check_summaries() {
  CHECK(why_refused<Method>(lying_file<Method>({})).empty());
  for (const std::uint32_t count : {1u, tokens - 1, tokens + 17, 1024u}) {
    CAPTURE(count);
    const std::string refusal =
        why_refused<Method>(lying_file<Method>({.summaries_of_tokens = count}));
    CHECK(refusal.find("the summaries of layer 0 of the file are not those of 150 live tokens") !=
          std::string::npos);
  }
}

}  // namespace

TEST_CASE("a file with another number of layers than its description says") {
  check_extents([](auto& e) { e.resize(1); }, "the file has 1 layers, the cache 2");
  check_extents([](auto& e) { e.clear(); }, "the file has 0 layers, the cache 2");
  check_extents([](auto& e) { e.resize(3); }, "the file has 3 layers, the cache 2");
}

TEST_CASE("a file with other pages than its tokens lie in") {
  check_extents([](auto& e) { e[1].pages += 1; }, "layer 1 of the file has");
  check_extents([](auto& e) { e[0].pages = e[1].pages = std::uint64_t{1} << 63; },
                "layer 0 of the file has 9223372036854775808 pages");
  check_extents([](auto& e) { e[0].tokens += 32; }, "layer 0 of the file has");
  check_extents([](auto& e) { e[1].base = 33; },
                "layer 1 of the file counts tokens from position 33, which is no multiple of 32");
  check_extents([](auto& e) { e[0].first = 64; }, "layer 0 of the file has");
}

TEST_CASE("a file whose live tokens begin behind their end") {
  check_extents([](auto& e) { e[0].first = tokens + 1; },
                "layer 0 of the file has live tokens from 151 on, of 150");
  check_extents([](auto& e) { e[1].first = tokens + 2; },
                "layer 1 of the file has live tokens from 152 on, of 150");
}

TEST_CASE("a file whose summaries are those of another number of tokens") {
  check_summaries<attention::quest>();
  check_summaries<attention::h2o>();
  check_summaries<attention::hgca>();
  check_summaries<attention::sparq>();
}

}  // namespace instinfer::test_cache_file_lies
