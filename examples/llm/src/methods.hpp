#pragma once
// The methods by name: the layout of each, its setting at a budget, and the settings that a caller
// may change by name.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <string_view>
#include <tuple>

#include "grouped_sparf.hpp"
#include "instinfer/layout/dual.hpp"
#include "instinfer/methods.hpp"

namespace instinfer::llm {

// What a setting depends on besides the budget.
struct method_context {
  double share;          // of K and V that the method attends to exactly
  std::uint32_t tokens;  // expected length of a sequence
  double rope_base;      // of the model; 0: none

  std::uint32_t tokens_of(double part) const {
    return std::max(1u, static_cast<std::uint32_t>(std::ceil(part * share * tokens)));
  }
};

template <class M, class T>
struct setting {
  const char* name;
  T M::* member;
};
template <class M, class T>
setting(const char*, T M::*) -> setting<M, T>;

// name, layout, at(context), and the settings, of a policy.
template <class M>
struct method;

template <>
struct method<attention::dense> {
  static constexpr const char* name = "dense";
  using layout = instinfer::layout::token_indexed<>;
  static attention::dense at(const method_context&) { return {}; }
  static constexpr std::tuple<> settings{};
};

template <>
struct method<attention::top_values> {
  using M = attention::top_values;
  static constexpr const char* name = "top_values";
  using layout = instinfer::layout::token_indexed<>;
  static M at(const method_context& c) { return {.keep_values = c.share}; }
  static constexpr std::tuple settings{setting{"keep_values", &M::keep_values}};
};

template <>
struct method<attention::streaming_llm> {
  using M = attention::streaming_llm;
  static constexpr const char* name = "streaming_llm";
  using layout = instinfer::layout::token_indexed<>;
  static M at(const method_context& c) {
    return {.window = budget::at_most(std::max(5u, c.tokens_of(1)) - 4),
            .rotation = {.base = c.rope_base}};
  }
  static constexpr std::tuple settings{setting{"sinks", &M::sinks}, setting{"window", &M::window}};
};

template <>
struct method<attention::h2o> {
  using M = attention::h2o;
  static constexpr const char* name = "h2o";
  using layout = instinfer::layout::token_indexed<>;
  static M at(const method_context& c) {
    return {.heavy = c.tokens_of(0.5), .recent = c.tokens_of(0.5)};
  }
  static constexpr std::tuple settings{setting{"heavy", &M::heavy}, setting{"recent", &M::recent}};
};

template <>
struct method<attention::hgca> {
  using M = attention::hgca;
  static constexpr const char* name = "hgca";
  using layout = instinfer::layout::token_indexed<>;
  static M at(const method_context& c) { return {.window = c.tokens_of(0.75)}; }
  static constexpr std::tuple settings{setting{"window", &M::window}, setting{"block", &M::block},
                                       setting{"judge_every", &M::judge_every}};
};

template <class M>
struct by_dims {
  using layout = instinfer::layout::dual<>;
  static M at(const method_context& c) { return M(M::at_compression(1 / c.share)); }
};
template <>
struct method<attention::sparq> : by_dims<attention::sparq> {
  using M = attention::sparq;
  static constexpr const char* name = "sparq";
  static constexpr std::tuple settings{
      setting{"keep_dims", &M::keep_dims}, setting{"keep_tokens", &M::keep_tokens},
      setting{"local", &M::local}, setting{"blend", &M::blend}};
};
template <>
struct method<attention::sparf> : by_dims<attention::sparf> {
  using M = attention::sparf;
  static constexpr const char* name = "sparf";
  static constexpr std::tuple settings{setting{"keep_dims", &M::keep_dims},
                                       setting{"keep_tokens", &M::keep_tokens},
                                       setting{"local", &M::local}};
};
template <>
struct method<attention::per_query_head<attention::sparf>> {
  using M = attention::per_query_head<attention::sparf>;
  static constexpr const char* name = "sparf_per_head";
  using layout = instinfer::layout::dual<>;
  static M at(const method_context& c) {
    return {attention::sparf::at_compression(1 / c.share)};
  }
  static constexpr std::tuple settings = method<attention::sparf>::settings;
};
template <>
struct method<grouped_sparf> : by_dims<grouped_sparf> {
  using M = grouped_sparf;
  static constexpr const char* name = "sparf_grouped";
  static constexpr std::tuple settings{
      setting{"keep_dims", &M::keep_dims},   setting{"keep_tokens", &M::keep_tokens},
      setting{"local", &M::local},           setting{"blend", &M::blend},
      setting{"by_logits", &M::by_logits},   setting{"by_maximum", &M::by_maximum}};
};

template <>
struct method<attention::quest> {
  using M = attention::quest;
  static constexpr const char* name = "quest";
  using layout = instinfer::layout::token_indexed<>;
  static M at(const method_context& c) { return {.keep_pages = c.share}; }
  static constexpr std::tuple settings{setting{"keep_pages", &M::keep_pages},
                                       setting{"least_pages", &M::least_pages},
                                       setting{"dense_layers", &M::dense_layers}};
};

template <>
struct method<attention::squeezed> {
  using M = attention::squeezed;
  static constexpr const char* name = "squeezed";
  using layout = instinfer::layout::token_indexed<>;
  static M at(const method_context&) { return {}; }  // its threshold comes from the prompt
  static constexpr std::tuple settings{
      setting{"threshold", &M::threshold}, setting{"clusters", &M::clusters},
      setting{"coarse_clusters", &M::coarse_clusters}, setting{"window", &M::window}};
};

template <>
struct method<attention::retro_infer> {
  using M = attention::retro_infer;
  static constexpr const char* name = "retro_infer";
  using layout = instinfer::layout::token_indexed<>;
  static M at(const method_context& c) {
    return {.retrieved = c.share, .estimated = std::min(0.232, 1 - c.share)};
  }
  static constexpr std::tuple settings{
      setting{"retrieved", &M::retrieved}, setting{"estimated", &M::estimated},
      setting{"window", &M::window},       setting{"cached", &M::cached},
      setting{"sinks", &M::sinks},         setting{"cluster_tokens", &M::cluster_tokens}};
};

template <int Dims>
struct method<attention::basic_dsa<Dims>> {
  using M = attention::basic_dsa<Dims>;
  static constexpr const char* name = "dsa";
  using layout = instinfer::layout::token_indexed<>;
  static M at(const method_context& c) { return {.keep_tokens = c.share}; }
  static constexpr std::tuple settings{setting{"keep_tokens", &M::keep_tokens}};
};
template <int Dims>
struct method<attention::basic_misa<Dims>> {
  using M = attention::basic_misa<Dims>;
  static constexpr const char* name = "misa";
  using layout = instinfer::layout::token_indexed<>;
  static M at(const method_context& c) { return {.keep_tokens = c.share, .active_heads = 0.5}; }
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
using methods_of =
    method_list<attention::dense, attention::top_values, attention::streaming_llm, attention::h2o,
                attention::hgca, attention::sparq, attention::sparf,
                attention::per_query_head<attention::sparf>, grouped_sparf, attention::quest,
                attention::squeezed, attention::retro_infer, attention::basic_dsa<HeadDim>,
                attention::basic_misa<HeadDim>>;

// Sets a field to a number: a budget to a share up to 1, and to a count above; a switch to 0 or 1.
template <class T>
void set_field(T& field, const std::string& name, double value) {
  if constexpr (std::is_same_v<T, budget>) {
    field = value <= 1 ? budget(value) : budget::at_most(std::llround(value));
  } else if constexpr (std::is_same_v<T, bool>) {
    field = value != 0;
  } else if constexpr (std::is_integral_v<T>) {
    require(value >= 0 && value <= 1e9 && value == std::floor(value), [&] {
      return "settings: " + name + " is a count, got " + std::to_string(value);
    });
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
                return "settings: '" + item + "' of " + method<M>::name +
                       " must be name=number";
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
