#pragma once
// The work of every system on the GPU: projections and FFN in each step, prompts in prefill, and
// the transfer of weights.

#include <algorithm>

#include "instinfer/system/gpu_time.hpp"
#include "instinfer/system/report.hpp"
#include "instinfer/system/spec/server.hpp"
#include "instinfer/system/spec/workload.hpp"

namespace instinfer::system {

// Several GPUs split the layers; each has its own link.
class gpu_side {
 public:
  // Throws bad_argument for an invalid model, server or workload.
  gpu_side(const model_spec& model, const server& on, const workload& job)
      : model_{(model.validate(), model)},
        server_{(on.validate(), on)},
        job_{(job.validate(), job)},
        time_{on.gpu, on.gpus} {}

  // GEMMs of a decode step. Weights are streamed one layer ahead, so only the time by which they
  // are slower counts.
  step_time step() const {
    const double compute_s = time_.model_s(model_, static_cast<double>(job_.batch));
    return {.weights_s = std::max(0.0, stream_s() - compute_s), .compute_s = compute_s};
  }
  double streamed_bytes() const {
    return server_.weights == weights_at::host ? model_.weight_bytes() : 0.0;
  }
  double stream_s() const {
    return streamed_bytes() / (server_.gpus * server_.gpu_link.bytes_per_s);
  }

  // Prefill of the whole batch. KV of `written_bytes` in total leaves at kv_bytes_per_s (0: it
  // stays), by the layer-wise pipeline of InstInfer §IV-A: a layer's KV leaves while the next layer
  // computes.
  prefill_time prefill(double written_bytes, double kv_bytes_per_s) const {
    const double batch = static_cast<double>(job_.batch);
    const double tokens = static_cast<double>(job_.input_tokens);
    const double layers = model_.shape.layers;
    prefill_time done;
    done.compute_s = layers * (time_.layer_s(model_, batch * tokens) +
                               time_.prefill_attention_s(model_, batch, tokens));
    done.weights_s = stream_s();
    done.kv_written_bytes = written_bytes;
    done.kv_write_s = kv_bytes_per_s > 0 ? written_bytes / kv_bytes_per_s : 0.0;
    // Three stages per layer: weights arrive, the GPU computes, KV leaves.
    const double slowest_s = std::max({done.compute_s, done.weights_s, done.kv_write_s}) / layers;
    done.total_s =
        (layers - 1) * slowest_s + (done.compute_s + done.weights_s + done.kv_write_s) / layers;
    return done;
  }

  // GPU memory of weights: all of them, or the current layer and the next one.
  double weight_bytes() const {
    return server_.weights == weights_at::gpu ? model_.weight_bytes()
                                              : 2 * model_.layer_weight_bytes() * server_.gpus;
  }
  // Hidden states of a decode step: input, output, q, k, v and the inner state of the FFN.
  double decode_activation_bytes() const {
    return static_cast<double>(job_.batch) * model_.element_bytes *
           static_cast<double>(4 * model_.hidden + model_.q_width() + 2 * model_.kv_width() +
                               model_.ffn);
  }
  // KV of `tokens` tokens of every sequence, with K and V stored once.
  double kv_bytes(double tokens) const {
    return static_cast<double>(job_.batch) * tokens * model_.kv_bytes_per_token();
  }

  const model_spec& model() const { return model_; }
  const server& on() const { return server_; }
  const workload& job() const { return job_; }
  const gpu_time& time() const { return time_; }

 private:
  model_spec model_;
  server server_;
  workload job_;
  gpu_time time_;
};

}  // namespace instinfer::system
