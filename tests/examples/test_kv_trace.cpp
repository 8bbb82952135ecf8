// The trace reader on good files, on every kind of bad one, and on the committed trace. Best run under AddressSanitizer.

#include <doctest/doctest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "instinfer/reference/exact.hpp"
#include "support/kv_trace.hpp"

namespace instinfer::test_kv_trace {

namespace fs = std::filesystem;
using json = nlohmann::ordered_json;

namespace {

// A folder of this test run's own, gone at its end.
struct temporary_folder {
  fs::path path;
  temporary_folder() {
    std::random_device random;
    path = fs::temp_directory_path() / ("instinfer_trace_" + std::to_string(random()));
    fs::create_directory(path);
  }
  ~temporary_folder() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
  temporary_folder(const temporary_folder&) = delete;
  temporary_folder& operator=(const temporary_folder&) = delete;
};

std::string path_in_folder(const char* name) {
  static const temporary_folder folder;
  return (folder.path / name).string();
}

void write(const std::string& path, const std::string& bytes) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  REQUIRE(out.good());
}

// A header length that says `length`, then the text and the data as they are.
std::string file_of(std::uint64_t length, const std::string& header, const std::string& data) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) {
    bytes.push_back(static_cast<char>(length >> (8 * i) & 0xFF));
  }
  return bytes + header + data;
}

// A small trace that a case can break before it is written.
struct small_trace {
  json header = json::object();
  std::string data;

  template <Element E>
  void add(const std::string& name, const char* dtype, std::vector<std::size_t> shape,
           const std::vector<float>& values) {
    const std::size_t begin = data.size();
    for (const float x : values) {
      const E e = from_float<E>(x);
      data.append(reinterpret_cast<const char*>(&e), sizeof(E));
    }
    header[name] = {{"dtype", dtype}, {"shape", shape}, {"data_offsets", {begin, data.size()}}};
  }

  std::string bytes() const {
    const std::string text = header.dump();
    return file_of(text.size(), text, data);
  }
};

// 5 tokens, 1 KV head of 8 dims, 2 query heads, the last 3 positions' queries; layers 3 and 11.
constexpr std::size_t tokens = 5, dims = 8, q_heads = 2, queries = 3;

float value(std::size_t i) {
  return static_cast<float>(static_cast<int>(i * 37 % 101) - 50) / 16.0f;
}

std::vector<float> values(std::size_t count, std::size_t from) {
  std::vector<float> all(count);
  for (std::size_t i = 0; i < count; ++i) {
    all[i] = value(from + i);  // sixteenths below 4: the same in all three types
  }
  return all;
}

template <Element E>
small_trace good_trace(const char* dtype) {
  small_trace trace;
  trace.header["__metadata__"] = {{"model", "none \"at all\""}, {"note", "\u00fc"}};
  for (const int layer : {11, 3}) {
    const std::string prefix = "layers." + std::to_string(layer) + ".";
    const auto from = static_cast<std::size_t>(layer);
    trace.add<E>(prefix + "k", dtype, {tokens, 1, dims}, values(tokens * dims, from));
    trace.add<E>(prefix + "v", dtype, {tokens, 1, dims}, values(tokens * dims, from + 1000));
    trace.add<E>(prefix + "q", dtype, {queries, q_heads, dims},
                 values(queries * q_heads * dims, from + 2000));
  }
  return trace;
}

trace::kv_trace read_bytes(const std::string& bytes) {
  const std::string path = path_in_folder("trace.safetensors");
  write(path, bytes);
  return trace::read(path);
}

bool same(const trace::tensor& a, const trace::tensor& b) {
  return a.shape == b.shape && a.values == b.values;
}

bool same(const trace::kv_trace& a, const trace::kv_trace& b) {
  return std::ranges::equal(a.layers, b.layers, [](const trace::layer& x, const trace::layer& y) {
    return x.index == y.index && same(x.k, y.k) && same(x.v, y.v) && same(x.q, y.q);
  });
}

// The sentence that a file is refused with; "" if it is read.
std::string refusal(const std::string& bytes) {
  try {
    (void)read_bytes(bytes);
  } catch (const bad_file& e) {
    return e.what();
  }
  return "";
}

// Refused, or read as if nothing had been done to it; the metadata may differ.
bool refused_or_same(const std::string& bytes, const trace::kv_trace& expected) {
  try {
    return same(read_bytes(bytes), expected);
  } catch (const bad_file&) {
    return true;
  }
}

