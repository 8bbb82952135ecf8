// Dense attention over int8, fp8 and 4-bit pages of whole rows.

#include "quantised.hpp"
#include "tests/support/normals.hpp"

using namespace instinfer;

namespace {

// A format for each codec: few, since a codec's kernels are compiled for coded and for open pages.
// Other elements and head sizes are in test_quantised_layouts.cpp.
using int8 = kv_format<int8_pages<fp32>, 128, 64>;
using eight_bits = kv_format<fp8_pages<bf16>, 64>;
using int4 = kv_format<int4_groups<fp32>, 128>;
using dims_in_int4 = kv_format<int4_dims<fp16>, 128>;

template <class Format>
void check_dense() {
  for (const int group : {1, 3, 8, 18}) {  // 18: by matrix tiles
    test::check_life<reference::engine<insta, Format>, Format>(31, group);
    test::check_life<cpu::engine<insta, Format>, Format>(32, group);
  }
}

// The workload of many retrieval papers in small: runs of tokens (geometric, mean 24) about one of
// 64 topics, queries about one.
template <class Format>
test::random_cache<Format> topics(unsigned seed, int tokens, int queries, float offset) {
  std::mt19937 random(seed);
  normal_distribution normal;
  const int d = Format::k_dim;
  test::random_cache<Format> data(seed, tokens, queries, 1);
  const auto draw = [&](int n) {
    std::vector<float> x(static_cast<std::size_t>(n));
    std::ranges::generate(x, [&] { return normal(random); });
    return x;
  };
  std::vector<float> directions = draw(64 * d);
  for (int t = 0; t < 64; ++t) {
    const auto u =
        std::span(directions).subspan(static_cast<std::size_t>(t * d), static_cast<std::size_t>(d));
    float square = 0;
    for (const float x : u) {
      square += x * x;
    }
    std::ranges::for_each(u, [&](float& x) { x /= std::sqrt(square); });
  }
  const std::vector<float> means = draw(64 * d);
  const std::vector<float> common = draw(d);
  std::size_t topic = 0;
  for (int t = 0; t < tokens; ++t) {
    if (t == 0 || random() % 24 == 0) {
      topic = random() % 64;
    }
    for (int i = 0; i < d; ++i) {
      const auto at = topic * static_cast<std::size_t>(d) + static_cast<std::size_t>(i);
      const auto to = static_cast<std::size_t>(t * d + i);
      data.k[to] =
          from_float<typename Format::element>(6 * directions[at] + 0.5f * normal(random) +
                                               offset * common[static_cast<std::size_t>(i)]);
      data.v[to] = from_float<typename Format::element>(0.7f * means[at] + 0.5f * normal(random));
    }
  }
  for (std::size_t h = 0; h < static_cast<std::size_t>(queries); ++h) {
    topic = random() % 64;
    for (std::size_t i = 0; i < static_cast<std::size_t>(d); ++i) {
      data.q[h * static_cast<std::size_t>(d) + i] =
          12 * directions[topic * static_cast<std::size_t>(d) + i] + 0.5f * normal(random);
    }
  }
  return data;
}

// Mean error of 32 queries against attention over the values as they were appended.
template <class Format>
double loss(float offset) {
  double sum = 0;
  const test::random_cache<Format> data = topics<Format>(7, 4096, 32, offset);
  reference::engine<insta, Format> engine({.layers = 1, .q_heads = 32, .kv_heads = 1}, {});
  const sequence seq = engine.open();
  engine.append(seq, 0, data.k, data.v);
  std::vector<float> out(static_cast<std::size_t>(32 * Format::v_dim));
  engine.attend(seq, 0, data.q, out);
  for (int h = 0; h < 32; ++h) {
    const auto mine =
        std::span(out).subspan(static_cast<std::size_t>(h * Format::v_dim), Format::v_dim);
    sum += test::relative_error(mine, test::defined_attention(data.Q(h), data.K(0, 0, data.tokens),
                                                              data.V(0, 0, data.tokens)));
  }
  return sum / 32;
}

}  // namespace

