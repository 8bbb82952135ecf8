#pragma once
// The cost of one layer's decode attention on a drive, by context length.
// The flash path runs the real access plans without data, at a few context lengths, and costs are
// linear between them.

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "instinfer/flash/bottleneck.hpp"
#include "instinfer/flash/engine.hpp"
#include "instinfer/store/layer/l2p_footprint.hpp"
#include "instinfer/system/drive_split.hpp"
#include "instinfer/system/spec/model_spec.hpp"
#include "instinfer/system/spec/workload.hpp"

namespace instinfer::system {

// Bytes of a stored K or V value in sealed pages, without the scales of a codec.
template <class Format>
inline constexpr int stored_bytes =
    Format::token_bytes / (Format::k_row + (Format::latent ? 0 : Format::v_row));

// One layer of one step for the whole batch. Times are of the busiest drive, bytes of all drives.
struct kv_load {
  double flash_s = 0;
  double stalled_s = 0;  // part of flash_s: data that waited for a later stage
  double filter_s = 0;
  double gemv_s = 0;
  double softmax_s = 0;
  double top_k_s = 0;
  double drive_s = 0;       // of the busiest drive, from the arrival of q to the last head's output
  double page_bytes = 0;    // over the flash channels
  double wanted_bytes = 0;  // entries that attention uses, from flash
  double buffered_bytes = 0;         // entries from the group buffer
  flash::unit_breakdown units = {};  // by the units of InstInfer Fig. 21, in the drive
  flash::attend_bounds bounds = {};  // of the drive's time, by resource
};

// Wanted entries of an attend call, by source, for any route.
class wanted_entries {
 public:
  explicit wanted_entries(int element_bytes) : element_bytes_{element_bytes} {}

  wanted_entries& head(std::uint32_t /*kv_head*/) { return *this; }
  void chose(attention::operation, index_view) {}
  void accessed(attention::operation, const access_plan& plan) {
    for (const page_read& read : plan.reads()) {
      (read.buffered ? buffered_ : from_flash_) +=
          static_cast<double>(read.wanted_elements()) * element_bytes_;
    }
  }
  double from_flash() const { return from_flash_; }
  double buffered() const { return buffered_; }

 private:
  int element_bytes_;
  double from_flash_ = 0;
  double buffered_ = 0;
};

// The sequences of a batch are similar, so a few represent all: as many as give the drive
// `enough_pages` pages. A test compares both approximations, this one and the interpolation, with
// the full batch at every context length.
template <Design D, class Format = kv_format<>>
class kv_access {
 public:
  static constexpr int nodes = 5;  // number of simulated context lengths, with both ends
  static constexpr double enough_pages = 60'000;

  // Throws bad_argument for an invalid model or workload, and if the model's head or element size
  // differs from the format's.
  kv_access(const model_spec& model, const workload& job, int drives,
            const flash::drive_spec& drive = D::drive,
            const typename D::attention_policy& attention = {},
            const flash::drive_rules& rules = flash::independent_planes)
      : kv_access{model,
                  job,
                  (model.validate(), job.validate(), split_over(drives, model.shape, job.batch)),
                  drive,
                  attention,
                  rules} {}
  // The same with a split of the caller's. It throws bad_argument, too, if drives share the tokens
  // of a head and the method selects tokens by the whole context.
  kv_access(const model_spec& model, const workload& job, const drive_split& split,
            const flash::drive_spec& drive = D::drive,
            const typename D::attention_policy& attention = {},
            const flash::drive_rules& rules = flash::independent_planes)
      : split_{(model.validate(), job.validate(), split)},
        first_{static_cast<double>(job.input_tokens)},
        last_{static_cast<double>(job.context_tokens())} {
    require(Format::k_dim == model.head_dim && Format::v_dim == model.head_dim &&
                stored_bytes<Format> == model.kv_element_bytes,
            [&] {
              return "kv_access: " + std::string(model.name) + " has heads of " +
                     std::to_string(model.head_dim) + " dims of " +
                     std::to_string(model.kv_element_bytes) + " bytes, the format has " +
                     std::to_string(Format::k_dim) + " of " + std::to_string(stored_bytes<Format>);
            });
    require(split.token_parts == 1 || attention::folds_all_visible<typename D::attention_policy>,
            [] {
              return std::string(
                  "kv_access: drives share the tokens of a head only where the method folds all "
                  "visible tokens");
            });
    for (int i = 0; i < nodes; ++i) {
      const std::uint64_t context = split_.tokens_of(
          static_cast<std::uint64_t>(job.input_tokens + job.output_tokens * i / (nodes - 1)));
      const auto node = static_cast<std::size_t>(i);
      loads_[node] = simulate(model, job, context, drive, rules, attention, bottlenecks_[node]);
    }
  }

