#pragma once
// FlexGen, FlexGen-GDS and FlexGen-SparQ: the KV cache is in files on SSDs, and attention runs on
// the GPU (InstInfer §III, §VI-A).

#include "instinfer/engine/design.hpp"
#include "instinfer/system/concepts.hpp"
#include "instinfer/system/gpu_side.hpp"
#include "instinfer/system/kv_access.hpp"

namespace instinfer::system {

// FlexGen-SparQ with one copy of K, by token. The paper runs it at the same batches as FlexGen; a
// second copy in the page cache would not allow this.
using flexgen_sparq_one_copy =
    design<attention::sparq, layout::token_indexed<>, flash::pcie4_ssd, transfer::host_bounce>;

// How prompts are computed.
// - whole_batch: all at once, and PyTorch allocates the [heads, tokens, tokens] matrices of scores.
//   The paper's runs overflow the GPU's memory like this at batch 128.
// - one_by_one: one sequence at a time, with attention in tiles that keep no matrix of scores
//   (FlashAttention). FlexGen does not do so; a planner compares with it as the better baseline.
enum class prompts { whole_batch, one_by_one };

// The zig-zag schedule with one GPU batch per block: each step loads the weights of a layer once
// for the whole batch. KV is read one layer ahead. But weights and KV share the GPU's link and the
// copy threads, and KV uses all of their time, so the two times add up.
//
// Files go through the page cache, which has the host memory that weights and buffers leave free.
// Each step reads the whole KV cache in order. With least-recently-used replacement, a KV cache
// that fits is therefore never read from the drive, and one that does not fit always is.
//
// On several GPUs the layers form a pipeline of g stages, with g micro-batches and a flush after
// every token. For what each stage copies itself, this takes (2 g - 1) / g^2 of one GPU's time.
// Assumed.
template <Design D = flexgen, class Format = kv_format<>>
class flexgen_system {
  static_assert(
      !D::transfer_policy::computes_in_drive,
      "instinfer: flexgen_system needs a design whose transfer policy takes pages to the GPU, see design.hpp");

 public:
  static constexpr bool direct = std::same_as<typename D::transfer_policy, transfer::gpu_direct>;
  static constexpr std::string_view name =
      !std::same_as<typename D::attention_policy, attention::dense> ? "FlexGen-SparQ"
      : direct                                                      ? "FlexGen-GDS"
                                                                    : "FlexGen";

  flexgen_system(const model_spec& model, const server& on, const workload& job,
                 const typename D::attention_policy& attention = {},
                 const flash::drive_spec& drive = D::drive, prompts how = prompts::whole_batch,
                 const flash::drive_rules& rules = flash::independent_planes)
      : gpu_{model, on, job},
        drive_{drive},
        kv_{model, job, on.drives, drive, attention, rules},
        prompts_{how} {}

  const workload& job() const { return gpu_.job(); }

  bool in_page_cache(double context) const {
    return !direct && gpu_.kv_bytes(context) * kv_.footprint() <= page_cache_bytes();
  }

  decode_step step(double context) const {
    const server& on = gpu_.on();
    const host_software& cost = on.host.software;
    const double layers = gpu_.model().shape.layers;
    const kv_load load = kv_.at(context);
    // The page cache delivers entries; a drive, or DMA from it, delivers whole pages.
    const double entries = layers * (load.wanted_bytes + load.buffered_bytes);
    const double pages = layers * load.page_bytes;
    const bool cached = in_page_cache(context);
    const double read = cached ? 0.0 : pages;
    const double moved = direct ? pages : entries;

    decode_step s;
    s.time = gpu_.step();
    s.time.compute_s += layers * gpu_.time().decode_attention_s(
                                     gpu_.model(), static_cast<double>(job().batch), context);
    s.time.kv_drive_s =
        cached ? 0.0
               : std::max(layers * load.drive_s,
                          read / (on.drives * static_cast<double>(drive_.link_bytes_per_s)));
    s.time.kv_link_s = direct ? 0.0
                              : moved / on.gpu_link.bytes_per_s * stage_share() +
                                    layers * on.gpu_link.latency_ns * 1e-9;
    s.time.kv_software_s = (moved / on.host.request_bytes * cost.cached_request_ns * stage_share() +
                            read / on.host.request_bytes * uncached_request_ns()) *
                           1e-9;
    const double written =
        static_cast<double>(job().batch) * gpu_.model().kv_bytes_per_token() * kv_.footprint();
    s.time.kv_write_s = written / write_bytes_per_s();
    s.bytes = {.weights = gpu_.streamed_bytes(),
               .gpu_link_kv = moved,
               .drive_link = read,
               .flash_read = read,
               .kv_wanted = entries,
               .kv_written = written};
    return s;
  }

