#pragma once
// any_engine over one combination of method, storage and head size: the flash engine over the CPU
// path, so that every attend is computed, and those that are asked for are timed.

#include <time.h>

#include <algorithm>
#include <chrono>
#include <vector>

#include "any_engine.hpp"
#include "either_store.hpp"
#include "instinfer/cpu.hpp"
#include "instinfer/flash/engine.hpp"
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
  using engine = flash::engine<
      design<Method, layout_type, flash::instcsd, transfer::in_storage>, Format, cpu::path,
      flash::data_out_first, either_store>;
  using element = typename Format::element;
  static constexpr auto dim = static_cast<std::size_t>(Format::k_dim);

 public:
  typed_engine(const Method& policy, const engine_settings& with)
      : shape_{with.shape},
        window_{with.logits.window},
        engine_{with.shape, with.capacity, store_for(with.capacity, with.drive), policy,
                with.logits} {}

  sequence open() override { return engine_.open(); }
  sequence fork(sequence seq) override { return engine_.fork(seq); }
  void truncate(sequence seq, int first_layer, int end_layer, std::uint64_t tokens) override {
    engine_.truncate(seq, store::truncate_range{static_cast<std::uint32_t>(first_layer),
                                                static_cast<std::uint32_t>(end_layer), tokens});
  }
  void reclaim(sequence seq) override { engine_.reclaim(seq); }
  std::uint64_t length(sequence seq, int layer) const override {
    return engine_.positions(seq, layer);
  }

  void prefill(std::span<const token_rows> batch, int layer, const bench::worker_pool& workers,
               instinfer_llm_usage& usage) override {
    for (const token_rows& rows : batch) {
      const std::uint32_t n = rows.of->tokens;
      require(rows.of->out == nullptr, [] {
        return std::string("prefill: the engine stores a prompt, its attention is the caller's; out must be NULL");
      });
      if constexpr (attention::learns<typename Method::summaries::template states<
                        typename Format::padded>>) {
        for (std::uint32_t t = 0; t < n; ++t) {
          count_append(engine_.append(rows.seq, layer, k_of(rows, t, 1), v_of(rows, t, 1)), usage);
          scrap_.resize(q_heads() * dim);
          engine_.inner().attend(rows.seq, layer, q_of(rows, t, 1), scrap_, work_, workers);
        }
      } else if (n > 0) {
        count_append(engine_.append(rows.seq, layer, k_of(rows, 0, n), v_of(rows, 0, n)), usage);
      }
      if constexpr (requires { engine_.build(rows.seq, layer); }) {
        if (n > 0) {
          count_append(engine_.build(rows.seq, layer), usage);
        }
      }
    }
  }

  void decode(std::span<const token_rows> batch, int layer, bool timed,
              const bench::worker_pool& workers, instinfer_llm_usage& usage) override {
    std::uint32_t most = 0;
    for (const token_rows& rows : batch) {
      most = std::max(most, rows.of->tokens);
    }
    queries_.resize(batch.size());
    for (std::uint32_t t = 0; t < most; ++t) {
      requests_.clear();
      for (std::size_t i = 0; i < batch.size(); ++i) {
        const token_rows& rows = batch[i];
        if (t < rows.of->tokens) {
          count_append(engine_.append(rows.seq, layer, k_of(rows, t, 1), v_of(rows, t, 1)), usage);
          requests_.push_back({rows.seq, q_of(rows, t, 1, queries_[i]), out_of(rows, t, 1)});
        }
      }
      attend(layer, timed, workers, usage);
    }
  }

 private:
  static either_store store_for(const store::capacity& capacity, const std::string& drive) {
    const auto channels = static_cast<std::uint32_t>(flash::instcsd.geometry.channels);
    return {drive, channels, store::pages_per_channel(capacity, layout_type::page_bytes, channels),
            layout_type::page_bytes};
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
  std::span<const float> q_of(const token_rows& r, std::uint32_t first, std::size_t n) {
    queries_.resize(std::max<std::size_t>(queries_.size(), 1));
    return q_of(r, first, n, queries_.front());
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
    usage.wanted_bytes += moved.filtered_bytes + moved.buffer_bytes;
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
  typename engine::inner_type::scratch work_;
  std::vector<attend_request> requests_;
  std::vector<float> scrap_;
  std::vector<element> k_, v_;               // copies of rows that cannot be taken as they are
  std::vector<std::vector<float>> queries_;  // of each sequence of a batch
};

}  // namespace instinfer::llm
