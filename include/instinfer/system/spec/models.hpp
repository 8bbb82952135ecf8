#pragma once
// Named models, with shapes from the published configuration files; for OPT also from Zhang et al.
// 2022, Table 1. tests/system compares each with its published number of parameters.

#include "instinfer/system/spec/model_spec.hpp"

namespace instinfer::system {

namespace detail {

constexpr model_spec opt(std::string_view name, int layers, int heads, std::int64_t hidden) {
  return {.name = name,
          .kind = block_kind::opt,
          .shape = {.layers = layers, .q_heads = heads, .kv_heads = heads},
          .hidden = hidden,
          .head_dim = hidden / heads,
          .ffn = 4 * hidden,
          .vocabulary = 50'272,
          .positions = 2'050,  // 2,048, and two that the position counter skips
          .tied_embeddings = true};
}

constexpr model_spec llama(std::string_view name, const model_shape& shape, std::int64_t hidden,
                           std::int64_t ffn, std::int64_t vocabulary,
                           block_kind kind = block_kind::llama) {
  return {.name = name,
          .kind = kind,
          .shape = shape,
          .hidden = hidden,
          .head_dim = 128,
          .ffn = ffn,
          .vocabulary = vocabulary};
}

}  // namespace detail

inline constexpr model_spec opt_6_7b = detail::opt("OPT-6.7B", 32, 32, 4096);
inline constexpr model_spec opt_13b = detail::opt("OPT-13B", 40, 40, 5120);
inline constexpr model_spec opt_30b = detail::opt("OPT-30B", 48, 56, 7168);
inline constexpr model_spec opt_66b = detail::opt("OPT-66B", 64, 72, 9216);
inline constexpr model_spec opt_175b = detail::opt("OPT-175B", 96, 96, 12'288);

inline constexpr model_spec llama2_7b = detail::llama(
    "Llama-2-7B", {.layers = 32, .q_heads = 32, .kv_heads = 32}, 4096, 11'008, 32'000);
inline constexpr model_spec llama2_13b = detail::llama(
    "Llama-2-13B", {.layers = 40, .q_heads = 40, .kv_heads = 40}, 5120, 13'824, 32'000);
inline constexpr model_spec llama2_70b = detail::llama(
    "Llama-2-70B", {.layers = 80, .q_heads = 64, .kv_heads = 8}, 8192, 28'672, 32'000);
inline constexpr model_spec llama3_8b = detail::llama(
    "Llama-3-8B", {.layers = 32, .q_heads = 32, .kv_heads = 8}, 4096, 14'336, 128'256);
inline constexpr model_spec llama3_70b = detail::llama(
    "Llama-3-70B", {.layers = 80, .q_heads = 64, .kv_heads = 8}, 8192, 28'672, 128'256);
inline constexpr model_spec qwen2_5_32b =
    detail::llama("Qwen2.5-32B", {.layers = 64, .q_heads = 40, .kv_heads = 8}, 5120, 27'648,
                  152'064, block_kind::qwen2);

inline constexpr const model_spec* all_models[] = {
    &opt_6_7b,   &opt_13b,    &opt_30b,   &opt_66b,    &opt_175b,   &llama2_7b,
    &llama2_13b, &llama2_70b, &llama3_8b, &llama3_70b, &qwen2_5_32b};

}  // namespace instinfer::system
