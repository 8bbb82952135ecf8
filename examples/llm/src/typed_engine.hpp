#pragma once
// any_engine over one combination of method, storage and head size: the flash engine over the CPU
// path, so that every attend is computed, and those that are asked for are timed.

#include <time.h>

#include <algorithm>
#include <chrono>
#include <vector>

#include "any_engine.hpp"
#include "either_store.hpp"
#include "instinfer/codec/scaled_pages.hpp"
#include "instinfer/cpu.hpp"
#include "instinfer/flash/engine.hpp"
#include "instinfer/methods/calibrate.hpp"
#include "methods.hpp"
#include "rows.hpp"

namespace instinfer::llm {

// An accelerator that keeps up with the paper's channels, whatever a method asks of it.
inline flash::accelerator_spec fast_units() {
  flash::accelerator_spec units = flash::instcsd.units;
  units.filter_bytes_per_s *= 64;
  units.gemv_flops_per_s *= 4096;
  units.softmax_flops_per_s *= 4096;
  units.top_k_elements_per_s *= 4096;
  return units;
}

template <class Method, class Format>
class typed_engine final : public any_engine {
  using layout_type = typename method<Method>::layout;
  using engine = flash::engine<design<Method, layout_type, flash::instcsd, transfer::in_storage>,
                               Format, cpu::path, flash::data_out_first, either_store>;
  using element = typename Format::element;
  static constexpr auto dim = static_cast<std::size_t>(Format::k_dim);

 public:
  typed_engine(const Method& policy, const engine_settings& with)
      : shape_{with.shape},
        window_{with.logits.window},
        engine_{with.shape, with.capacity, store_for(with.capacity, with.drive), policy,
                with.logits},
        share_{with.budget},
        calibrates_{std::is_same_v<Method, attention::squeezed> &&
                    with.settings.find("threshold") == std::string::npos} {
    learned_from_.resize(calibrates_ ? static_cast<std::size_t>(shape_.layers) : 0);
  }

  sequence open() override { return engine_.open(); }
  sequence fork(sequence seq) override { return engine_.fork(seq); }
  void truncate(sequence seq, int first_layer, int end_layer, std::uint64_t tokens) override {
    engine_.truncate(seq, store::truncate_range{static_cast<std::uint32_t>(first_layer),
                                                static_cast<std::uint32_t>(end_layer), tokens});
  }
  void reclaim(sequence seq) override {
    engine_.reclaim(seq);
    if (calibrated_on_ == seq) {
      calibrated_on_ = {};
    }
  }
  std::uint64_t length(sequence seq, int layer) const override {
    return engine_.positions(seq, layer);
  }

  void prefill(std::span<const token_rows> batch, int layer, instinfer_llm_usage& usage) override {
    for (const token_rows& rows : batch) {
      const std::uint32_t n = rows.of->tokens;
      if (n > 0) {
        const auto q = rows.of->q.data == nullptr ? std::span<const float>() : q_of(rows, 0, n, q_);
        const auto out = rows.of->out == nullptr ? std::span<float>() : out_of(rows, 0, n);
        count_append(engine_.prefill(rows.seq, layer, k_of(rows, 0, n), v_of(rows, 0, n), q, out),
                     usage);
        keep_queries(rows.seq, layer, q);
      }
    }
  }

  void decode(std::span<const token_rows> batch, int layer, bool timed,
              const bench::worker_pool& workers, instinfer_llm_usage& usage) override {
    std::uint32_t most = 0;
    std::vector<std::uint64_t> before;
    for (const token_rows& rows : batch) {
      most = std::max(most, rows.of->tokens);
      before.push_back(engine_.positions(rows.seq, layer));
    }
    queries_.resize(std::max(queries_.size(), batch.size()));
    calibrate();
    try {
      for (std::uint32_t t = 0; t < most; ++t) {
        requests_.clear();
        for (std::size_t i = 0; i < batch.size(); ++i) {
          const token_rows& rows = batch[i];
          if (t < rows.of->tokens) {
            requests_.push_back({rows.seq, q_of(rows, t, 1, queries_[i]), out_of(rows, t, 1)});
            count_append(engine_.append(rows.seq, layer, k_of(rows, t, 1), v_of(rows, t, 1)),
                         usage);
            if constexpr (std::is_same_v<Method, attention::retro_infer>) {
              count_append(engine_.build(rows.seq, layer), usage);  // new tokens, when it is due
            }
          }
        }
        attend(layer, timed, workers, usage);
      }
    } catch (...) {
      for (std::size_t i = 0; i < batch.size(); ++i) {
        take_back(batch[i].seq, layer, before[i]);
      }
      throw;
    }
  }

 private:
  static either_store store_for(const store::capacity& capacity, const std::string& drive) {
    const std::uint32_t channels =
        drive.empty() ? static_cast<std::uint32_t>(flash::instcsd.geometry.channels) : 1;
    return {drive, channels, store::pages_per_channel(capacity, layout_type::page_bytes, channels),
            layout_type::page_bytes};
  }

