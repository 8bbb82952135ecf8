#pragma once
// Times of GPU operators by roofline: the slower of arithmetic and memory, with an efficiency that
// depends on the shape.

#include <algorithm>
#include <cmath>

#include "instinfer/system/spec/gpu_spec.hpp"
#include "instinfer/system/spec/model_spec.hpp"

namespace instinfer::system {

// Shares of the data sheet's peaks that good kernels reach, and the tile to which a short side is
// padded. All assumed: 0.85 of the memory rate is in the middle of the reported range of decode
// kernels (0.55 to 0.93); a large cuBLAS GEMM reaches 0.7 of the tensor core rate.
struct gpu_efficiency {
  double arithmetic = 0.7;
  double memory = 0.85;
  // Rows of the smallest tensor core tile: m = 1 costs as much arithmetic as m = 16.
  double tile_rows = 16;
  double launch_s = 5e-6;  // per kernel
};

class gpu_time {
 public:
  explicit gpu_time(const gpu_spec& gpu, int gpus = 1, const gpu_efficiency& share = {})
      : flops_per_s_{gpus * gpu.flops_per_s * share.arithmetic},
        bytes_per_s_{gpus * gpu.memory_bytes_per_s * share.memory},
        share_{share} {}

  // C [m, n] = A [m, k] B [k, n] with elements of e bytes. Arithmetic counts whole tiles of rows.
  double gemm_s(double m, double n, double k, double e = 2) const {
    const double rows = std::ceil(m / share_.tile_rows) * share_.tile_rows;
    return share_.launch_s +
           std::max(2 * rows * n * k / flops_per_s_, e * (m * k + k * n + m * n) / bytes_per_s_);
  }

  // Every matrix of one layer, for m rows (tokens).
  double layer_s(const model_spec& model, double m) const {
    const auto hidden = static_cast<double>(model.hidden);
    const auto q = static_cast<double>(model.q_width());
    const auto ffn = static_cast<double>(model.ffn);
    const double qkv = q + 2 * static_cast<double>(model.kv_width());
    const double e = model.element_bytes;
    return gemm_s(m, qkv, hidden, e) + gemm_s(m, hidden, q, e) +
           gemm_s(m, (model.ffn_matrices() - 1) * ffn, hidden, e) + gemm_s(m, hidden, ffn, e);
  }
  // All layers, and the output projection to the vocabulary.
  double model_s(const model_spec& model, double m) const {
    return model.shape.layers * layer_s(model, m) + gemm_s(m, static_cast<double>(model.vocabulary),
                                                           static_cast<double>(model.hidden),
                                                           model.element_bytes);
  }

  // Decode attention of one layer over KV in the GPU's own memory.
  double decode_attention_s(const model_spec& model, double batch, double context) const {
    const double bytes = batch * context * model.kv_bytes_per_token_layer();
    const double flops = batch * model.attention_flops_per_token(context) / model.shape.layers;
    return share_.launch_s + std::max(bytes / bytes_per_s_, flops / flops_per_s_);
  }
  // Causal attention of one layer over prompts: half of the full matrix.
  double prefill_attention_s(const model_spec& model, double batch, double tokens) const {
    const double flops =
        batch * tokens * model.attention_flops_per_token(tokens) / model.shape.layers / 2;
    return share_.launch_s + flops / flops_per_s_;
  }

  double memory_bytes_per_s() const { return bytes_per_s_; }
  double arithmetic_flops_per_s() const { return flops_per_s_; }

 private:
  double flops_per_s_;
  double bytes_per_s_;
  gpu_efficiency share_;
};

}  // namespace instinfer::system
