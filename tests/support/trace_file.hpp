#pragma once
// Trace files for the tests of their reader: a small good one that a case can break.

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include <doctest/doctest.h>
#include "support/kv_trace.hpp"

namespace instinfer::test::trace_file {

namespace fs = std::filesystem;
using json = nlohmann::ordered_json;

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

inline std::string path_in_folder(const char* name) {
  static const temporary_folder folder;
  return (folder.path / name).string();
}

inline void write(const std::string& path, const std::string& bytes) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  REQUIRE(out.good());
}

// A header length that says `length`, then the text and the data as they are.
inline std::string file_of(std::uint64_t length, const std::string& header,
                           const std::string& data) {
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
inline constexpr std::size_t tokens = 5, dims = 8, q_heads = 2, queries = 3;

inline float value(std::size_t i) {
  return static_cast<float>(static_cast<int>(i * 37 % 101) - 50) / 16.0f;
}

inline std::vector<float> values(std::size_t count, std::size_t from) {
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

inline trace::kv_trace read_bytes(const std::string& bytes) {
  const std::string path = path_in_folder("trace.safetensors");
  write(path, bytes);
  return trace::read(path);
}

inline bool same(const trace::tensor& a, const trace::tensor& b) {
  return a.shape == b.shape && a.values == b.values;
}

inline bool same(const trace::kv_trace& a, const trace::kv_trace& b) {
  return std::ranges::equal(a.layers, b.layers, [](const trace::layer& x, const trace::layer& y) {
    return x.index == y.index && same(x.k, y.k) && same(x.v, y.v) && same(x.q, y.q);
  });
}

// The sentence that a file is refused with; "" if it is read.
inline std::string refusal(const std::string& bytes) {
  try {
    (void)read_bytes(bytes);
  } catch (const bad_file& e) {
    return e.what();
  }
  return "";
}

// Refused, or read as if nothing had been done to it; the metadata may differ.
inline bool refused_or_same(const std::string& bytes, const trace::kv_trace& expected) {
  try {
    return same(read_bytes(bytes), expected);
  } catch (const bad_file&) {
    return true;
  }
}

inline void check_refused(const small_trace& trace, const std::string& expected) {
  const std::string said = refusal(trace.bytes());
  INFO("said: ", said);
  INFO("expected: ", expected);
  CHECK(said.find(expected) != std::string::npos);
  CHECK(said.find(path_in_folder("trace.safetensors")) == 0);  // and which file
}

inline void check_refused(const std::function<void(small_trace&)>& break_it,
                          const std::string& expected) {
  small_trace trace = good_trace<fp16>("F16");
  break_it(trace);
  check_refused(trace, expected);
}

}  // namespace instinfer::test::trace_file
