#pragma once
// Reads a KV trace: a safetensors file with post-RoPE tensors layers.<n>.k and .v [tokens,
// kv_heads, head_dim] and layers.<n>.q [queries, q_heads, head_dim], the queries of the last
// positions. See examples/traces/README.md.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <span>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "instinfer/codec/element.hpp"
#include "instinfer/core/errors.hpp"

namespace instinfer::trace {

// A tensor as fp32, [shape[0], shape[1], shape[2]].
struct tensor {
  std::array<std::size_t, 3> shape{};
  std::vector<float> values;

  std::span<const float> row(std::size_t i) const {
    return std::span(values).subspan(i * shape[1] * shape[2], shape[1] * shape[2]);
  }
};

struct layer {
  int index = 0;  // of the model's layer
  tensor k;       // [tokens, kv_heads, head_dim]
  tensor v;       // [tokens, kv_heads, head_dim]
  tensor q;       // [queries, q_heads, head_dim]; query i belongs to position tokens - queries + i
};

struct kv_trace {
  std::map<std::string, std::string> metadata;
  std::vector<layer> layers;  // ascending, all of the same shapes

  std::size_t tokens() const { return layers.front().k.shape[0]; }
  std::size_t queries() const { return layers.front().q.shape[0]; }
  std::size_t kv_heads() const { return layers.front().k.shape[1]; }
  std::size_t q_heads() const { return layers.front().q.shape[1]; }
  std::size_t head_dim() const { return layers.front().k.shape[2]; }
};

namespace detail {

using json = nlohmann::json;

// All of a trace is kept in memory as fp32, twice as large.
inline constexpr std::uint64_t largest_file = std::uint64_t{4} << 30;
// Of the format's own reader.
inline constexpr std::uint64_t largest_header = 100'000'000;
inline constexpr std::uint64_t length_bytes = 8;

// An open file; its header is judged before its data are read.
struct file_reader {
  std::string path;
  std::ifstream in;
  std::uint64_t size = 0;
  std::uint64_t data_begin = length_bytes;