  // Squeezed Attention finds its threshold from the last queries of the first prompt that leaves a
  // choice: one whose newest tokens alone exceed the share has to wait for a longer one.
  static constexpr std::size_t calibrating_queries = 32;
  void keep_queries(sequence seq, int layer, std::span<const float> q) {
    if (calibrates_ && (calibrated_on_ == sequence{} || calibrated_on_ == seq)) {
      calibrated_on_ = seq;
      const std::size_t most = calibrating_queries * q_heads() * dim;
      const auto last = q.last(std::min(q.size(), most));
      learned_from_[static_cast<std::size_t>(layer)].assign(last.begin(), last.end());
    }
  }
  void calibrate() {
    if constexpr (std::is_same_v<Method, attention::squeezed>) {
      if (calibrates_ && calibrated_on_ != sequence{}) {
        const auto& index =
            std::get<attention::cluster_index::state<typename Format::padded::decoded>>(
                engine_.inner().cache().at(calibrated_on_, 0).summaries(0));
        const double tokens = engine_.tokens(calibrated_on_, 0);
        if (tokens - index.indexed().size() >= share_ * tokens) {
          calibrated_on_ = {};
          return;
        }
        std::vector<float> q;  // [layers, n, q_heads, dim]
        for (const std::vector<float>& of_layer : learned_from_) {
          q.insert(q.end(), of_layer.begin(), of_layer.end());
        }
        methods::calibrate(engine_, calibrated_on_, q, share_);
        calibrates_ = false;
      }
    }
  }

  // After a failed decode. What a method has learned of the tokens cannot be taken back; they then
  // stay.
  void take_back(sequence seq, int layer, std::uint64_t tokens) noexcept {
    const auto at = static_cast<std::uint32_t>(layer);
    try {
      if (engine_.positions(seq, layer) > tokens) {
        engine_.truncate(seq, store::truncate_range{at, at + 1, tokens});
      }
    } catch (const std::exception&) {
    }
  }

  std::size_t q_heads() const { return static_cast<std::size_t>(shape_.q_heads); }
  std::size_t kv_heads() const { return static_cast<std::size_t>(shape_.kv_heads); }

  std::span<const element> k_of(const token_rows& r, std::uint32_t first, std::size_t n) {
    return packed(r.of->k, r.type, first, n, kv_heads(), dim, "k", k_);
  }
  std::span<const element> v_of(const token_rows& r, std::uint32_t first, std::size_t n) {
    return packed(r.of->v, r.type, first, n, kv_heads(), dim, "v", v_);
  }
  std::span<const float> q_of(const token_rows& r, std::uint32_t first, std::size_t n,
                              std::vector<float>& copy) const {
    return packed(r.of->q, r.type, first, n, q_heads(), dim, "q", copy);
  }
  std::span<float> out_of(const token_rows& r, std::uint32_t first, std::size_t n) const {
    require(r.of->out != nullptr, [] { return std::string("decode: there is no out"); });
    const std::size_t row = q_heads() * dim;
    return {r.of->out + first * row, n * row};
  }

  void attend(int layer, bool timed, const bench::worker_pool& workers,
              instinfer_llm_usage& usage) {
    traffic moved;
    if (timed) {
      const flash::receipt done = engine_.attend_batch(layer, requests_);
      moved = done.traffic;
      usage.timed_attends += requests_.size();
      usage.attend_ns += done.total_ns();
      usage.attend_fast_ns += engine_.last_attend_with(fast_units()).total_ns();
    } else {
      const auto begin = std::chrono::steady_clock::now();
      const std::uint64_t processor = processor_ns();
      moved = engine_.inner().attend(requests_, layer, work_, workers).traffic;
      usage.processor_ns += processor_ns() - processor;
      usage.wall_ns += static_cast<std::uint64_t>(
          std::chrono::nanoseconds(std::chrono::steady_clock::now() - begin).count());
    }
    usage.attends += requests_.size();
    usage.pages_read += moved.pages_read;
    usage.array_bytes += moved.array_bytes;
    usage.wanted_bytes += moved.wanted_bytes();
    usage.fast_bytes += moved.fast_bytes;
    usage.summary_bytes += moved.summary_bytes;
    for (const attend_request& r : requests_) {
      const std::uint32_t live = engine_.tokens(r.seq, layer);
      usage.dense_bytes += std::uint64_t{window_ == 0 ? live : std::min(live, window_)} *
                           kv_heads() * static_cast<std::uint64_t>(Format::token_bytes);
    }
  }

  static void count_append(const flash::receipt& done, instinfer_llm_usage& usage) {
    usage.written_bytes += done.traffic.written_bytes;
    usage.append_ns += done.total_ns();
  }
  static std::uint64_t processor_ns() {
    timespec now{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000u +
           static_cast<std::uint64_t>(now.tv_nsec);
  }

  model_shape shape_;
  std::uint32_t window_;
  engine engine_;
  double share_;
  bool calibrates_;  // has yet to find its threshold
  sequence calibrated_on_;
  std::vector<std::vector<float>> learned_from_;  // [layers]: queries
  typename engine::inner_type::scratch work_;
  std::vector<attend_request> requests_;
  std::vector<element> k_, v_;  // copies of rows that cannot be taken as they are
  std::vector<float> q_;
  std::vector<std::vector<float>> queries_;  // of each sequence of a batch
};

}  // namespace instinfer::llm
