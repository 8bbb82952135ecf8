#pragma once
// Every method at every budget on one case.

#include <cmath>
#include <memory>

#include "instinfer/layout/dual.hpp"
#include "instinfer/methods/threshold_calibration.hpp"
#include "methods/measure.hpp"

namespace instinfer::methods {

constexpr double budgets[] = {1.0 / 2, 1.0 / 4, 1.0 / 8, 1.0 / 16, 1.0 / 32};

// A budget b is the share of K and V that a method attends to exactly, or the closest that its
// settings allow.
template <int HeadDim, class Rows = layout::token_indexed<>, class Dual = layout::dual<>>
class comparison {
 public:
  comparison(const decode_case& c, std::vector<measurement>& results)
      : case_{c}, exact_{solve(c)}, results_{results} {}

  void run(std::span<const double> at_budgets = budgets) const {
    using namespace attention;
    const double n = static_cast<double>(case_.tokens);
    const auto share = [&](double b) { return static_cast<std::uint32_t>(std::ceil(b * n)); };
    at("dense", 1.0, dense{});
    for (const double b : at_budgets) {
      at("streaming_llm", b, streaming_llm{.window = budget::at_most(share(b) - 4)});
      at("h2o", b, h2o{.heavy = share(b / 2), .recent = share(b / 2)});
      at("hgca", b, hgca{.window = share(3 * b / 4)});
      at("top_values", b, top_values{.keep_values = b});
      at<Dual>("sparq", b, sparq::at_compression(1 / b));
      at<Dual>("sparf", b, sparf::at_compression(1 / b));
      at("quest", b, quest{.keep_pages = b, .dense_layers = 0});
      at("squeezed", b, calibrated(b));
      at("retro_infer", b, retro_infer{.retrieved = b, .estimated = std::min(0.232, 1 - b)});
      at("dsa", b, basic_dsa<HeadDim>{.keep_tokens = b});
      at("misa", b, basic_misa<HeadDim>{.keep_tokens = b, .active_heads = 0.5});
    }
  }

  // SparF's settings for the heads of a group, all at one share of wanted bytes.
  void run_sparf() const {
    using attention::group_reduction;
    for (const double b : {1.0 / 4, 1.0 / 8, 1.0 / 16}) {
      const auto with = [&](const char* name, auto&& change) {
        attention::sparf s = attention::sparf::as_published(1 / b);
        change(s);
        at<Dual>(name, b, s);
      };
      with("as published", [](auto&) {});
      with("max of |q|", [](auto& s) { s.dims_over = group_reduction::max; });
      with("max of p", [](auto& s) { s.tokens_over = group_reduction::max; });
      with("sum of logits", [](auto& s) { s.rank_logits = true; });
      with("no blend", [](auto& s) { s.blend = false; });
      with("local 1/4", [](auto& s) { s.local = 0.25; });
      with("local 1/2", [](auto& s) { s.local = 0.5; });
      with("local, no bl.", [](auto& s) { s.local = 0.25, s.blend = false; });
      with("half the dims", [&](auto& s) { s.keep_dims = b / 2, s.keep_tokens = 0.75 * b; });
      with("both", [&](auto& s) { s.keep_dims = b / 2, s.keep_tokens = 0.75 * b, s.local = 0.25; });
    }
  }

 private:
  template <class Layout = Rows, class Policy>
  void at(const char* method, double b, const Policy& policy) const {
    const bench<Policy, Layout, HeadDim> bench(case_, exact_);
    const auto build = [&](auto& engine, sequence seq) {
      if constexpr (requires { engine.build(seq, 0); }) {
        for (std::size_t l = 0; l < case_.layers.size(); ++l) {
          engine.build(seq, static_cast<int>(l));
        }
      }
    };
    results_.push_back(bench(method, b, policy, build));
  }

  // A threshold that leaves out 1 - b of the clustered tokens, from the queries before the measured
  // ones.
  attention::squeezed calibrated(double b) const {
    using attention::squeezed;
    using format = kv_format<fp16, HeadDim>;
    squeezed policy;
    if (!index_) {
      index_ = std::make_unique<index_engine>(
          model_shape{.layers = static_cast<int>(case_.layers.size()),
                      .q_heads = static_cast<int>(case_.q_heads),
                      .kv_heads = static_cast<int>(case_.kv_heads)},
          store::capacity{.bytes = std::uint64_t{256} << 20}, policy);
      const sequence seq = index_->open();
      const std::size_t values = case_.prompt() * case_.kv_heads * case_.head_dim;
      for (std::size_t l = 0; l < case_.layers.size(); ++l) {
        const auto layer = static_cast<int>(l);
        index_->append(seq, layer, std::span(case_.layers[l].k).first(values),
                       std::span(case_.layers[l].v).first(values));
        index_->build(seq, layer);
        for (std::size_t h = 0; h < case_.q_heads; ++h) {
          const auto& states =
              index_->cache()
                  .at(seq, layer)
                  .summaries(static_cast<std::uint32_t>(h * case_.kv_heads / case_.q_heads));
          for (std::size_t i = 0; i < case_.first_measured(); ++i) {
            calibration_.add(std::get<attention::cluster_index::state<format>>(states),
                             case_.query(l, i).subspan(h * case_.head_dim, case_.head_dim));
          }
        }
      }
    }
    policy.threshold = calibration_.threshold(1 - b);
    return policy;
  }

  using index_engine = cpu::engine<
      design<attention::squeezed, layout::token_indexed<>, flash::instcsd, transfer::in_storage>,
      kv_format<fp16, HeadDim>>;
  const decode_case& case_;
  exact_answers exact_;
  std::vector<measurement>& results_;
  mutable std::unique_ptr<index_engine> index_;
  mutable attention::threshold_calibration calibration_;
};

// One head size a unit: these are many engines (bench/methods/head_64.cpp, head_128.cpp).
void compare_head_64(const decode_case& c, std::vector<measurement>& results);
void compare_head_128(const decode_case& c, std::vector<measurement>& results);
// SparF's settings, on heads of 64.
void compare_sparf(const decode_case& c, std::vector<measurement>& results);

}  // namespace instinfer::methods