void check_refused(const small_trace& trace, const std::string& expected) {
  const std::string said = refusal(trace.bytes());
  INFO("said: ", said);
  INFO("expected: ", expected);
  CHECK(said.find(expected) != std::string::npos);
  CHECK(said.find(path_in_folder("trace.safetensors")) == 0);  // and which file
}

void check_refused(const std::function<void(small_trace&)>& break_it, const std::string& expected) {
  small_trace trace = good_trace<fp16>("F16");
  break_it(trace);
  check_refused(trace, expected);
}

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

TEST_CASE("kv trace: header lengths that no file has") {
  const small_trace good = good_trace<fp16>("F16");
  const std::string text = good.header.dump();
  for (const std::uint64_t length :
       {std::uint64_t{1} << 63, ~std::uint64_t{0}, ~std::uint64_t{0} - 7, std::uint64_t{1} << 40,
        std::uint64_t{text.size() + good.data.size() + 1}}) {
    CAPTURE(length);
    const std::string said = refusal(file_of(length, text, good.data));
    CHECK(said.find("its header should have " + std::to_string(length) + " bytes") !=
          std::string::npos);
  }
  CHECK(refusal(file_of(0, "", "")).find("not a JSON object") != std::string::npos);
  CHECK(refusal(file_of(2, "[]", "")).find("not a JSON object") != std::string::npos);
  CHECK(refusal(file_of(4, "null", "")).find("not a JSON object") != std::string::npos);
  CHECK(refusal(file_of(2, "{}", "")).find("has no tensors layers.<n>.k, .v, .q") !=
        std::string::npos);
}

TEST_CASE("kv trace: tensors that are not what the format says") {
  check_refused([](small_trace& t) { t.header["layers.3.k"]["dtype"] = "I16"; },
                "tensor 'layers.3.k': dtype must be F16, BF16 or F32, is I16");
  check_refused([](small_trace& t) { t.header["layers.3.k"]["dtype"] = 16; },
                "tensor 'layers.3.k': needs dtype, shape and two data_offsets");
  check_refused([](small_trace& t) { t.header["layers.11.v"].erase("shape"); },
                "tensor 'layers.11.v': needs dtype");
  check_refused([](small_trace& t) { t.header["layers.11.v"] = "F16"; },
                "tensor 'layers.11.v': needs dtype");
  for (const std::string name : {"layers.3.q", "layers.3.v", "layers.11.q"}) {
    check_refused([&](small_trace& t) { t.header.erase(name); }, "has no tensor '" + name + "'");
  }
  for (const json& shape :
       {json{40, 1}, json{1, 5, 1, 8}, json::array(), json{5, 1, -8}, json{5, 1, 8.0},
        json("5,1,8"), json{5, 1, "8"}, json{5, 1, nullptr}, json{5, 1, 1ull << 63}}) {
    CAPTURE(shape.dump());
    check_refused([&](small_trace& t) { t.header["layers.3.k"]["shape"] = shape; },
                  "tensor 'layers.3.k': shape must be [positions, heads, head_dim], is ");
  }
  for (const json& shape :
       {json{0, 1, 8}, json{5, 0, 8}, json{5, 1, 1u << 24}, json{1ull << 40, 1, 8}}) {
    CAPTURE(shape.dump());
    check_refused([&](small_trace& t) { t.header["layers.3.k"]["shape"] = shape; },
                  "has an extent out of range");
  }
  // 2^23 cubed is 2^69, 32 in 64 bits of its product with an odd one: no wrapping.
  check_refused(
      [](small_trace& t) { t.header["layers.3.k"]["shape"] = {1u << 23, 1u << 23, 1u << 23}; },
      "is larger than the file");
  check_refused([](small_trace& t) { t.header["layers.3.k"]["shape"] = {5, 1, 16}; },
                "bytes, shape and dtype need 160");
  check_refused([](small_trace& t) { t.header["layers.3.k"]["shape"] = {4, 1, 8}; },
                "bytes, shape and dtype need 64");
  check_refused([](small_trace& t) { t.header["layers.3.k"]["dtype"] = "F32"; },
                "bytes, shape and dtype need 160");
}

