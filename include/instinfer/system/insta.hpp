#pragma once
// InstA and InstA-SparF: the KV cache is in computational drives, which compute attention; the GPU
// does the rest (InstInfer §IV).

#include "instinfer/engine/design.hpp"
#include "instinfer/system/concepts.hpp"
#include "instinfer/system/gpu_side.hpp"
#include "instinfer/system/kv_access.hpp"

namespace instinfer::system {

// One layer of a step, one part after the other: the GPU needs the layer's weights and multiplies;
// the host sends each drive one attend command per sequence; q, k, v go down, the drives compute
// attention, the output comes up. GPU and drives do not overlap, because attention needs q, the
// next layer needs the output of attention, and all sequences of the batch are in the same layer.
template <Design D = insta, class Format = kv_format<>>
class insta_system {
  static_assert(
      D::transfer_policy::computes_in_drive,
      "instinfer: insta_system needs a design whose transfer policy computes in the drive, see design.hpp");

 public:
  static constexpr std::string_view name =
      std::same_as<typename D::attention_policy, attention::dense> ? "InstA" : "InstA-SparF";

  insta_system(const model_spec& model, const server& on, const workload& job,
               const typename D::attention_policy& attention = {},
               const flash::drive_spec& drive = D::drive,
               const flash::drive_rules& rules = flash::independent_planes)
      : gpu_{model, on, job}, drive_{drive}, kv_{model, job, on.drives, drive, attention, rules} {}
  // The same with a split of the caller's, of at most on.drives drives.
  insta_system(const model_spec& model, const server& on, const workload& job,
               const drive_split& split, const typename D::attention_policy& attention = {},
               const flash::drive_spec& drive = D::drive)
      : gpu_{model, on, job}, drive_{drive}, kv_{model, job, split, drive, attention} {
    require(split.drives_used() <= on.drives, [&] {
      return "insta_system: the split is over " + std::to_string(split.drives_used()) +
             " drives, the server has " + std::to_string(on.drives);
    });
  }

  const workload& job() const { return gpu_.job(); }

  decode_step step(double context) const {
    const model_spec& model = gpu_.model();
    const server& on = gpu_.on();
    const double layers = model.shape.layers;
    const double batch = static_cast<double>(job().batch);
    const double drives = static_cast<double>(kv_.split().drives_used());
    const kv_load load = kv_.at(context);

    // Drives that share the tokens of a head get the same q, and give back a part of the output
    // with its log-sum-exp in fp32.
    const int parts = kv_.split().token_parts;
    const double down = batch * model.element_bytes *
                        static_cast<double>(model.q_width() * parts + 2 * model.kv_width());
    const double up = batch * parts *
                      (model.element_bytes * static_cast<double>(model.q_width()) +
                       (parts > 1 ? double{sizeof(float)} * model.shape.q_heads : 0.0));
    const double drive_link = static_cast<double>(drive_.link_bytes_per_s);
    const double latency_s = on.gpu_link.latency_ns * 1e-9;
    const double moved_s = std::max((down + up) / (drives * drive_link),
                                    (down + up) / (on.gpus * on.gpu_link.bytes_per_s));
    const double written = batch * model.kv_bytes_per_token() * kv_.footprint();

    decode_step s;
    s.time = gpu_.step();
    s.time.kv_drive_s = layers * load.drive_s;
    s.time.qo_link_s = layers * (moved_s + 2 * latency_s);
    s.time.command_s = layers * commands_a_layer() * on.host.nvme_command_ns * 1e-9;
    s.time.kv_write_s = written / (drives * kv_.write_bytes_per_s());
    s.bytes = {.weights = gpu_.streamed_bytes(),
               .gpu_link_kv = layers * (down + up),
               .drive_link = layers * (down + up),
               .flash_read = layers * load.page_bytes,
               .kv_wanted = layers * load.wanted_bytes,
               .kv_written = written};
    return s;
  }

  prefill_time prefill() const {
    const double written = gpu_.kv_bytes(static_cast<double>(job().input_tokens)) * kv_.footprint();
    return gpu_.prefill(written,
                        static_cast<double>(kv_.split().drives_used()) * kv_.write_bytes_per_s());
  }

  memory_use memory() const {
    const server& on = gpu_.on();
    const double layers = gpu_.model().shape.layers;
    const double batch = static_cast<double>(job().batch);
    const double prompt_layer_kv =
        static_cast<double>(job().input_tokens) * gpu_.model().kv_bytes_per_token_layer();
    return {
        // Prompts are computed one after the other, with the KV of the current layer and of the one
        // that leaves.
        .gpu = {gpu_.weight_bytes() + gpu_.decode_activation_bytes() + 2 * prompt_layer_kv,
                on.gpu_memory_bytes()},
        .host = {on.weights == weights_at::host ? gpu_.model().weight_bytes() : 0.0,
                 on.host.memory_bytes},
        .drive = {gpu_.kv_bytes(static_cast<double>(job().context_tokens())) * kv_.footprint(),
                  on.drives * static_cast<double>(drive_.geometry.bytes())},
        .drive_dram = {batch * layers * (kv_.buffer_bytes() + kv_.l2p_bytes()),
                       on.drives * static_cast<double>(drive_.dram_bytes)}};
  }

  // The load of one layer on the drives, by resource.
  const kv_access<D, Format>& kv() const { return kv_; }
  const gpu_side& gpu() const { return gpu_; }

 private:
  double commands_a_layer() const {
    return static_cast<double>(job().batch) * kv_.split().results();
  }

  gpu_side gpu_;
  flash::drive_spec drive_;
  kv_access<D, Format> kv_;
};

template <class Format = kv_format<>>
using insta_sparf_system = insta_system<insta_sparf, Format>;

}  // namespace instinfer::system