  prefill_time prefill() const {
    return gpu_.prefill(gpu_.kv_bytes(static_cast<double>(job().input_tokens)) * kv_.footprint(),
                        write_bytes_per_s());
  }

  memory_use memory() const {
    const server& on = gpu_.on();
    const double kv = gpu_.kv_bytes(static_cast<double>(job().context_tokens())) * kv_.footprint();
    return {.gpu = {prefill_gpu_bytes(), usable_gpu_share * on.gpu_memory_bytes()},
            .host = {host_bytes() + (direct ? 0.0 : kv), on.host.memory_bytes},
            .drive = {kv, on.drives * static_cast<double>(drive_.geometry.bytes())},
            .drive_dram = {},
            .host_may_overflow = host_bytes() <= on.host.memory_bytes};
  }

  // FlexGen plans with 0.8 of each memory (a relaxation in its cost model).
  static constexpr double usable_gpu_share = 0.8;

  // Peak memory of a prompt's attention. Counted are: hidden states in and out of the block, q, k,
  // v; three [heads, tokens, tokens] matrices (logits, masked, softmax: PyTorch allocates each);
  // the KV of the layers before and after, which are in transfer. one_by_one has no matrices.
  double prefill_gpu_bytes() const {
    const model_spec& model = gpu_.model();
    const bool at_once = prompts_ == prompts::whole_batch;
    const double batch = at_once ? static_cast<double>(job().batch) : 1.0;
    const double tokens = static_cast<double>(job().input_tokens);
    const double hidden = 2.0 * static_cast<double>(model.hidden) +
                          static_cast<double>(model.q_width() + 2 * model.kv_width());
    const double scores = at_once ? 3.0 * model.shape.q_heads * tokens * tokens : 0.0;
    return gpu_.weight_bytes() + model.element_bytes * batch * (tokens * hidden + scores) +
           2 * batch * tokens * model.kv_bytes_per_token_layer();
  }

  const kv_access<D, Format>& kv() const { return kv_; }
  const gpu_side& gpu() const { return gpu_; }

 private:
  double stage_share() const {
    const double g = gpu_.on().gpus;
    return (2 * g - 1) / (g * g);
  }
  double host_bytes() const {
    const server& on = gpu_.on();
    return on.host.copy_threads * on.host.copy_buffer_bytes +
           (on.weights == weights_at::host ? gpu_.model().weight_bytes() : 0.0);
  }
  // Extra cost of a request that misses the page cache, without the link: its command, and the wait
  // for the flash array, which the copy threads share. Assumed.
  double uncached_request_ns() const {
    const server& on = gpu_.on();
    return on.host.nvme_command_ns +
           static_cast<double>(drive_.timing.read_ps) * 1e-3 / on.host.copy_threads;
  }
  double page_cache_bytes() const { return gpu_.on().host.memory_bytes - host_bytes(); }

  // New KV takes the opposite route, request by request.
  double write_bytes_per_s() const {
    const server& on = gpu_.on();
    const double request_s = (on.host.software.cached_request_ns + uncached_request_ns()) * 1e-9;
    return 1.0 / (request_s / on.host.request_bytes + 1.0 / (on.drives * kv_.write_bytes_per_s()));
  }

  gpu_side gpu_;
  flash::drive_spec drive_;
  kv_access<D, Format> kv_;
  prompts prompts_;
};

template <class Format = kv_format<>>
using flexgen_gds_system = flexgen_system<flexgen_gds, Format>;
template <class Format = kv_format<>>
using flexgen_sparq_system = flexgen_system<flexgen_sparq_one_copy, Format>;

}  // namespace instinfer::system