TEST_CASE("kv trace: offsets out of range") {
  REQUIRE(good_trace<fp16>("F16").data.size() == 512);
  for (const json& offsets :
       {json{0, 1 << 20}, json{434, 514}, json{80, 0}, json{1ull << 39, (1ull << 39) + 80}}) {
    CAPTURE(offsets.dump());
    check_refused([&](small_trace& t) { t.header["layers.3.k"]["data_offsets"] = offsets; },
                  "tensor 'layers.3.k': data_offsets " + offsets.dump() + " are outside");
  }
  for (const json& offsets :
       {json{0}, json{0, 80, 160}, json{-80, 0}, json{0.0, 80.0}, json("0-80"), json{nullptr, 80},
        json{1ull << 63, (1ull << 63) + 80}}) {
    CAPTURE(offsets.dump());
    check_refused([&](small_trace& t) { t.header["layers.3.k"]["data_offsets"] = offsets; },
                  "needs dtype, shape and two data_offsets");
  }
}

// The format: tensors cover the data without overlaps and holes. So a shifted offset cannot read another tensor's values.
TEST_CASE("kv trace: overlapping tensors, and data that belongs to none") {
  const auto shift = [](small_trace& t, const char* name, int by) {
    for (json& offset : t.header[name]["data_offsets"]) {
      offset = offset.get<int>() + by;
    }
  };
  check_refused(
      [&](small_trace& t) {
        t.header["layers.3.k"]["data_offsets"] = t.header["layers.3.v"]["data_offsets"];
      },
      "data");
  check_refused([&](small_trace& t) { shift(t, "layers.3.k", 2); }, "data");
  check_refused([&](small_trace& t) { shift(t, "layers.3.k", -2); }, "data");
  check_refused([](small_trace& t) { t.data += "more"; }, "data");
  check_refused(
      [&](small_trace& t) {  // a hole in front of everything
        t.data = "hole" + t.data;
        for (const char* name : {"layers.3.k", "layers.3.v", "layers.3.q", "layers.11.k",
                                 "layers.11.v", "layers.11.q"}) {
          shift(t, name, 4);
        }
      },
      "data");
}

TEST_CASE("kv trace: a header length that swallows padding shifts no data") {
  const small_trace good = good_trace<fp16>("F16");
  const std::string text = good.header.dump();
  const std::string padded = text + std::string(8, ' ');
  const trace::kv_trace expected = read_bytes(good.bytes());
  for (std::size_t length = text.size(); length <= padded.size(); ++length) {
    CAPTURE(length);
    CHECK(refused_or_same(file_of(length, padded, good.data), expected));
  }
}

TEST_CASE("kv trace: values that are not finite, and where they are") {
  const auto set = [](small_trace& t, const char* name, std::size_t at, std::uint16_t bits) {
    const auto begin = t.header[name]["data_offsets"][0].get<std::size_t>();
    std::memcpy(t.data.data() + begin + 2 * at, &bits, 2);
  };
  check_refused([&](small_trace& t) { set(t, "layers.3.k", 2 * dims + 5, 0x7E00); },
                "tensor 'layers.3.k': value at [2, 0, 5] is not finite");  // NaN
  check_refused([&](small_trace& t) { set(t, "layers.11.v", 0, 0x7C00); },
                "tensor 'layers.11.v': value at [0, 0, 0] is not finite");  // infinity
  check_refused(
      [&](small_trace& t) { set(t, "layers.11.q", 2 * q_heads * dims + dims + 7, 0xFC00); },
      "tensor 'layers.11.q': value at [2, 1, 7] is not finite");  // minus infinity
  small_trace wide = good_trace<fp32>("F32");
  const float nan = std::numeric_limits<float>::signaling_NaN();
  std::memcpy(
      wide.data.data() + wide.header["layers.3.q"]["data_offsets"][0].get<std::size_t>() + 4 * 9,
      &nan, 4);
  check_refused(wide, "tensor 'layers.3.q': value at [0, 1, 1] is not finite");
  small_trace brain = good_trace<bf16>("BF16");
  const std::uint16_t infinity = 0xFF80;
  std::memcpy(
      brain.data.data() + brain.header["layers.3.v"]["data_offsets"][0].get<std::size_t>() + 2 * 39,
      &infinity, 2);
  check_refused(brain, "tensor 'layers.3.v': value at [4, 0, 7] is not finite");
}

TEST_CASE("kv trace: names that no trace has") {
  for (const std::string name : {"layers.3.x", "layers.3.kk", "layers.3.k ", "layers.3", "layers.k",
                                 "layers..k", "layers.-1.k", "layers.99999999999999999999.k",
                                 "layer.3.k", "LAYERS.3.k", "", "3.k", "layers.3.k.weight"}) {
    CAPTURE(name);
    check_refused([&](small_trace& t) { t.header[name] = t.header["layers.3.k"]; },
                  "tensor '" + name + "' is not one of layers.<n>.k, .v, .q");
  }
  check_refused(
      [](small_trace& t) { t.header[std::string("layers.3.k\0x", 12)] = t.header["layers.3.k"]; },
      "tensor 'layers.3.k");
}

