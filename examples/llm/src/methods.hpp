#pragma once
// The methods by name: the layout of each, and the settings that a caller may change by name over
// what methods::at_budget gives.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <tuple>

#include "instinfer/layout/dual.hpp"
#include "instinfer/methods.hpp"
#include "instinfer/methods/at_budget.hpp"

namespace instinfer::llm {

template <class M, class T>
struct setting {
  const char* name;
  T M::* member;
};
template <class M, class T>
setting(const char*, T M::*) -> setting<M, T>;

using by_token = layout::token_indexed<>;
using by_token_and_dim = layout::dual<>;

// A policy's name, layout, and settings.
template <class M>
struct method;

template <>
struct method<attention::dense> {
  static constexpr const char* name = "dense";
  using layout = by_token;
  static constexpr std::tuple<> settings{};
};
template <>
struct method<attention::top_values> {
  using M = attention::top_values;
  static constexpr const char* name = "top_values";
  using layout = by_token;
  static constexpr std::tuple settings{setting{"keep_values", &M::keep_values}};
};
template <>
struct method<attention::streaming_llm> {
  using M = attention::streaming_llm;
  static constexpr const char* name = "streaming_llm";
  using layout = by_token;
  static constexpr std::tuple settings{setting{"sinks", &M::sinks}, setting{"window", &M::window}};
};
template <>
struct method<attention::h2o> {
  using M = attention::h2o;
  static constexpr const char* name = "h2o";
  using layout = by_token;
  static constexpr std::tuple settings{setting{"heavy", &M::heavy}, setting{"recent", &M::recent}};
};
template <>
struct method<attention::hgca> {
  using M = attention::hgca;
  static constexpr const char* name = "hgca";
  using layout = by_token;
  static constexpr std::tuple settings{setting{"window", &M::window}, setting{"block", &M::block},
                                       setting{"judge_every", &M::judge_every}};
};
template <>
struct method<attention::sparq> {
  using M = attention::sparq;
  static constexpr const char* name = "sparq";
  using layout = by_token_and_dim;
  static constexpr std::tuple settings{setting{"keep_dims", &M::keep_dims},
                                       setting{"keep_tokens", &M::keep_tokens},
                                       setting{"local", &M::local}, setting{"blend", &M::blend}};
};
template <>
struct method<attention::sparf> {
  using M = attention::sparf;
  static constexpr const char* name = "sparf";
  using layout = by_token_and_dim;
  static constexpr std::tuple settings{setting{"keep_dims", &M::keep_dims},
                                       setting{"keep_tokens", &M::keep_tokens},
                                       setting{"local", &M::local},
                                       setting{"dims_over", &M::dims_over},
                                       setting{"tokens_over", &M::tokens_over},
                                       setting{"rank_logits", &M::rank_logits},
                                       setting{"blend", &M::blend},
                                       setting{"dense_layers", &M::dense_layers}};
};
template <>
struct method<attention::per_query_head<attention::sparf>> {
  static constexpr const char* name = "sparf_per_head";
  using layout = by_token_and_dim;
  static constexpr std::tuple settings = method<attention::sparf>::settings;
};
template <>
struct method<attention::quest> {
  using M = attention::quest;
  static constexpr const char* name = "quest";
  using layout = by_token;
  static constexpr std::tuple settings{setting{"keep_pages", &M::keep_pages},
                                       setting{"least_pages", &M::least_pages},
                                       setting{"dense_layers", &M::dense_layers}};
};
template <>
struct method<attention::squeezed> {
  using M = attention::squeezed;
  static constexpr const char* name = "squeezed";
  using layout = by_token;
  static constexpr std::tuple settings{
      setting{"threshold", &M::threshold}, setting{"clusters", &M::clusters},
      setting{"coarse_clusters", &M::coarse_clusters}, setting{"window", &M::window}};
};
template <>
struct method<attention::retro_infer> {
  using M = attention::retro_infer;
  static constexpr const char* name = "retro_infer";
  using layout = by_token;
  static constexpr std::tuple settings{setting{"retrieved", &M::retrieved},
                                       setting{"estimated", &M::estimated},
                                       setting{"window", &M::window},
                                       setting{"cached", &M::cached},
                                       setting{"sinks", &M::sinks},
                                       setting{"cluster_tokens", &M::cluster_tokens},
                                       setting{"update_tokens", &M::update_tokens}};
};
template <int Dims>
struct method<attention::basic_dsa<Dims>> {
  using M = attention::basic_dsa<Dims>;
  static constexpr const char* name = "dsa";
  using layout = by_token;
  static constexpr std::tuple settings{setting{"keep_tokens", &M::keep_tokens}};
};
template <int Dims>
struct method<attention::basic_misa<Dims>> {
  using M = attention::basic_misa<Dims>;
  static constexpr const char* name = "misa";
  using layout = by_token;
  static constexpr std::tuple settings{setting{"keep_tokens", &M::keep_tokens},
                                       setting{"active_heads", &M::active_heads}};
};

template <class... M>
struct method_list {
  static std::string names() {
    std::string all;
    ((all += (all.empty() ? "" : " ") + std::string(method<M>::name)), ...);
    return all;
  }
};
template <int HeadDim>
using methods_of = method_list<attention::dense, attention::top_values, attention::streaming_llm,
                               attention::h2o, attention::hgca, attention::sparq, attention::sparf,
                               attention::per_query_head<attention::sparf>, attention::quest,
                               attention::squeezed, attention::retro_infer,
                               attention::basic_dsa<HeadDim>, attention::basic_misa<HeadDim>>;

// Sets a field to a number: a budget to a share up to 1, and to a count above; a switch to 0 or 1;
// a reduction over the heads of a group to 0 (sum) or 1 (maximum).
template <class T>
void set_field(T& field, const std::string& name, double value) {
  if constexpr (std::is_same_v<T, budget>) {
    field = value <= 1 ? budget(value) : budget::at_most(std::llround(value));
  } else if constexpr (std::is_same_v<T, bool> || std::is_same_v<T, attention::group_reduction>) {
    require(value == 0 || value == 1,
            [&] { return "settings: " + name + " is 0 or 1, got " + std::to_string(value); });
    field = static_cast<T>(static_cast<int>(value));
  } else if constexpr (std::is_integral_v<T>) {
    require(value >= 0 && value <= 1e9 && value == std::floor(value),
            [&] { return "settings: " + name + " is a count, got " + std::to_string(value); });
    field = static_cast<T>(value);
  } else {
    field = value;
  }
}

// Applies "name=value,name=value". Throws bad_argument for unknown names and for what is no number.
template <class M>
void apply_settings(M& policy, const std::string& text) {
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find(',', at), text.size());
    const std::string item = text.substr(at, end - at);
    at = end + 1;
    const std::size_t equals = std::min(item.find('='), item.size());
    const std::string name = item.substr(0, equals);
    const std::string number = equals < item.size() ? item.substr(equals + 1) : "";
    std::string known;
    bool found = false;
    std::apply(
        [&](const auto&... s) {
          [[maybe_unused]] const auto one = [&](const auto& of) {
            known += (known.empty() ? "" : ", ") + std::string(of.name);
            if (name == of.name) {
              std::size_t used = 0;
              double value = 0;
              try {
                value = std::stod(number, &used);
              } catch (const std::exception&) {
                used = 0;
              }
              require(used > 0 && used == number.size(), [&] {
                return "settings: '" + item + "' of " + method<M>::name + " must be name=number";
              });
              set_field(policy.*of.member, name, value);
              found = true;
            }
          };
          (one(s), ...);
        },
        method<M>::settings);
    require(found, [&] {
      return "settings: " + std::string(method<M>::name) + " has no setting '" + name +
             "'; it has: " + (known.empty() ? "none" : known);
    });
  }
}

}  // namespace instinfer::llm
