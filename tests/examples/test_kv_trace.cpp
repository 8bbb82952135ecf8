// The trace reader on good files, on damaged ones, and on the committed trace. Best run under
// AddressSanitizer.

#include <doctest/doctest.h>

#include <random>
#include <string>
#include <vector>

#include "instinfer/reference/exact.hpp"
#include "tests/support/definitions.hpp"
#include "tests/support/trace_file.hpp"

namespace instinfer::test_kv_trace {

using namespace test::trace_file;

namespace {

std::string from_base64(const std::string& text) {
  static const std::string alphabet =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string bytes;
  std::uint32_t bits = 0;
  int held = 0;
  for (const char c : text) {
    if (c == '=') {
      break;
    }
    const std::size_t digit = alphabet.find(c);
    REQUIRE(digit != std::string::npos);
    bits = bits << 6 | static_cast<std::uint32_t>(digit);
    held += 6;
    if (held >= 8) {
      held -= 8;
      bytes.push_back(static_cast<char>(bits >> held & 0xFF));
    }
  }
  return bytes;
}

}  // namespace

TEST_CASE_TEMPLATE("kv trace: a small file round-trips", E, fp16, bf16, fp32) {
  const char* dtype = std::is_same_v<E, fp16> ? "F16" : std::is_same_v<E, bf16> ? "BF16" : "F32";
  const trace::kv_trace read = read_bytes(good_trace<E>(dtype).bytes());
  CHECK(read.metadata.size() == 2);
  CHECK(read.metadata.at("model") == "none \"at all\"");
  CHECK(read.metadata.at("note") == "\u00fc");
  CHECK(read.tokens() == tokens);
  CHECK(read.queries() == queries);
  CHECK(read.kv_heads() == 1);
  CHECK(read.q_heads() == q_heads);
  CHECK(read.head_dim() == dims);
  REQUIRE(read.layers.size() == 2);
  CHECK(read.layers[0].index == 3);  // ascending, whatever the order in the file
  CHECK(read.layers[1].index == 11);
  for (const trace::layer& layer : read.layers) {
    const auto from = static_cast<std::size_t>(layer.index);
    CHECK(layer.k.values == values(tokens * dims, from));
    CHECK(layer.v.values == values(tokens * dims, from + 1000));
    CHECK(layer.q.values == values(queries * q_heads * dims, from + 2000));
    const auto row = layer.q.row(2);
    CHECK(row.size() == q_heads * dims);
    CHECK(row[0] == value(from + 2000 + 2 * q_heads * dims));
  }
}

TEST_CASE(
    "kv trace: types may differ by tensor, metadata may be missing, the header may be padded") {
  small_trace mixed;
  for (const char* name : {"11.k", "11.v", "11.q", "3.k", "3.q", "3.v"}) {  // not as the data lies
    mixed.header["layers." + std::string(name)] = json();
  }
  for (const int layer : {11, 3}) {
    const std::string prefix = "layers." + std::to_string(layer) + ".";
    const auto from = static_cast<std::size_t>(layer);
    mixed.add<fp32>(prefix + "k", "F32", {tokens, 1, dims}, values(tokens * dims, from));
    mixed.add<bf16>(prefix + "v", "BF16", {tokens, 1, dims}, values(tokens * dims, from + 1000));
    mixed.add<fp16>(prefix + "q", "F16", {queries, q_heads, dims},
                    values(queries * q_heads * dims, from + 2000));
  }
  const trace::kv_trace expected = read_bytes(good_trace<fp16>("F16").bytes());
  CHECK(same(read_bytes(mixed.bytes()), expected));
  const std::string padded = mixed.header.dump() + std::string(13, ' ');
  const trace::kv_trace read = read_bytes(file_of(padded.size(), padded, mixed.data));
  CHECK(same(read, expected));
  CHECK(read.metadata.empty());
}

TEST_CASE("kv trace: every truncation is refused") {
  const std::string whole = good_trace<fp16>("F16").bytes();
  REQUIRE(whole.size() > 800);
  REQUIRE(whole.size() < 4000);
  REQUIRE(refusal(whole).empty());
  for (std::size_t length = 0; length < whole.size(); ++length) {
    CAPTURE(length);
    CHECK(refusal(whole.substr(0, length)) != "");
  }
}

TEST_CASE("kv trace: no flipped byte of the header gives other data") {
  const small_trace good = good_trace<fp16>("F16");
  const std::string whole = good.bytes();
  const trace::kv_trace expected = read_bytes(whole);
  const std::size_t header_end = whole.size() - good.data.size();
  for (std::size_t at = 0; at < header_end; ++at) {
    CAPTURE(at);
    for (const int flip : {1, 2, 4, 8, 16, 32, 64, 128, 255}) {
      CAPTURE(flip);
      std::string flipped = whole;
      flipped[at] = static_cast<char>(flipped[at] ^ flip);
      CHECK(refused_or_same(flipped, expected));
    }
  }
}

TEST_CASE("kv trace: random bytes in place of the file or of its header") {
  const small_trace good = good_trace<fp16>("F16");
  const trace::kv_trace expected = read_bytes(good.bytes());
  for (unsigned seed = 1; seed <= 300; ++seed) {
    CAPTURE(seed);
    std::mt19937 random(seed);
    std::string noise(random() % 400, '\0');
    for (char& c : noise) {
      c = static_cast<char>(random());
    }
    CHECK(refusal(noise) != "");
    CHECK(refusal(file_of(noise.size(), noise, good.data)) != "");
    std::string several = good.bytes();
    for (int i = 0; i < 3; ++i) {
      several[random() % (several.size() - good.data.size())] = static_cast<char>(random());
    }
    CHECK(refused_or_same(several, expected));
  }
}

// check_outputs: base64 of F16 [layers, check_positions, q_heads, head_dim]; see
// examples/traces/README.md.
TEST_CASE("kv trace: the committed trace gives the model's own outputs") {
  const trace::kv_trace t = trace::read(INSTINFER_TRACE);
  REQUIRE(t.layers.size() == 3);
  CHECK(t.layers[0].index == 7);
  CHECK(t.layers[1].index == 15);
  CHECK(t.layers[2].index == 22);
  CHECK(t.tokens() == 4096);
  CHECK(t.queries() == 256);
  CHECK(t.kv_heads() == 2);
  CHECK(t.q_heads() == 6);
  CHECK(t.head_dim() == 64);
  CHECK(t.metadata.at("check_positions") == "3840,3968,4095");
  const std::string stored = from_base64(t.metadata.at("check_outputs"));
  REQUIRE(stored.size() == 3 * 3 * 6 * 64 * sizeof(fp16));

  std::size_t at = 0;
  for (const trace::layer& layer : t.layers) {
    CAPTURE(layer.index);
    for (const std::size_t position : {3840u, 3968u, 4095u}) {
      CAPTURE(position);
      const auto visible = static_cast<Eigen::Index>(position + 1);
      for (std::size_t head = 0; head < 6; ++head) {
        CAPTURE(head);
        const std::size_t kv_head = head / 3;
        reference::matrix K(visible, 64), V(visible, 64);
        for (Eigen::Index token = 0; token < visible; ++token) {
          for (std::size_t i = 0; i < 64; ++i) {
            const auto column = static_cast<Eigen::Index>(i);
            K(token, column) =
                static_cast<double>(layer.k.row(static_cast<std::size_t>(token))[kv_head * 64 + i]);
            V(token, column) =
                static_cast<double>(layer.v.row(static_cast<std::size_t>(token))[kv_head * 64 + i]);
          }
        }
        reference::row_vector q(64), expected(64);
        for (std::size_t i = 0; i < 64; ++i) {
          const auto column = static_cast<Eigen::Index>(i);
          q[column] = static_cast<double>(layer.q.row(position - 3840)[head * 64 + i]);
          fp16 x;
          std::memcpy(&x, stored.data() + at, sizeof(x));
          at += sizeof(x);
          expected[column] = static_cast<double>(to_float(x));
        }
        REQUIRE(expected.norm() > 0);
        CHECK((test::defined_attention(q, K, V) - expected).norm() <= 1e-2 * expected.norm());
      }
    }
  }
}

}  // namespace instinfer::test_kv_trace
