// Plain values of the core: formats, shapes, page numbers, traffic, drawn numbers, and buffers that
// grow.

#include <doctest/doctest.h>

#include <array>
#include <string>
#include <vector>

#include "instinfer/codec/int4_groups.hpp"
#include "instinfer/codec/scaled_pages.hpp"
#include "instinfer/core/drawn_numbers.hpp"
#include "instinfer/core/page_key.hpp"
#include "instinfer/core/scratch.hpp"
#include "instinfer/core/shape.hpp"
#include "instinfer/core/traffic.hpp"

namespace instinfer::test_shape_and_traffic {

static_assert(kv_format<fp16, 128>::token_bytes == 512);
static_assert(kv_format<fp32, 64, 32>::token_bytes == 384);
static_assert(kv_format<int8_pages<fp16>, 128>::token_bytes == 256);
static_assert(kv_format<int8_pages<fp16>, 128>::element_bytes == 2);
static_assert(kv_format<int4_groups<fp16>, 128>::token_bytes == 4 * 36);
static_assert(kv_format<bf16, 64>::plain && !kv_format<fp8_pages<fp32>, 64>::plain);
static_assert(std::is_same_v<kv_format<fp8_pages<fp16>, 64>::decoded, kv_format<fp32, 64>>);
static_assert(std::is_same_v<kv_format<fp16, 64>::decoded, kv_format<fp16, 64>>);
// DeepSeek's latent rows: 512 values of the latent and 64 with a position.
static_assert(largest_head_dim == 512 + 64);
static_assert(latent_format<bf16, 576, 512>::token_bytes == 1152);
static_assert(latent_format<bf16, 576, 512>::appended_bytes == 1152);  // K alone
static_assert(kv_format<fp16, 128, 64>::appended_bytes == 384);
static_assert(kv_format<fp16, 576>::token_bytes == 2304);

// A format is padded if K's rows or V's rows are.
static_assert(!kv_format<fp16, 128, 64>::is_padded);
static_assert(kv_format<fp16, 128, 60>::is_padded && kv_format<fp16, 120, 64>::is_padded);

TEST_CASE("a model's shape") {
  const model_shape shape{.layers = 3, .q_heads = 12, .kv_heads = 4};
  CHECK(shape.group() == 3);
  CHECK(shape.q_values(64) == 768);
  CHECK(shape.kv_values(64) == 256);
  CHECK_NOTHROW(shape.validate());
  CHECK_NOTHROW(model_shape{}.validate());
  CHECK(model_shape{}.layers == 1);
  CHECK(model_shape{}.q_heads == 1);
  CHECK(model_shape{}.kv_heads == 1);
  for (const model_shape& bad : {model_shape{.layers = 0}, model_shape{.q_heads = 0},
                                 model_shape{.kv_heads = 0}, model_shape{.layers = -1}}) {
    CHECK_THROWS_WITH_AS(bad.validate(), doctest::Contains("must be positive, got"), bad_argument);
  }
  CHECK_THROWS_WITH_AS(
      (model_shape{.q_heads = 5, .kv_heads = 2}.validate()),
      "model_shape: kv_heads must divide q_heads, got 5 query heads over 2 KV heads", bad_argument);
}

TEST_CASE("page p lies on channel p % channels, in slot p / channels") {
  for (std::uint32_t channel = 0; channel < 5; ++channel) {
    for (std::uint32_t slot = 0; slot < 4; ++slot) {
      const page_id page = make_page_id(channel, slot, 5);
      CHECK(static_cast<std::uint32_t>(page) == slot * 5 + channel);
      CHECK(channel_of(page, 5) == channel);
      CHECK(slot_of(page, 5) == slot);
    }
  }
  CHECK(std::string(stream_name(stream::k_by_token)) == "K by token");
  CHECK(std::string(stream_name(stream::k_by_dim)) == "K by dim");
  CHECK(std::string(stream_name(stream::v_by_token)) == "V by token");
  CHECK(!(sequence{1, 2, nullptr} == sequence{1, 3, nullptr}));
  CHECK(!(page_key{.dim_tile = 1} == page_key{}));
  CHECK(page_key{} == page_key{0, 0, 0, stream::k_by_token, 0, 0});
  CHECK(sequence{} == sequence{0, 0, nullptr});
}

TEST_CASE("traffic adds up field by field") {
  CHECK(traffic{} == traffic{0, 0, 0, 0, 0, 0, 0, 0, 0, 0});
  const traffic a{1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
  const traffic b{10, 20, 30, 40, 50, 60, 70, 80, 90, 100};
  CHECK(a + b == traffic{11, 22, 33, 44, 55, 66, 77, 88, 99, 110});
}

TEST_CASE("drawn numbers are those of splitmix64, and normal by Box and Muller") {
  // The published outputs of splitmix64 for the seed 1234567. A normal number takes its upper half
  // as u, its lower half as the angle: sqrt(-2 ln u) cos(2 pi turn), computed in Python.
  drawn_numbers bits(1234567), normals(1234567);
  const std::pair<std::uint64_t, double> expected[] = {{6457827717110365317u, 1.4381142754486944},
                                                       {3203168211198807973u, -1.0521039449665022},
                                                       {9817491932198370423u, -0.7136369948959399},
                                                       {4593380528125082431u, 1.4107948161826769},
                                                       {16408922859458223821u, 0.4726369294805053}};
  for (const auto& [number, normal] : expected) {
    CHECK(bits.next() == number);
    CHECK(normals.normal() == doctest::Approx(normal).epsilon(1e-12));
  }
  CHECK(drawn_numbers().next() == drawn_numbers(0).next());
}

TEST_CASE("a buffer that grows doubles, and keeps what it has") {
  std::vector<int> v;
  resize_scratch(v, 3);
  CHECK(v == std::vector<int>(3, 0));
  v[2] = 5;
  const std::size_t before = v.capacity();
  resize_scratch(v, before + 1);
  CHECK(v.capacity() == std::max(before + 1, 2 * before));
  CHECK(v[2] == 5);
  CHECK(v.back() == 0);
  const std::size_t grown = v.capacity();
  resize_scratch(v, 2);
  reserve_scratch(v, grown);
  CHECK(v.capacity() == grown);
}

}  // namespace instinfer::test_shape_and_traffic
