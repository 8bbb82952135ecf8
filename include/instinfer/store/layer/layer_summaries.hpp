#pragma once
// The summaries of one layer's heads.

#include <algorithm>
#include <cstdint>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "instinfer/summaries/concepts.hpp"

namespace instinfer::store {

// States is a std::tuple with one state per summary of the policy. They are mutable: attention
// writes observed weights and block cache contents to them, and this does not change the cache.
template <class States>
class layer_summaries {
  struct unchanged {};
  template <class... S>
  static std::tuple<std::conditional_t<attention::only_built<S>, unchanged, S>...> changing(
      std::type_identity<std::tuple<S...>>);

 public:
  // What queries change of the states of a head; nothing, unless a state learns.
  using learned =
      std::conditional_t<attention::learns<States>,
                         decltype(changing(std::type_identity<States>{})), std::tuple<>>;

  explicit layer_summaries(std::uint32_t kv_heads) : heads_(kv_heads) {}

  States& of(std::uint32_t h) const { return heads_[h]; }

  template <class F>
  static void for_each(States& states, F&& f) {
    std::apply([&](auto&... state) { (f(state), ...); }, states);
  }
  template <class F>
  void for_each(F&& f) const {
    for (States& states : heads_) {
      for_each(states, f);
    }
  }

  // A copy of what queries change, which put_back() needs to undo them.
  std::vector<learned> copy_learned() const {
    std::vector<learned> copies(std::tuple_size_v<learned> > 0 ? heads_.size() : 0);
    for (std::size_t h = 0; h < copies.size(); ++h) {
      each_learned([&]<std::size_t I>() { std::get<I>(copies[h]) = std::get<I>(heads_[h]); });
    }
    return copies;
  }
  // `renumbered`: what was token n of the copies is token 0 now.
  void put_back(std::vector<learned>& copies, std::uint32_t renumbered = 0) const noexcept {
    for (std::size_t h = 0; h < copies.size(); ++h) {
      each_learned([&]<std::size_t I>() {
        if (renumbered > 0) {
          attention::rebase(std::get<I>(copies[h]), renumbered);
        }
        std::swap(std::get<I>(copies[h]), std::get<I>(heads_[h]));
      });
    }
  }

  // Allocates the memory that `count` appends need.
  void reserve(std::uint32_t count) {
    for_each([&](auto& state) { attention::reserve_summary(state, count); });
  }

  // The same three for tokens without values.
  void reserve_count(std::uint32_t count) {
    for_each([&](auto& state) { attention::reserve_count(state, count); });
  }
  void append_count(std::uint32_t count) noexcept {
    for_each([&](auto& state) { attention::append_count(state, count); });
  }
  void forget_count(std::uint32_t count) noexcept {
    for_each([&](auto& state) { attention::forget_count(state, count); });
  }

  // Whether no summary needs the tokens before `new_first`.
  bool may_forget(std::uint32_t new_first) const {
    bool may = true;
    for_each([&](const auto& state) {
      if constexpr (requires { state.may_forget(new_first); }) {
        may = may && state.may_forget(new_first);
      }
    });
    return may;
  }

  // Whether every summary can go back to the first `tokens` tokens.
  bool may_truncate(std::uint32_t tokens) const {
    bool may = true;
    for_each([&](const auto& state) { may = may && attention::may_truncate(state, tokens); });
    return may;
  }
  // The oldest token whose rows any summary needs for that.
  std::uint32_t whole_before(std::uint32_t tokens) const {
    std::uint32_t first = tokens;
    for_each([&](const auto& state) {
      first = std::min(first, attention::whole_before(state, tokens));
    });
    return first;
  }

  // Whether f(states) holds for any head.
  template <class F>
  bool any_head(F&& f) const {
    return std::ranges::any_of(heads_, f);
  }

  // Fast memory of all summaries.
  std::uint64_t bytes() const {
    std::uint64_t bytes = 0;
    for_each([&](const auto& state) { bytes += attention::summary_bytes(state); });
    return bytes;
  }

  // Whether states from a file can be those of live tokens [first, tokens).
  bool fit(std::uint32_t first, std::uint32_t tokens) const {
    return std::ranges::all_of(heads_, [&](const States& all) {
      return std::apply(
          [&](const auto&... state) { return (state.fits(first, tokens, all) && ...); }, all);
    });
  }

 private:
  // f<I>() for every part I of `learned` that is a state.
  template <class F>
  static void each_learned(F&& f) {
    [&]<std::size_t... I>(std::index_sequence<I...>) {
      [[maybe_unused]] const auto one = [&]<std::size_t J>() {
        if constexpr (!std::is_same_v<std::tuple_element_t<J, learned>, unchanged>) {
          f.template operator()<J>();
        }
      };
      (one.template operator()<I>(), ...);
    }(std::make_index_sequence<std::tuple_size_v<learned>>{});
  }

  mutable std::vector<States> heads_;  // [kv_heads]
};

}  // namespace instinfer::store
