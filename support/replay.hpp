#pragma once
// Replays the decode of a KV trace on one design: what it reads, how far it is from the exact
// answer, how long it takes.

#include <chrono>
#include <cmath>
#include <string>
#include <vector>

#include "instinfer/cpu.hpp"
#include "instinfer/reference/exact.hpp"
#include "instinfer/ssd/report/chrome_trace.hpp"
#include "kv_trace.hpp"
#include "memory_or_drive.hpp"

namespace instinfer::trace {

// Exact attention in fp64 over the trace's values as stored in fp16: the yardstick of all designs.
struct exact_answers {
  struct query_head {
    std::vector<float> weights;    // [tokens up to the query]
    reference::row_vector output;  // [head_dim]
  };
  std::vector<std::vector<std::vector<query_head>>> heads;  // [layers][queries][q_heads]
};

// Throws bad_argument for a value that fp16 cannot hold.
inline std::vector<fp16> as_stored(const tensor& x) {
  std::vector<fp16> stored(x.values.size());
  for (std::size_t i = 0; i < stored.size(); ++i) {
    stored[i] = from_float<fp16>(x.values[i]);
    require(is_finite(stored[i]), [&] {
      return "trace: K and V are stored as fp16 here, which cannot hold " +
             std::to_string(x.values[i]);
    });
  }
  return stored;
}

inline exact_answers solve_exactly(const kv_trace& trace, std::size_t queries) {
  using reference::matrix;
  const auto head_matrix = [](const tensor& x, std::size_t head) {
    matrix m(x.shape[0], x.shape[2]);
    for (std::size_t t = 0; t < x.shape[0]; ++t) {
      for (std::size_t i = 0; i < x.shape[2]; ++i) {
        m(static_cast<Eigen::Index>(t), static_cast<Eigen::Index>(i)) =
            static_cast<double>(to_float(from_float<fp16>(x.row(t)[head * x.shape[2] + i])));
      }
    }
    return m;
  };
  exact_answers all;
  const std::size_t group = trace.q_heads() / trace.kv_heads();
  for (const layer& l : trace.layers) {
    auto& layer_answers =
        all.heads.emplace_back(queries, std::vector<exact_answers::query_head>(trace.q_heads()));
    for (std::size_t h = 0; h < trace.q_heads(); ++h) {
      const matrix K = head_matrix(l.k, h / group);
      const matrix V = head_matrix(l.v, h / group);
      for (std::size_t i = 0; i < queries; ++i) {
        const auto seen = static_cast<Eigen::Index>(trace.tokens() - queries + i + 1);
        reference::row_vector q(static_cast<Eigen::Index>(trace.head_dim()));
        for (Eigen::Index d = 0; d < q.size(); ++d) {
          q[d] = l.q.row(trace.queries() - queries +
                         i)[h * trace.head_dim() + static_cast<std::size_t>(d)];
        }
        const reference::row_vector weights = reference::attention_weights(q, K.topRows(seen));
        layer_answers[i][h] = {{weights.begin(), weights.end()}, weights * V.topRows(seen)};
      }
    }
  }
  return all;
}

// One row of the comparison. Traffic and modelled times are means over layers and steps; a step is
// one attention call for every sequence of the batch, in one layer. Errors and masses are over
// single calls.
struct measurement {
  std::string design;
  double compression = 1;     // of K and V traffic, asked for
  double rel_error_mean = 0;  // |out - exact| / |exact| over all heads of a call
  double rel_error_max = 0;
  double mass_mean = 0;  // exact attention weight of the tokens that were folded
  double mass_min = 1;   // of the worst query head
  double pages = 0;
  double array_bytes = 0;
  double channel_bytes = 0;
  double filtered_bytes = 0;
  double link_bytes = 0;
  double cpu_us = 0;    // measured: the batch one call after the other on one thread, median call
  double model_us = 0;  // modelled: the design's drive and route
  double flash_us = 0;  // modelled: the same with an engine that keeps up with the channels
  // Measured over a real drive, if one was given: the batch in one call, median call, and the bytes
  // that a call reads.
  double drive_us = 0;
  double drive_bytes = 0;
};

namespace detail {

// Adds up the exact weight of the tokens that each head folds.
struct mass_watch {
  struct head_watch {
    index_set folded;
    void chose(attention::operation op, index_view set) {
      if (op == attention::operation::top_tokens) {
        folded.clear();
        for (const index_run run : set.runs()) {
          folded.add(run.first, run.last);
        }
      }
    }
    void accessed(attention::operation, const access_plan&) {}
  };
  std::vector<head_watch> heads;
  head_watch& head(std::uint32_t h) { return heads[h]; }
};

inline double weight_of(index_view tokens, const std::vector<float>& weights) {
  double mass = 0;
  tokens.for_each([&](std::uint32_t t) { mass += static_cast<double>(weights[t]); });
  return mass;
}

}  // namespace detail

// |out - exact| / |exact| over the heads of a call.
inline double relative_error(std::span<const float> out,
                             const std::vector<exact_answers::query_head>& exact) {
  double difference = 0;
  double norm = 0;
  auto mine = out.begin();
  for (const exact_answers::query_head& head : exact) {
    for (const double e : head.output) {
      difference += (static_cast<double>(*mine) - e) * (static_cast<double>(*mine) - e);
      norm += e * e;
      ++mine;
    }
  }
  return norm > 0 ? std::sqrt(difference / norm) : std::sqrt(difference);
}

// How `queries` positions of a trace become the decode of `batch` sequences.
template <class D, int HeadDim>
struct decode_replay {
  using format = kv_format<fp16, HeadDim>;
  using store_type = examples::memory_or_drive;
  using engine = flash::engine<D, format, cpu::path, flash::data_out_first, store_type>;