  // context: tokens in the cache. Outside of the workload's range, the slope of the nearest end
  // continues.
  kv_load at(double context) const {
    const double x = (context - first_) / (last_ - first_) * (nodes - 1);
    const int i = std::clamp(static_cast<int>(x), 0, nodes - 2);
    const kv_load& a = loads_[static_cast<std::size_t>(i)];
    const kv_load& b = loads_[static_cast<std::size_t>(i) + 1];
    const double f = x - i;
    flash::unit_breakdown units;
    for (std::size_t u = 0; u < flash::unit_count; ++u) {
      units.busy_ns[u] = a.units.busy_ns[u] + f * (b.units.busy_ns[u] - a.units.busy_ns[u]);
    }
    flash::attend_bounds bounds;
    for (std::size_t r = 0; r < flash::resource_count; ++r) {
      bounds.busy_ns[r] = a.bounds.busy_ns[r] + f * (b.bounds.busy_ns[r] - a.bounds.busy_ns[r]);
    }
    const auto mix = [f](double from, double to) { return from + f * (to - from); };
    return {mix(a.flash_s, b.flash_s),
            mix(a.stalled_s, b.stalled_s),
            mix(a.filter_s, b.filter_s),
            mix(a.gemv_s, b.gemv_s),
            mix(a.softmax_s, b.softmax_s),
            mix(a.top_k_s, b.top_k_s),
            mix(a.drive_s, b.drive_s),
            mix(a.page_bytes, b.page_bytes),
            mix(a.wanted_bytes, b.wanted_bytes),
            mix(a.buffered_bytes, b.buffered_bytes),
            units,
            bounds};
  }
  // Of the drive alone, at the simulated context length that is nearest.
  const flash::bottleneck& bottleneck(double context) const {
    const double x = (context - first_) / (last_ - first_) * (nodes - 1);
    return bottlenecks_[static_cast<std::size_t>(std::clamp(x + 0.5, 0.0, nodes - 1.0))];
  }

  const drive_split& split() const { return split_; }
  // Pages written per dense KV byte: 1.5 if K is stored twice.
  double footprint() const { return footprint_; }
  // Write rate of one drive for the KV of prompts, with the link.
  double write_bytes_per_s() const { return write_bytes_per_s_; }
  // One layer of one sequence at the end of the run, all heads: bytes of full open pages, and of
  // L2P entries.
  double buffer_bytes() const { return buffer_bytes_; }
  double l2p_bytes() const { return l2p_bytes_; }

 private:
  using engine = flash::engine<D, Format>;

