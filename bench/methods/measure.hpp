#pragma once
// One method at one setting on one case: error, attention mass, bytes by stage, time.

#include <chrono>
#include <cmath>

#include "decode_case.hpp"
#include "instinfer/cpu.hpp"
#include "instinfer/methods.hpp"

namespace instinfer::methods {

// Traffic and times are means over layers and measured queries, of all KV heads; errors and masses
// are over query heads.
struct measurement {
  std::string method;
  std::string workload;
  double budget = 1;     // share of the dense K and V that the setting asks for
  double rel_error = 0;  // mean of |out - exact| / |exact|
  double mass_mean = 0;  // exact weight of the tokens whose V was attended
  double mass_min = 1;
  double bytes_flash = 0;     // read from the arrays: whole pages
  double bytes_filtered = 0;  // of them, entries that were wanted
  double bytes_fast = 0;      // K and V that the method keeps in fast memory, read there
  double bytes_summary = 0;   // rows of summaries
  double bytes_link = 0;
  double pages = 0;
  double bytes_resident = 0;  // fast memory that the method needs: summaries, windows, caches
  double drive_us = 0;  // modelled: the paper's channels, with an engine that keeps up with them
  double cpu_us = 0;    // measured: one thread, median
};

// The tokens whose V one head attends to exactly, and the elements that it reads from a resident
// copy.
struct attended {
  index_set tokens;
  std::uint64_t resident_elements = 0;

  void chose(attention::operation, index_view) {}
  void accessed(attention::operation op, const access_plan& plan) {
    std::vector<std::uint32_t> folded;
    for (const page_read& read : plan.reads()) {
      resident_elements += read.from == residence::fast ? read.wanted_elements() : 0;
      if (op != attention::operation::score_dims && read.kind == stream::v_by_token &&
          read.dim_tile == 0) {
        plan.tokens(read).for_each(
            [&](std::uint32_t t) { folded.push_back(read.token_tile * tile_tokens + t); });
      }
    }
    index_set both;
    index_set now;
    for (const std::uint32_t t : folded) {
      now.add(t);
    }
    add_union(tokens, now, both);
    tokens = std::move(both);
  }

  std::uint32_t tile_tokens = 1;
};

// Several programs of one head may run (methods/per_query_head.hpp); what they attend to is united.
struct watch_attended {
  std::vector<attended> heads;
  watch_attended(std::size_t kv_heads, std::uint32_t tile_tokens)
      : heads(kv_heads, attended{.tokens = {}, .tile_tokens = tile_tokens}) {}
  attended& head(std::uint32_t h) { return heads[h]; }
};

// Whether an attend leaves something behind that changes the next one.
template <class Policy>
inline constexpr bool feeds_back = false;
template <>
inline constexpr bool feeds_back<attention::h2o> = true;
template <>
inline constexpr bool feeds_back<attention::hgca> = true;
template <>
inline constexpr bool feeds_back<attention::retro_infer> = true;

// The paper's channels and flash; accelerator so fast that these alone decide. Smaller pages are
// transferred in a shorter time and read in the same.
constexpr flash::drive_spec channels_only(std::int32_t page_bytes = 4096) {
  flash::drive_spec drive = flash::instcsd;
  drive.timing.page_transfer_ps =
      drive.timing.page_transfer_ps * page_bytes / drive.geometry.page_bytes;
  drive.geometry.page_bytes = drive.geometry.codeword_bytes = page_bytes;
  drive.units.filter_bytes_per_s *= 64;
  drive.units.gemv_flops_per_s *= 4096;
  drive.units.softmax_flops_per_s *= 4096;
  drive.units.top_k_elements_per_s *= 4096;
  return drive;
}

// The position at which the token that now lies at `token` was appended.
template <class Cache>
std::uint32_t position_of(const Cache& layer, std::uint32_t head, std::uint32_t token) {
  return std::apply(
      [&](const auto&... states) {
        std::uint32_t position = token;
        [[maybe_unused]] const auto look = [&](const auto& s) {
          if constexpr (requires { s.position(token); }) {
            position = s.position(token);
          }
        };
        (look(states), ...);
        return position;
      },
      layer.summaries(head));
}

template <class Policy, class Layout, int HeadDim>
class bench {
 public:
  using format = kv_format<fp16, HeadDim>;
  using design_type =
      design<Policy, Layout, channels_only(Layout::page_bytes), transfer::in_storage>;
  using engine = flash::engine<design_type, format, cpu::path>;

  bench(const decode_case& c, const exact_answers& exact) : case_{c}, exact_{exact} {}

