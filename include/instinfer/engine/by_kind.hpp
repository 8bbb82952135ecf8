#pragma once
// Values of several types, one for each kind of layer, that are chosen at run time.

#include <cstddef>
#include <tuple>
#include <type_traits>
#include <utility>

namespace instinfer {

// A kind is a std::integral_constant where a function gets it, so that it can index other tuples.
template <class... T>
class by_kind {
 public:
  static constexpr std::size_t kinds = sizeof...(T);

  explicit by_kind(std::tuple<T...>&& all) : all_{std::move(all)} {}

  // f(kind...)
  template <class F>
  static decltype(auto) with_kinds(F&& f) {
    return [&]<std::size_t... Kind>(std::index_sequence<Kind...>) -> decltype(auto) {
      return f(std::integral_constant<std::size_t, Kind>{}...);
    }(std::make_index_sequence<kinds>{});
  }

  // f(value, kind) for every kind.
  template <class F>
  void for_each(F&& f) {
    with_kinds([&](auto... kind) { (f(std::get<kind>(all_), kind), ...); });
  }
  template <class F>
  void for_each(F&& f) const {
    with_kinds([&](auto... kind) { (f(std::get<kind>(all_), kind), ...); });
  }

  // f(value, kind) for one kind, which must be below `kinds`. All kinds give one type.
  template <class F>
  decltype(auto) at(std::size_t kind, F&& f) {
    return dispatch<0>(all_, kind, f);
  }
  template <class F>
  decltype(auto) at(std::size_t kind, F&& f) const {
    return dispatch<0>(all_, kind, f);
  }

 private:
  template <std::size_t Kind, class All, class F>
  static decltype(auto) dispatch(All& all, std::size_t kind, F& f) {
    if constexpr (Kind + 1 < kinds) {
      if (kind != Kind) {
        return dispatch<Kind + 1>(all, kind, f);
      }
    }
    return f(std::get<Kind>(all), std::integral_constant<std::size_t, Kind>{});
  }

  std::tuple<T...> all_;
};

}  // namespace instinfer
