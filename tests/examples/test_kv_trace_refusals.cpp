// The trace reader on every kind of bad file. Best run under AddressSanitizer.

#include <doctest/doctest.h>

#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "tests/support/trace_file.hpp"

namespace instinfer::test_kv_trace_refusals {

using namespace test::trace_file;

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

TEST_CASE("kv trace: files and headers that are too large are refused before they are read") {
  const small_trace good = good_trace<fp16>("F16");
  const std::string path = path_in_folder("large.safetensors");
  write(path, good.bytes());
  fs::resize_file(path, (std::uintmax_t{4} << 30) + 1);  // a hole: nothing is stored
  CHECK_THROWS_WITH_AS(
      trace::read(path),
      (path + ": has 4294967297 bytes; traces of up to 4294967296 are read").c_str(), bad_file);
  write(path, file_of(100'000'001, "", ""));
  fs::resize_file(path, 100'000'009);
  CHECK_THROWS_WITH_AS(
      trace::read(path),
      (path + ": has a header of 100000001 bytes; a safetensors header has at most "
              "100000000")
          .c_str(),
      bad_file);
}

TEST_CASE("kv trace: a name that is given twice, where a parser would keep the last") {
  const small_trace good = good_trace<fp16>("F16");
  const std::string text = good.header.dump();
  const auto with = [&](const std::string& before, const std::string& added) {
    const std::size_t at = text.find(before);
    REQUIRE(at != std::string::npos);
    const std::string changed = text.substr(0, at) + added + text.substr(at);
    return refusal(file_of(changed.size(), changed, good.data));
  };
  const std::string tensor = R"({"dtype":"F16","shape":[5,1,8],"data_offsets":[0,80]},)";
  CHECK(with(R"("layers.3.k")", R"("layers.3.k":)" + tensor)
            .find("has 'layers.3.k' twice in its header") != std::string::npos);
  CHECK(with(R"("dtype")", R"("dtype":"F32",)").find("has 'dtype' twice in its header") !=
        std::string::npos);
  CHECK(with(R"("model")", R"("model":"another",)").find("has 'model' twice in its header") !=
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

// The format: tensors cover the data without overlaps and holes. So a shifted offset cannot read
// another tensor's values.
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

}  // namespace instinfer::test_kv_trace_refusals