TEST_CASE("kv trace: names that mean a layer twice, and tensors that belong to no layer with K") {
  for (const std::string name : {"layers.03.k", "layers.+3.k", "layers. 3.k"}) {
    CAPTURE(name);
    check_refused([&](small_trace& t) { t.header[name] = t.header["layers.3.k"]; }, name);
  }
  check_refused([](small_trace& t) { t.header["layers.4.v"] = t.header["layers.3.v"]; },
                "layers.4");
  check_refused([](small_trace& t) { t.header["layers.4.q"] = "nothing"; }, "layers.4");
}

TEST_CASE("kv trace: layers and tensors of unlike shapes") {
  check_refused(
      [](small_trace& t) {
        t.add<fp16>("layers.12.k", "F16", {4, 1, dims}, values(4 * dims, 0));
        t.add<fp16>("layers.12.v", "F16", {4, 1, dims}, values(4 * dims, 0));
        t.add<fp16>("layers.12.q", "F16", {queries, q_heads, dims},
                    values(queries * q_heads * dims, 0));
      },
      "layers 3 and 12 have different shapes");
  check_refused([](small_trace& t) { t.header["layers.3.v"]["shape"] = {1, 5, 8}; },
                "layers.3.v must have the shape of layers.3.k");
  const char* q_rule = "layers.3.q must be [queries <= tokens, a multiple of kv_heads, head_dim]";
  check_refused([](small_trace& t) { t.header["layers.3.q"]["shape"] = {6, 1, 8}; }, q_rule);
  check_refused([](small_trace& t) { t.header["layers.3.q"]["shape"] = {3, 1, 16}; }, q_rule);
  check_refused(
      [](small_trace& t) {
        t.header["layers.3.k"]["shape"] = {1, 5, 8};
        t.header["layers.3.v"]["shape"] = {1, 5, 8};
        t.header["layers.3.q"]["shape"] = {1, 6, 8};
      },
      q_rule);
}

TEST_CASE("kv trace: metadata that is not text") {
  check_refused([](small_trace& t) { t.header["__metadata__"]["tokens"] = 5; },
                "__metadata__: 'tokens' is not a string");
  check_refused([](small_trace& t) { t.header["__metadata__"] = {"tokens"}; },
                "__metadata__ is not a JSON object");
  check_refused([](small_trace& t) { t.header["__metadata__"] = nullptr; },
                "__metadata__ is not a JSON object");
}

TEST_CASE("kv trace: deep nesting is refused as well") {
  for (const std::size_t depth : {std::size_t{100}, std::size_t{200'000}}) {
    CAPTURE(depth);
    const std::string nested = std::string(depth, '[') + std::string(depth, ']');
    const auto tensor = [&](const std::string& shape) {
      return R"({"layers.0.k":{"dtype":"F16","shape":)" + shape + R"(,"data_offsets":[0,16]}})";
    };
    CHECK(refusal(file_of(nested.size(), nested, "")) != "");
    const std::string deep = tensor(nested);
    CHECK(refusal(file_of(deep.size(), deep, std::string(16, '\0'))) != "");
    const std::string three = tensor("[1,1," + nested + "]");
    CHECK(refusal(file_of(three.size(), three, std::string(16, '\0'))) != "");
  }
}

TEST_CASE("kv trace: what is no file") {
  const std::string missing = path_in_folder("missing.safetensors");
  CHECK_THROWS_WITH_AS(trace::read(missing), doctest::Contains("cannot be read"), bad_file);
  const std::string folder = path_in_folder("folder");
  fs::create_directories(folder);
  CHECK_THROWS_WITH_AS(trace::read(folder), doctest::Contains("cannot be read"), bad_file);
  CHECK_THROWS_AS(trace::read(""), bad_file);
  CHECK(refusal("").find("is truncated: 0 bytes") != std::string::npos);
}

// check_outputs: base64 of F16 [layers, check_positions, q_heads, head_dim]; see examples/traces/README.md.
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
        CHECK((reference::exact_attention(q, K, V) - expected).norm() <= 1e-2 * expected.norm());
      }
    }
  }
}

}  // namespace instinfer::test_kv_trace