TEST_CASE("int8 pages, keys and values of other lengths") { check_dense<int8>(); }

TEST_CASE("fp8 pages") { check_dense<eight_bits>(); }

TEST_CASE("int4 groups") { check_dense<int4>(); }

TEST_CASE("int4 groups with a scale for each dim of K") { check_dense<dims_in_int4>(); }

TEST_CASE_TEMPLATE("biases, masks and sinks over coded and open pages: as the reference", format,
                   int8, eight_bits, int4) {
  const test::random_cache<format> data(41, 333, 6, 2);  // the last pages are open
  const std::vector<float> slopes{0.5f, 0.02f, 0.1f, 0.25f, 0.0f, -0.03f};
  const std::vector<float> sinks{1, 2, 3, 4, 5, 6};
  index_set shown;
  for (std::uint32_t t = 0; t < 333; t += 5) {
    shown.add(t, t + 3);
  }
  const auto attend = [&](auto engine) {
    const sequence seq = engine.open();
    engine.append(seq, 0, data.k, data.v);
    std::vector<float> out(static_cast<std::size_t>(6 * format::v_dim));
    const attend_request request{.seq = seq, .q = data.q, .out = out, .visible = &shown};
    typename decltype(engine)::scratch work;
    engine.attend(std::span(&request, 1), 0, work, parallel::serial{});
    return out;
  };
  const model_shape shape{.layers = 1, .q_heads = 6, .kv_heads = 2};
  const logit_rule rule{.slopes = slopes, .sink_logits = sinks};
  const auto mine = attend(cpu::engine<insta, format>(shape, test::small_capacity, {}, rule));
  const auto exact =
      attend(reference::engine<insta, format>(shape, test::small_capacity, {}, rule));
  const auto plain = attend(cpu::engine<insta, format>(shape, test::small_capacity));
  constexpr auto row = static_cast<std::size_t>(format::v_dim);
  for (std::size_t h = 0; h < 6; ++h) {
    test::row_vector expected(format::v_dim);
    for (std::size_t i = 0; i < row; ++i) {
      expected[static_cast<Eigen::Index>(i)] = static_cast<double>(exact[h * row + i]);
    }
    const auto at = [&](const std::vector<float>& x) { return std::span(x).subspan(h * row, row); };
    CHECK(test::relative_error(at(mine), expected) <= test::tolerance<cpu::path>(333));
    CHECK(test::relative_error(at(plain), expected) > 0.01);
  }
}

TEST_CASE("what quantisation costs on a synthetic workload of topics") {
  for (const float offset : {0.0f, 3.0f}) {
    CAPTURE(offset);
    const double int4 = loss<kv_format<int4_groups<fp16>, 64>>(offset);
    const double int4_by_dim = loss<kv_format<int4_dims<fp16>, 64>>(offset);
    const double int8 = loss<kv_format<int8_pages<fp16>, 64>>(offset);
    const double int8_by_dim = loss<kv_format<int8_dims<fp16>, 64>>(offset);
    const double fp8 = loss<kv_format<fp8_pages<fp16>, 64>>(offset);
    const double plain = loss<kv_format<fp16, 64>>(offset);
    CHECK(int4 < 8e-2);
    CHECK(fp8 < 8e-2);
    CHECK(int8 < 2e-2);
    CHECK(plain < 1e-6);
    CHECK(int8 < int4);
    if (offset > 0) {  // dims of K that keep their sign
      CHECK(int4_by_dim < int4);
      CHECK(int8_by_dim < int8);
    }
  }
}