  const kv_trace& trace;
  std::size_t queries;
  std::size_t batch;

  std::size_t steps() const { return queries / batch; }
  std::size_t prompt() const { return trace.tokens() - queries; }
  std::size_t kv_row() const { return trace.kv_heads() * trace.head_dim(); }
  std::size_t out_row() const { return trace.q_heads() * trace.head_dim(); }
  model_shape shape() const {
    return {.layers = static_cast<int>(trace.layers.size()),
            .q_heads = static_cast<int>(trace.q_heads()),
            .kv_heads = static_cast<int>(trace.kv_heads())};
  }
  store::capacity capacity() const {
    return {.bytes = 4 * batch * trace.layers.size() * trace.tokens() * kv_row() * sizeof(fp16) +
                     (8 << 20),
            .context_tokens = static_cast<std::uint32_t>(trace.tokens())};
  }
};

// The batch on an engine: layer by layer, and in each layer step by step.
template <class D, int HeadDim>
class replayed_batch {
 public:
  using engine = typename decode_replay<D, HeadDim>::engine;

  replayed_batch(const decode_replay<D, HeadDim>& decode, engine& drive)
      : decode_{decode},
        drive_{drive},
        out_(decode.batch * decode.out_row()),
        requests_(decode.batch) {
    for (std::size_t s = 0; s < decode.batch; ++s) {
      sequences_.push_back(drive.open());
    }
  }

  // Takes K and V of a layer, and appends the prompts.
  void begin_layer(std::size_t layer) {
    layer_ = layer;
    k_ = as_stored(decode_.trace.layers[layer].k);
    v_ = as_stored(decode_.trace.layers[layer].v);
    for (std::size_t s = 0; s < decode_.batch; ++s) {
      append(s, 0, first_of(s, 0));
    }
  }
  // Appends the token of a sequence in a step, and makes its request.
  void append_token(std::size_t s, std::size_t step) {
    append(s, first_of(s, step), first_of(s, step + 1));
    const std::size_t query = s * decode_.steps() + step;
    requests_[s] = {
        sequences_[s],
        decode_.trace.layers[layer_].q.row(decode_.trace.queries() - decode_.queries + query),
        std::span(out_).subspan(s * decode_.out_row(), decode_.out_row())};
  }
  const std::vector<typename engine::request>& requests() const { return requests_; }

 private:
  std::size_t first_of(std::size_t s, std::size_t step) const {
    return decode_.prompt() + s * decode_.steps() + step;
  }
  void append(std::size_t s, std::size_t first, std::size_t last) {
    const std::size_t row = decode_.kv_row();
    drive_.append(sequences_[s], static_cast<int>(layer_),
                  std::span(k_).subspan(first * row, (last - first) * row),
                  std::span(v_).subspan(first * row, (last - first) * row));
  }