  kv_load simulate(const model_spec& model, const workload& job, std::uint64_t context,
                   const flash::drive_spec& drive, const flash::drive_rules& rules,
                   const typename D::attention_policy& attention, flash::bottleneck& slowest) {
    const double dense_bytes = static_cast<double>(context) * split_.kv_heads * Format::token_bytes;
    const double sequence_pages = std::max(1.0, dense_bytes / D::layout_policy::page_bytes);
    const auto sequences = static_cast<std::int64_t>(std::clamp(
        std::ceil(enough_pages / sequence_pages), 1.0, static_cast<double>(split_.sequences)));
    // Twice the dense bytes is enough for the dual layout; the rest is for at least one page per
    // channel.
    const auto bytes =
        static_cast<std::uint64_t>(2 * dense_bytes * static_cast<double>(sequences)) +
        (std::uint64_t{64} << 20);
    engine clock({.layers = 1,
                  .q_heads = split_.kv_heads * model.shape.group(),
                  .kv_heads = split_.kv_heads},
                 {.bytes = std::min(bytes, static_cast<std::uint64_t>(drive.geometry.bytes())),
                  .context_tokens = static_cast<std::uint32_t>(
                      split_.tokens_of(static_cast<std::uint64_t>(job.context_tokens())))},
                 attention, {}, drive, {}, rules);
    const auto heads = static_cast<std::size_t>(split_.kv_heads * model.shape.group());
    const std::vector<float> q(heads * Format::k_dim, 1.0f);
    std::vector<float> out(heads * Format::v_dim);
    std::vector<typename engine::request> batch;
    double written_bytes = 0;
    double write_ns = 0;
    for (std::int64_t i = 0; i < sequences; ++i) {
      batch.push_back({clock.open(), q, out});
      // Random selections depend only on head and length. Lengths that differ by up to 8 tokens
      // keep sequences from having the same selections.
      const std::int64_t longer = (i + 1) / 2 * 5 % 9 * (i % 2 == 0 ? -1 : 1);
      const flash::receipt done =
          clock.append_count(batch.back().seq, 0,
                             static_cast<std::uint64_t>(std::max<std::int64_t>(
                                 1, static_cast<std::int64_t>(context) + longer)));
      written_bytes += static_cast<double>(done.traffic.written_bytes);
      write_ns += done.total_ns();
    }
    if (written_bytes > 0) {
      write_bytes_per_s_ = written_bytes / (write_ns * 1e-9);
    }
    const flash::receipt done = clock.attend_batch(0, batch);

    wanted_entries wanted(stored_bytes<Format>);
    typename engine::inner_type::scratch work;
    clock.inner().attend(batch.front().seq, 0, q, out, work, parallel::serial{}, wanted);
    note_buffers(clock.inner().cache(), batch.front().seq);

    kv_load load;
    for (const flash::phase_ns& phase : done.phases) {
      load.filter_s += phase.filter * 1e-9;
      load.gemv_s += phase.gemv * 1e-9;
      load.softmax_s += phase.softmax * 1e-9;
      load.top_k_s += phase.top_k * 1e-9;
    }
    load.flash_s = done.units[flash::unit::flash] * 1e-9;
    load.stalled_s = done.stalled_ns * 1e-9;
    // For a host route, only the drive's part: the system times the transfer of pages.
    load.drive_s = D::transfer_policy::computes_in_drive ? done.attention_ns * 1e-9 : load.flash_s;
    // Sequences pass through the drive one after the other, so its time grows with their number.
    const double more = static_cast<double>(split_.sequences) / static_cast<double>(sequences);
    for (double* s : {&load.flash_s, &load.stalled_s, &load.filter_s, &load.gemv_s, &load.softmax_s,
                      &load.top_k_s, &load.drive_s}) {
      *s *= more;
    }
    load.units = done.units;
    load.bounds = done.bounds;
    for (double& ns : load.units.busy_ns) {
      ns *= more;
    }
    for (double& ns : load.bounds.busy_ns) {
      ns *= more;
    }
    slowest = flash::bottleneck_of(done);
    slowest.ns *= more;
    const double all = static_cast<double>(job.batch) * model.shape.kv_heads / split_.kv_heads *
                       split_.token_parts;
    load.page_bytes =
        static_cast<double>(done.traffic.channel_bytes) / static_cast<double>(sequences) * all;
    load.wanted_bytes = wanted.from_flash() * all;
    load.buffered_bytes = wanted.buffered() * all;
    return load;
  }

  template <class Cache>
  void note_buffers(const Cache& cache, sequence seq) {
    double stored = 0;
    buffer_bytes_ = 0;
    for (const stream s : {stream::k_by_token, stream::k_by_dim, stream::v_by_token}) {
      if (const layout::tile& tile = cache.tiles().of(s); tile.stored()) {
        const double dims =
            s == stream::v_by_token ? Format::latent ? 0 : Format::v_row : Format::k_row;
        const double row = dims * static_cast<double>(stored_bytes<Format>);
        stored += row;
        buffer_bytes_ += row * tile.tokens * cache.shape().kv_heads;
      }
    }
    footprint_ = stored / Format::token_bytes;
    const double parts = split_.results();
    buffer_bytes_ *= parts;
    l2p_bytes_ = static_cast<double>(store::l2p_of(cache, seq).bytes()) * parts;
  }

  drive_split split_;
  double first_;
  double last_;
  std::array<kv_load, nodes> loads_{};
  std::array<flash::bottleneck, nodes> bottlenecks_{};
  double footprint_ = 1;
  double write_bytes_per_s_ = 1;
  double buffer_bytes_ = 0;
  double l2p_bytes_ = 0;
};

}  // namespace instinfer::system
