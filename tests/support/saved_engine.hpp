#pragma once
// An engine that keeps every summary, and a decode on it that can be repeated: what the tests of
// cache files save and load.

#include <random>
#include <sstream>
#include <string>
#include <variant>
#include <vector>

#include "instinfer/methods.hpp"
#include "instinfer/reference.hpp"

namespace instinfer::test_cache_file {

using keys = attention::index_keys<64, 32>;

// Keeps every summary, and runs one method on them: one engine type for all.
struct any_method {
  std::variant<attention::sparf, attention::basic_quest<16>, attention::squeezed,
               attention::retro_infer, attention::h2o, attention::hgca,
               attention::basic_misa<64, 32>>
      method;

  using summaries = attention::summary_list<attention::mean_value, attention::page_bounds<16>,
                                            attention::cluster_index, attention::cluster_tree,
                                            attention::wave_buffer, attention::heavy_hitters,
                                            attention::moving_weights, keys>;
  using indexed_by = attention::cluster_index;
  static constexpr bool own_window = true;

  template <attention::AttentionMachine M>
  void operator()(M& m, const typename M::query& q) const {
    std::visit([&](const auto& chosen) { chosen(m, q); }, method);
  }
  index_run to_index(index_run indexed, std::uint32_t first, std::uint32_t tokens) const {
    return std::visit(
        [&](const auto& chosen) {
          if constexpr (requires { chosen.to_index(indexed, first, tokens); }) {
            return chosen.to_index(indexed, first, tokens);
          } else {
            return index_run{};
          }
        },
        method);
  }
  attention::cluster_levels group(std::span<const float> k, int dim) const {
    return std::visit(
        [&](const auto& chosen) -> attention::cluster_levels {
          if constexpr (requires { chosen.group(k, dim); }) {
            return chosen.group(k, dim);
          } else {
            return {};
          }
        },
        method);
  }
};

// Small pages, so that a small file has all kinds: 4 tokens of fp16, or 32 tokens of 8 dims.
inline constexpr flash::drive_spec small_pages = [] {
  flash::drive_spec drive = flash::instcsd;
  drive.geometry.page_bytes = drive.geometry.codeword_bytes = 512;
  return drive;
}();
using format = kv_format<fp16, 64>;
using layout_type = layout::dual<512>;

template <class Policy, class Format>
using engine_of =
    reference::engine<design<Policy, layout_type, small_pages, transfer::in_storage>, Format>;
using engine_type = engine_of<any_method, format>;

inline const model_shape shape{.layers = 2, .q_heads = 4, .kv_heads = 2};
inline const store::capacity room{.bytes = 4 << 20, .context_tokens = 64};

// Tokens and queries of a decode; those of equal seeds are the same.
struct decoder {
  decoder(engine_type& e, sequence s, unsigned seed) : engine{e}, seq{s}, random(seed) {}

  template <class E>
  std::vector<E> draw(std::size_t n) {
    std::vector<E> x(n);
    for (E& value : x) {
      value = from_float<E>(static_cast<float>(static_cast<int>(random() % 512) - 256) / 128);
    }
    return x;
  }
  void append(int layer, std::size_t tokens) {
    const auto k = draw<fp16>(tokens * 2 * 64);
    const auto v = draw<fp16>(tokens * 2 * 64);
    const auto index = draw<float>(tokens * 64);
    engine.append(seq, layer, k, v, with_index_keys ? index : std::span<const float>{});
  }
  // Appends a token to each layer, and attends. Returns the outputs.
  std::vector<float> step() {
    std::vector<float> all;
    for (int layer = 0; layer < shape.layers; ++layer) {
      append(layer, 1);
      const auto q = draw<float>(4 * 64);
      std::vector<float> out(q.size());
      if (attends) {
        engine.attend(seq, layer, q, out);
      }
      all.insert(all.end(), out.begin(), out.end());
    }
    return all;
  }
  // What is saved below: a prompt, and a few steps.
  void begin(std::uint32_t reclaimed) {
    for (int layer = 0; layer < shape.layers; ++layer) {
      append(layer, 301);
      if (attends) {
        engine.build(seq, layer);
      }
    }
    for (int i = 0; i < 6; ++i) {
      step();
    }
    engine.reclaim(seq, {.tokens_before = reclaimed});
  }

  engine_type& engine;
  sequence seq;
  std::mt19937 random;
  bool attends = true;
  bool with_index_keys = true;
};

inline std::string saved(const engine_type& engine, sequence seq) {
  std::ostringstream out;
  engine.save(seq, out, "model A");
  return out.str();
}

template <class Summary>
const auto& state_of(const engine_type& engine, sequence seq) {
  return std::get<typename Summary::template state<format>>(engine.cache().at(seq, 1).summaries(1));
}

}  // namespace instinfer::test_cache_file