  const decode_replay<D, HeadDim>& decode_;
  engine& drive_;
  std::vector<sequence> sequences_;
  std::vector<float> out_;
  std::vector<typename engine::request> requests_;
  std::size_t layer_ = 0;
  std::vector<fp16> k_, v_;
};

// Splits the last `exact` positions of the trace over `batch` sequences: sequence s starts where s
// - 1 ends, and all decode side by side. Bars of the last step go to `timeline` if there is one.
template <class D, int HeadDim>
measurement replay(const std::string& name, double compression,
                   const typename D::attention_policy& policy, const kv_trace& trace,
                   const exact_answers& exact, std::size_t batch,
                   flash::chrome_trace* timeline = nullptr) {
  using engine = typename decode_replay<D, HeadDim>::engine;
  using clock = std::chrono::steady_clock;
  const std::size_t all = exact.heads.front().size() / batch * batch;
  const decode_replay<D, HeadDim> decode{trace, all, batch};
  const std::size_t steps = decode.steps();
  engine drive(decode.shape(), decode.capacity(), policy);
  replayed_batch<D, HeadDim> sequences(decode, drive);
  const auto& requests = sequences.requests();
  measurement sum{.design = name, .compression = compression};
  std::vector<double> cpu_us;
  typename engine::inner_type::scratch scratch;
  detail::mass_watch watch{std::vector<detail::mass_watch::head_watch>(trace.kv_heads())};

  for (std::size_t l = 0; l < trace.layers.size(); ++l) {
    const auto layer = static_cast<int>(l);
    sequences.begin_layer(l);
    for (std::size_t step = 0; step < steps; ++step) {
      for (std::size_t s = 0; s < batch; ++s) {
        const std::size_t answer = s * steps + step;
        sequences.append_token(s, step);
        const auto begin = clock::now();
        drive.inner().attend(requests[s].seq, layer, requests[s].q, requests[s].out, scratch,
                             parallel::serial{});
        cpu_us.push_back(std::chrono::duration<double, std::micro>(clock::now() - begin).count());

        drive.inner().attend(requests[s].seq, layer, requests[s].q, requests[s].out, scratch,
                             parallel::serial{}, watch);
        for (std::size_t h = 0; h < trace.q_heads(); ++h) {
          const index_set& folded = watch.heads[h / (trace.q_heads() / trace.kv_heads())].folded;
          const double mass = folded.count() == 0
                                  ? 1.0
                                  : detail::weight_of(folded, exact.heads[l][answer][h].weights);
          sum.mass_mean += mass / static_cast<double>(trace.q_heads());
          sum.mass_min = std::min(sum.mass_min, mass);
        }
      }
      const bool last = l + 1 == trace.layers.size() && step + 1 == steps;
      const flash::receipt receipt = drive.attend_batch(layer, requests, last ? timeline : nullptr);
      for (std::size_t s = 0; s < batch; ++s) {
        const double error = relative_error(requests[s].out, exact.heads[l][s * steps + step]);
        sum.rel_error_mean += error;
        sum.rel_error_max = std::max(sum.rel_error_max, error);
      }
      sum.pages += static_cast<double>(receipt.traffic.pages_read);
      sum.array_bytes += static_cast<double>(receipt.traffic.array_bytes);
      sum.channel_bytes += static_cast<double>(receipt.traffic.channel_bytes);
      sum.filtered_bytes += static_cast<double>(receipt.traffic.filtered_bytes);
      sum.link_bytes += static_cast<double>(receipt.traffic.link_bytes);
      sum.model_us += receipt.total_ns() * 1e-3;
      constexpr auto ample = flash::accelerator_for(1'000'000'000'000);
      sum.flash_us += (receipt.link_ns + drive.last_attend_with(ample).attention_ns) * 1e-3;
    }
  }
  const auto calls = static_cast<double>(cpu_us.size());
  for (double* mean : {&sum.rel_error_mean, &sum.mass_mean}) {
    *mean /= calls;
  }
  for (double* mean : {&sum.pages, &sum.array_bytes, &sum.channel_bytes, &sum.filtered_bytes,
                       &sum.link_bytes, &sum.model_us, &sum.flash_us}) {
    *mean /= calls / static_cast<double>(batch);
  }
  std::ranges::nth_element(cpu_us, cpu_us.begin() + std::ssize(cpu_us) / 2);
  sum.cpu_us = cpu_us[cpu_us.size() / 2] * static_cast<double>(batch);
  return sum;
}

// The same decode over pages on a real drive, in `folder`: measures its calls into drive_us and
// drive_bytes of `row`. Heads that wait for their pages leave the processor to others, so there are
// two threads for each core where there is OpenMP. Throws what the drive throws.
template <class D, int HeadDim>
void replay_from_drive(const typename D::attention_policy& policy, const kv_trace& trace,
                       std::size_t queries, std::size_t batch, const std::string& folder,
                       measurement& row) {
  using replayed = decode_replay<D, HeadDim>;
  using engine = typename replayed::engine;
  using clock = std::chrono::steady_clock;
  const replayed decode{trace, queries, batch};
  constexpr std::uint32_t page_bytes = D::layout_policy::page_bytes;
  engine drive(decode.shape(), decode.capacity(),
               typename replayed::store_type(store::drive_files(
                   {.folders = {folder}}, 1, decode.capacity().bytes / page_bytes, page_bytes)),
               policy);
#if defined(_OPENMP)
  const parallel::openmp workers{.threads = 2 * omp_get_num_procs()};
#else
  const parallel::serial workers;
#endif
  replayed_batch<D, HeadDim> sequences(decode, drive);
  typename engine::inner_type::scratch scratch;
  std::vector<double> call_us;
  double bytes = 0;
  for (std::size_t l = 0; l < trace.layers.size(); ++l) {
    const auto layer = static_cast<int>(l);
    sequences.begin_layer(l);
    for (std::size_t step = 0; step < decode.steps(); ++step) {
      for (std::size_t s = 0; s < batch; ++s) {
        sequences.append_token(s, step);
      }
      const std::uint64_t before = drive.pages().files()->bytes_read();
      const auto begin = clock::now();
      drive.inner().attend(sequences.requests(), layer, scratch, workers);
      call_us.push_back(std::chrono::duration<double, std::micro>(clock::now() - begin).count());
      bytes += static_cast<double>(drive.pages().files()->bytes_read() - before);
    }
  }
  row.drive_bytes = bytes / static_cast<double>(call_us.size());
  std::ranges::nth_element(call_us, call_us.begin() + std::ssize(call_us) / 2);
  row.drive_us = call_us[call_us.size() / 2];
}

}  // namespace instinfer::trace