  // `prepare(engine, sequence)` runs once the prompt is there: builds, calibration.
  template <class Prepare>
  measurement operator()(const std::string& method, double budget, const Policy& policy,
                         Prepare&& prepare) const {
    engine timed = make(policy);
    engine watched = make(policy);  // only used where an attend leaves something behind
    measurement sum{.method = method, .workload = case_.name, .budget = budget};
    const sequence seq = timed.open();
    const sequence other = watched.open();
    append(timed, seq, 0, case_.prompt());
    prepare(timed, seq);
    if constexpr (feeds_back<Policy>) {
      append(watched, other, 0, case_.prompt());
      prepare(watched, other);
    }
    typename engine::inner_type::scratch scratch;
    std::vector<double> cpu_us;
    std::vector<float> out(case_.q_heads * case_.head_dim);
    for (std::size_t i = 0; i < case_.queries; ++i) {
      if (case_.consecutive) {
        append(timed, seq, case_.prompt() + i, case_.prompt() + i + 1);
        if constexpr (feeds_back<Policy>) {
          append(watched, other, case_.prompt() + i, case_.prompt() + i + 1);
        }
      }
      if (i < case_.first_measured() && !feeds_back<Policy>) {
        continue;
      }
      for (std::size_t l = 0; l < case_.layers.size(); ++l) {
        const auto layer = static_cast<int>(l);
        auto& compute = feeds_back<Policy> ? watched.inner() : timed.inner();
        const sequence mine = feeds_back<Policy> ? other : seq;
        const auto q = case_.query(l, i);
        if constexpr (!feeds_back<Policy>) {
          cpu_us.push_back(microseconds(
              [&] { compute.attend(mine, layer, q, out, scratch, parallel::serial{}); }));
        }
        watch_attended watch(case_.kv_heads, compute.cache().tiles().v_by_token.tokens);
        const double us = microseconds(
            [&] { compute.attend(mine, layer, q, out, scratch, parallel::serial{}, watch); });
        const auto time = timed.attend(seq, layer, q, out);
        if (i >= case_.first_measured()) {
          if constexpr (feeds_back<Policy>) {
            cpu_us.push_back(us);
          }
          add(sum, compute.cache().at(mine, layer), watch, time, out,
              exact_[l][i - case_.first_measured()]);
        }
      }
    }
    const auto n = static_cast<double>(case_.measured * case_.layers.size());
    for (double* mean :
         {&sum.rel_error, &sum.mass_mean, &sum.bytes_flash, &sum.bytes_filtered, &sum.bytes_fast,
          &sum.bytes_summary, &sum.bytes_link, &sum.pages, &sum.bytes_resident, &sum.drive_us}) {
      *mean /= n;
    }
    std::ranges::nth_element(cpu_us, cpu_us.begin() + std::ssize(cpu_us) / 2);
    sum.cpu_us = cpu_us[cpu_us.size() / 2];
    return sum;
  }
  measurement operator()(const std::string& method, double budget, const Policy& policy) const {
    return (*this)(method, budget, policy, [](engine&, sequence) {});
  }

 private:
  engine make(const Policy& policy) const {
    return engine({.layers = static_cast<int>(case_.layers.size()),
                   .q_heads = static_cast<int>(case_.q_heads),
                   .kv_heads = static_cast<int>(case_.kv_heads)},
                  {.bytes = 6 * case_.layers.size() * case_.tokens * case_.kv_heads *
                                case_.head_dim * sizeof(fp16) +
                            (std::uint64_t{16} << 20),
                   .context_tokens = static_cast<std::uint32_t>(case_.tokens)},
                  policy);
  }

  void append(engine& to, sequence seq, std::size_t first, std::size_t last) const {
    const std::size_t row = case_.kv_heads * case_.head_dim;
    for (std::size_t l = 0; l < case_.layers.size() && first < last; ++l) {
      to.append(seq, static_cast<int>(l),
                std::span(case_.layers[l].k).subspan(first * row, (last - first) * row),
                std::span(case_.layers[l].v).subspan(first * row, (last - first) * row));
    }
  }

  template <class F>
  static double microseconds(F&& f) {
    const auto begin = std::chrono::steady_clock::now();
    f();
    return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begin)
        .count();
  }

  template <class Layer, class Receipt>
  void add(measurement& sum, const Layer& layer, const watch_attended& watch, const Receipt& time,
           const std::vector<float>& out, const std::vector<exact_answer>& exact) const {
    double difference = 0;
    double norm = 0;
    for (std::size_t h = 0; h < case_.q_heads; ++h) {
      const auto kv_head = static_cast<std::uint32_t>(h * case_.kv_heads / case_.q_heads);
      double mass = 0;
      watch.heads[kv_head].tokens.view().for_each(
          [&](std::uint32_t t) { mass += exact[h].weights[position_of(layer, kv_head, t)]; });
      sum.mass_mean += mass / static_cast<double>(case_.q_heads);
      sum.mass_min = std::min(sum.mass_min, mass);
      for (std::size_t i = 0; i < case_.head_dim; ++i) {
        const double e = exact[h].output[static_cast<Eigen::Index>(i)];
        const double mine = static_cast<double>(out[h * case_.head_dim + i]);
        difference += (mine - e) * (mine - e);
        norm += e * e;
      }
    }
    sum.rel_error += std::sqrt(difference / norm);
    sum.bytes_flash += static_cast<double>(time.traffic.array_bytes);
    sum.bytes_filtered += static_cast<double>(time.traffic.filtered_bytes);
    sum.bytes_fast += static_cast<double>(time.traffic.fast_bytes);
    sum.bytes_summary += static_cast<double>(time.traffic.summary_bytes);
    sum.bytes_link += static_cast<double>(time.traffic.link_bytes);
    sum.pages += static_cast<double>(time.traffic.pages_read);
    sum.bytes_resident += static_cast<double>(layer.summary_bytes());
    for (const attended& head : watch.heads) {
      sum.bytes_resident += static_cast<double>(head.resident_elements * sizeof(fp16));
    }
    sum.drive_us += time.total_ns() * 1e-3;
  }

  const decode_case& case_;
  const exact_answers& exact_;
};

}  // namespace instinfer::methods
