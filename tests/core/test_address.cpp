#include <random>

#include <doctest/doctest.h>

#include "instinfer/core/address.hpp"

namespace instinfer::test_address {

namespace {

template <class F>
std::string overflow_message(F&& f) {
  try {
    f();
  } catch (const address_overflow& e) {
    return e.what();
  }
  return "no error";
}

}  // namespace

TEST_CASE("the example of Fig. 10 fits 32 bits") {
  const address_codec codec(paper_address_lengths, 32);
  CHECK(codec.bits() == 0 + 2 + 6 + 5 + 6 + 7);
  CHECK(codec.encode({.task = 0, .batch = 3, .layer = 63, .token = 31, .head = 39, .dim = 127}) ==
        ((((std::uint64_t{3} << 6 | 63) << 5 | 31) << 6 | 39) << 7 | 127));
}

TEST_CASE("fields that are not given are 0") {
  CHECK(address_fields{} == address_fields{0, 0, 0, 0, 0, 0});
}

TEST_CASE("addresses round-trip and are distinct") {
  std::mt19937_64 random(3);
  for (int round = 0; round < 500; ++round) {
    const address_lengths lengths{.task = 1 + random() % 5,
                                  .batch = 1 + random() % 300,
                                  .layer = 1 + random() % 100,
                                  .token = 1 + random() % 5000,
                                  .head = 1 + random() % 128,
                                  .dim = 1 + random() % 256};
    const address_codec codec(lengths);
    const auto draw = [&] {
      return address_fields{random() % lengths.task,  random() % lengths.batch,
                            random() % lengths.layer, random() % lengths.token,
                            random() % lengths.head,  random() % lengths.dim};
    };
    const address_fields a = draw();
    const address_fields b = draw();
    CHECK(codec.decode(codec.encode(a)) == a);
    CHECK((codec.encode(a) == codec.encode(b)) == (a == b));
  }
}

TEST_CASE("overflow is an error that names the field") {
  const address_codec codec(paper_address_lengths, 32);
  CHECK(overflow_message([&] { (void)codec.encode({.head = 40}); }) ==
        "address: field Head holds 0 to 39, got 40");
  CHECK(overflow_message([&] { (void)codec.encode({.token = 32}); }) ==
        "address: field Token holds 0 to 31, got 32");
  CHECK(overflow_message([] {
          address_codec({.token = 1u << 31}, 32);
        }).find("the address has 32") != std::string::npos);
  CHECK_THROWS_AS(address_codec({.layer = 0}), bad_argument);
}

TEST_CASE("pages of different streams and heads have different addresses within an L2P table") {
  const address_codec codec;
  const page_key k{
      .sequence_slot = 1, .layer = 2, .kv_head = 3, .kind = stream::k_by_token, .token_tile = 4};
  page_key v = k;
  v.kind = stream::v_by_token;
  CHECK(codec.encode(k) != codec.encode(v));
}

TEST_CASE("K and V by token have half of the dim tiles each, K by dim has all") {
  const address_codec codec({.token = 16, .dim = 8});
  const auto dim_of = [&](stream kind, std::uint32_t tile) {
    return codec.decode(codec.encode(page_key{.kind = kind, .token_tile = 9, .dim_tile = tile}))
        .dim;
  };
  for (std::uint32_t tile = 0; tile < 4; ++tile) {
    CHECK(dim_of(stream::k_by_token, tile) == tile);
    CHECK(dim_of(stream::v_by_token, tile) == tile + 4);
    CHECK(dim_of(stream::k_by_dim, tile + 4) == tile + 4);
  }
  for (const stream kind : {stream::k_by_token, stream::v_by_token}) {
    CHECK(overflow_message([&] { (void)dim_of(kind, 4); }) ==
          "address: field Dim of length 8 holds 4 dim tiles each of K and V by token, got tile 4");
  }
  CHECK(overflow_message([&] { (void)dim_of(stream::k_by_dim, 8); }) ==
        "address: field Dim holds 0 to 7, got 8");
}

}  // namespace instinfer::test_address