TEST_CASE("receipts: coded entries pass the filter, appended ones the group buffer") {
  for (const int tokens : {0, 1, 56, 57, 700}) {
    test::check_coded_traffic<insta, int8, cpu::path>(tokens);
    test::check_coded_traffic<insta, int4, cpu::path>(tokens);
  }
  // 448 tokens are 28 pages of 16 in fp16, and 8 of 56 in 4 bits: two heads, K and V.
  CHECK(test::check_coded_traffic<insta, kv_format<fp16, 128>, reference::path>(448).pages_read ==
        112);
  const traffic coded = test::check_coded_traffic<insta, int4, reference::path>(448);
  CHECK(coded.pages_read == 32);
  CHECK(coded.filtered_bytes == 448u * 2 * 2 * 72);
  // With scales of dims, 4 bytes of 128 dims leave room for 49 tokens. Two heads.
  const test::random_cache<dims_in_int4> data(12, 98, 2, 2);
  reference::engine<insta, dims_in_int4> engine({.layers = 1, .q_heads = 2, .kv_heads = 2}, {});
  const sequence seq = engine.open();
  engine.append(seq, 0, data.k, data.v);
  std::vector<float> out(256);
  const traffic scaled = engine.attend(seq, 0, data.q, out).traffic;
  CHECK(scaled.pages_read == 2 * 2 * 2);
  CHECK(scaled.filtered_bytes == 98u * 2 * 2 * 72 + 2 * 2 * 512);
}

TEST_CASE_TEMPLATE("adversarial values: what is stored is attended exactly", format, int8,
                   eight_bits) {
  for (const float size : {0.0f, 1e-42f, 1e-30f, 1.0f, 1e18f, test::near_largest}) {
    CAPTURE(size);
    test::random_cache<format> data(5, 200, 2, 1);
    for (std::size_t i = 0; i < data.k.size(); ++i) {
      if (i % 1000 == 17) {  // an outlier on some pages
        data.k[i] = from_float<typename format::element>(100.0f);
      }
    }
    data.multiply_v(size);
    cpu::engine<insta, format> engine({.layers = 1, .q_heads = 2, .kv_heads = 1}, {});
    const sequence seq = engine.open();
    engine.append(seq, 0, data.k, data.v);
    std::vector<float> out(2 * 64);
    engine.attend(seq, 0, data.q, out);
    for (int h = 0; h < 2; ++h) {
      const reference::row_vector expected = test::defined_attention(
          data.Q(h), test::stored_rows(engine, seq, 0, 0, stream::k_by_token),
          test::stored_rows(engine, seq, 0, 0, stream::v_by_token));
      const auto mine = std::span(out).subspan(static_cast<std::size_t>(h * 64), 64);
      double difference = 0;
      for (int i = 0; i < 64; ++i) {
        difference = std::max(
            difference,
            std::abs(static_cast<double>(mine[static_cast<std::size_t>(i)]) - expected[i]));
      }
      // Beside the usual tolerance, products below 2^-126 lose up to 2^-149 each.
      CHECK(difference <=
            test::tolerance<cpu::path>(200) * expected.cwiseAbs().maxCoeff() + 200 * 0x1p-126);
    }
  }
}

TEST_CASE("values that 4-bit groups cannot hold are refused, and nothing is lost") {
  using format = int4;
  reference::engine<insta, format> engine({.layers = 1, .q_heads = 1, .kv_heads = 1}, {});
  const sequence seq = engine.open();
  std::vector<float> k(128 * 150, 1.0f);
  std::vector<float> v(128 * 150, 2.0f);
  engine.append(seq, 0, k, v);
  const std::uint64_t free = engine.cache().pages().free_pages();
  v[128 * 149 + 5] = 65536.0f;
  CHECK_THROWS_WITH_AS(
      engine.append(seq, 0, k, v),
      "append: v must be in the range of int4 pages, is 65536.000000 at [token 149, head 0, dim 5]",
      bad_argument);
  CHECK(engine.tokens(seq, 0) == 150);
  CHECK(engine.cache().pages().free_pages() == free);
  std::vector<float> q(128, 1.0f);
  std::vector<float> out(128);
  engine.attend(seq, 0, q, out);
  CHECK(out == std::vector<float>(128, 2.0f));
}