  explicit file_reader(const std::string& name) : path{name} {
    std::error_code error;
    size = std::filesystem::file_size(path, error);
    check(!error, "cannot be read: " + error.message());
    in.open(path, std::ios::binary);
    check(in.is_open(), "cannot be read");
  }
  [[noreturn]] void fail(const std::string& what) const { throw bad_file(path + ": " + what); }
  void check(bool ok, const std::string& what) const {
    if (!ok) {
      fail(what);
    }
  }
  std::uint64_t data_bytes() const { return size - data_begin; }
  std::vector<char> bytes(std::uint64_t begin, std::uint64_t count) {
    std::vector<char> read(count);
    in.seekg(static_cast<std::streamoff>(begin));
    in.read(read.data(), static_cast<std::streamsize>(count));
    check(in.good(), "cannot be read to its end");
    return read;
  }
};

// The JSON header; data begin behind it.
inline json read_header(file_reader& file) {
  file.check(file.size >= length_bytes,
             "is truncated: " + std::to_string(file.size) +
                 " bytes, a safetensors file begins with 8 bytes of header length");
  std::uint64_t length = 0;
  for (const char byte : file.bytes(0, length_bytes)) {
    length = length >> 8 | std::uint64_t{static_cast<unsigned char>(byte)} << 56;
  }
  file.check(length <= file.size - length_bytes,
             "is truncated or no safetensors file: its header should have " +
                 std::to_string(length) + " bytes, " + std::to_string(file.size - length_bytes) +
                 " follow");
  file.check(length <= largest_header, "has a header of " + std::to_string(length) +
                                           " bytes; a safetensors header has at most " +
                                           std::to_string(largest_header));
  file.check(file.size <= largest_file, "has " + std::to_string(file.size) +
                                            " bytes; traces of up to " +
                                            std::to_string(largest_file) + " are read");
  file.data_begin = length_bytes + length;
  // Depth is bounded first: printing or destroying a value of many levels would overflow the stack.
  // Of two values with the same name the parser would keep the last.
  constexpr int deepest = 4;
  std::vector<std::set<std::string>> names;  // of the objects that are open
  const auto judge = [&](int depth, json::parse_event_t event, json& value) {
    file.check(depth <= deepest, "has a header that nests deeper than a safetensors header does");
    if (event == json::parse_event_t::object_start) {
      names.emplace_back();
    } else if (event == json::parse_event_t::object_end) {
      names.pop_back();
    } else if (event == json::parse_event_t::key) {
      const auto name = value.get<std::string>();
      file.check(names.back().insert(name).second, "has '" + name + "' twice in its header");
    }
    return true;
  };
  const std::vector<char> text = file.bytes(length_bytes, length);
  json header = json::parse(text.begin(), text.end(), judge, false);
  file.check(header.is_object(), "has a header that is not a JSON object");
  return header;
}

template <Element E>
void widen(const char* from, std::span<float> to) {
  for (std::size_t i = 0; i < to.size(); ++i) {
    E x;
    std::memcpy(&x, from + i * sizeof(E), sizeof(E));
    to[i] = to_float(x);
  }
}

// What the header says of a tensor.
struct tensor_entry {
  std::string name, dtype;
  std::array<std::size_t, 3> shape{};
  std::uint64_t begin = 0;  // among the data
  std::uint64_t end = 0;
};

inline tensor_entry entry_of(const file_reader& file, const json& header, const std::string& name) {
  file.check(header.contains(name), "has no tensor '" + name + "'");
  const json& entry = header[name];
  const auto whole_numbers = [](const json& list, std::size_t n) {
    return list.is_array() && list.size() == n && std::ranges::all_of(list, [](const json& x) {
             return x.is_number_unsigned() && x.get<std::uint64_t>() <= (1ull << 40);
           });
  };
  file.check(entry.is_object() && entry.contains("dtype") && entry["dtype"].is_string() &&
                 entry.contains("shape") && entry.contains("data_offsets") &&
                 whole_numbers(entry["data_offsets"], 2),
             "tensor '" + name + "': needs dtype, shape and two data_offsets");
  file.check(whole_numbers(entry["shape"], 3),
             "tensor '" + name + "': shape must be [positions, heads, head_dim], is " +
                 entry["shape"].dump());

  tensor_entry t{.name = name, .dtype = entry["dtype"]};
  std::uint64_t elements = 1;
  for (std::size_t i = 0; i < 3; ++i) {
    t.shape[i] = entry["shape"][i].get<std::size_t>();
    file.check(
        t.shape[i] > 0 && t.shape[i] < (1u << 24),
        "tensor '" + name + "': shape " + entry["shape"].dump() + " has an extent out of range");
    elements *= t.shape[i];
    file.check(elements <= file.size, "tensor '" + name + "': shape " + entry["shape"].dump() +
                                          " is larger than the file");
  }
  const std::size_t element_bytes = t.dtype == "F32"                        ? 4
                                    : t.dtype == "F16" || t.dtype == "BF16" ? 2
                                                                            : 0;
  file.check(element_bytes != 0,
             "tensor '" + name + "': dtype must be F16, BF16 or F32, is " + t.dtype);
  t.begin = entry["data_offsets"][0].get<std::uint64_t>();
  t.end = entry["data_offsets"][1].get<std::uint64_t>();
  file.check(t.begin <= t.end && t.end <= file.data_bytes(),
             "tensor '" + name + "': data_offsets " + entry["data_offsets"].dump() +
                 " are outside of the file's " + std::to_string(file.data_bytes()) +
                 " bytes of data (truncated?)");
  file.check(t.end - t.begin == elements * element_bytes,
             "tensor '" + name + "': data_offsets span " + std::to_string(t.end - t.begin) +
                 " bytes, shape and dtype need " + std::to_string(elements * element_bytes));
  return t;
}

inline tensor values_of(file_reader& file, const tensor_entry& entry) {
  const std::vector<char> bytes =
      file.bytes(file.data_begin + entry.begin, entry.end - entry.begin);
  tensor t{entry.shape, std::vector<float>(entry.shape[0] * entry.shape[1] * entry.shape[2])};
  if (entry.dtype == "F32") {
    widen<fp32>(bytes.data(), t.values);
  } else if (entry.dtype == "F16") {
    widen<fp16>(bytes.data(), t.values);
  } else {
    widen<bf16>(bytes.data(), t.values);
  }
  const auto bad = std::ranges::find_if_not(t.values, [](float x) { return is_finite(x); });
  if (bad != t.values.end()) {
    const auto at = static_cast<std::size_t>(bad - t.values.begin());
    file.fail("tensor '" + entry.name + "': value at [" +
              std::to_string(at / (t.shape[1] * t.shape[2])) + ", " +
              std::to_string(at / t.shape[2] % t.shape[1]) + ", " +
              std::to_string(at % t.shape[2]) + "] is not finite");
  }
  return t;
}

// The tensors lie one after the other and leave no byte of the data out, as the format demands:
// offsets that were altered would otherwise give other values silently.
inline void check_coverage(const file_reader& file, const json& header) {
  std::map<std::uint64_t, std::pair<std::uint64_t, std::string>> ends;  // by begin
  for (const auto& [name, value] : header.items()) {
    if (name != "__metadata__") {
      const auto begin = value["data_offsets"][0].get<std::uint64_t>();
      const auto same =
          ends.try_emplace(begin, value["data_offsets"][1].get<std::uint64_t>(), name);
      file.check(same.second,
                 "tensors '" + same.first->second.second + "' and '" + name + "' share data");
    }
  }
  std::uint64_t at = 0;
  for (const auto& [begin, tensor] : ends) {
    file.check(begin == at, "tensor '" + tensor.second + "': its data begins at " +
                                std::to_string(begin) + ", the data before it end at " +
                                std::to_string(at));
    at = tensor.first;
  }
  file.check(at == file.data_bytes(), "has " + std::to_string(file.data_bytes()) +
                                          " bytes of data, its tensors have " + std::to_string(at));
}

}  // namespace detail

// Throws bad_file, which names the file, the tensor and the rule that it breaks.
inline kv_trace read(const std::string& path) {
  using namespace detail;
  file_reader file(path);
  const json header = read_header(file);

  kv_trace trace;
  std::set<int> indices;
  for (const auto& [name, value] : header.items()) {
    if (name == "__metadata__") {
      file.check(value.is_object(), "__metadata__ is not a JSON object");
      for (const auto& [key, text] : value.items()) {
        file.check(text.is_string(), "__metadata__: '" + key + "' is not a string");
        trace.metadata[key] = text;
      }
      continue;
    }
    int index = 0;
    char stream = 0;
    const bool known = std::sscanf(name.c_str(), "layers.%5d.%c", &index, &stream) == 2 &&
                       index >= 0 && (stream == 'k' || stream == 'v' || stream == 'q') &&
                       name == "layers." + std::to_string(index) + "." + stream;
    file.check(known, "tensor '" + name + "' is not one of layers.<n>.k, .v, .q");
    indices.insert(index);
  }
  file.check(!indices.empty(), "has no tensors layers.<n>.k, .v, .q");
  struct layer_entries {
    int index;
    tensor_entry k, v, q;
  };
  std::vector<layer_entries> layers;
  for (const int index : indices) {
    const std::string prefix = "layers." + std::to_string(index) + ".";
    layers.push_back({index, entry_of(file, header, prefix + "k"),
                      entry_of(file, header, prefix + "v"), entry_of(file, header, prefix + "q")});
    const layer_entries& l = layers.back();
    file.check(l.v.shape == l.k.shape, prefix + "v must have the shape of " + prefix + "k");
    file.check(
        l.q.shape[2] == l.k.shape[2] && l.q.shape[1] % l.k.shape[1] == 0 &&
            l.q.shape[0] <= l.k.shape[0],
        prefix +
            "q must be [queries <= tokens, a multiple of kv_heads, head_dim] for the shape of " +
            prefix + "k");
    file.check(l.k.shape == layers.front().k.shape && l.q.shape == layers.front().q.shape,
               "layers " + std::to_string(*indices.begin()) + " and " + std::to_string(index) +
                   " have different shapes");
  }
  check_coverage(file, header);
  for (const layer_entries& l : layers) {
    trace.layers.push_back(
        {l.index, values_of(file, l.k), values_of(file, l.v), values_of(file, l.q)});
  }
  return trace;
}

}  // namespace instinfer::trace
