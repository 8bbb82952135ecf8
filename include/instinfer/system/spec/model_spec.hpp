#pragma once
// A decoder-only transformer as a value: sizes of its weights and KV cache and costs of its
// operators, from its shapes.

#include <cstdint>
#include <string>
#include <string_view>

#include "instinfer/core/shape.hpp"

namespace instinfer::system {

// The bias and norm vectors of a model, and the structure of its blocks.
enum class block_kind {
  opt,    // two FFN matrices, biases on every projection, LayerNorm with bias, learned positions
  llama,  // three FFN matrices (gate, up, down), no bias, RMSNorm, rotary positions
  qwen2   // as llama, with a bias on the projections of Q, K and V
};

struct model_spec {
  std::string_view name;
  block_kind kind = block_kind::llama;
  model_shape shape;  // layers, query heads, KV heads
  std::int64_t hidden = 0;
  std::int64_t head_dim = 128;
  std::int64_t ffn = 0;
  std::int64_t vocabulary = 0;
  std::int64_t positions = 0;  // rows of a learned position table; 0: none
  bool tied_embeddings = false;
  int element_bytes = 2;     // of weights and hidden states: fp16
  int kv_element_bytes = 2;  // of the KV cache: 1 for int8 (codec/scaled_pages.hpp)

  constexpr std::int64_t q_width() const { return shape.q_heads * head_dim; }
  constexpr std::int64_t kv_width() const { return shape.kv_heads * head_dim; }
  constexpr int ffn_matrices() const { return kind == block_kind::opt ? 2 : 3; }

  // Elements of the matrices that multiply a token in one layer: Q, K, V, O and the FFN.
  constexpr std::int64_t layer_matrix_elements() const {
    return 2 * hidden * q_width() + 2 * hidden * kv_width() + ffn_matrices() * hidden * ffn;
  }
  constexpr std::int64_t layer_parameters() const {
    const std::int64_t qkv_bias = q_width() + 2 * kv_width();
    switch (kind) {
      case block_kind::opt:  // biases of Q, K, V, O, of both FFN matrices, and two LayerNorms
        return layer_matrix_elements() + qkv_bias + hidden + ffn + hidden + 4 * hidden;
      case block_kind::qwen2:
        return layer_matrix_elements() + qkv_bias + 2 * hidden;
      case block_kind::llama:
        break;
    }
    return layer_matrix_elements() + 2 * hidden;
  }
  constexpr std::int64_t parameters() const {
    const std::int64_t embeddings = (tied_embeddings ? 1 : 2) * vocabulary * hidden;
    const std::int64_t last_norm = kind == block_kind::opt ? 2 * hidden : hidden;
    return shape.layers * layer_parameters() + embeddings + positions * hidden + last_norm;
  }

  constexpr double weight_bytes() const {
    return static_cast<double>(parameters()) * element_bytes;
  }
  constexpr double layer_weight_bytes() const {
    return static_cast<double>(layer_parameters()) * element_bytes;
  }

  // With K and V stored once.
  constexpr double kv_bytes_per_token_layer() const {
    return 2.0 * static_cast<double>(kv_width()) * kv_element_bytes;
  }
  constexpr double kv_bytes_per_token() const { return shape.layers * kv_bytes_per_token_layer(); }

  // A multiply-add counts 2. Without attention over the cache; with the output projection to the
  // vocabulary.
  constexpr double gemm_flops_per_token() const {
    return 2.0 * (static_cast<double>(shape.layers * layer_matrix_elements()) +
                  static_cast<double>(vocabulary * hidden));
  }
  // Logit and Attend of one token over `context` tokens, in all layers.
  constexpr double attention_flops_per_token(double context) const {
    return 4.0 * shape.layers * static_cast<double>(q_width()) * context;
  }

  // Throws bad_argument if a count is not positive or kv_heads does not divide q_heads.
  void validate() const {
    shape.validate();
    require(hidden > 0 && head_dim > 0 && ffn > 0 && vocabulary > 0 && positions >= 0 &&
                element_bytes > 0 && kv_element_bytes > 0,
            [&] {
              return "model_spec " + std::string(name) +
                     ": hidden, head_dim, ffn, vocabulary and element_bytes must be positive";
            });
  }
};

}  // namespace instinfer::system
