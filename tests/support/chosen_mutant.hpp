#pragma once
// What ./dev mutate writes into a copy of the headers, so that one program holds many mutants and
// each run chooses one: INSTINFER_MUTANT is its number. With INSTINFER_MUTANTS_REACHED, a run
// writes the numbers of those that it came past to that file.

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <type_traits>

namespace mutant {

inline int number_of_the_run() {
  const char* number = std::getenv("INSTINFER_MUTANT");
  return number != nullptr ? std::atoi(number) : -1;
}

inline const int chosen = number_of_the_run();

struct reached_mutants {
  bool by_number[4096] = {};

  ~reached_mutants() {
    const char* name = std::getenv("INSTINFER_MUTANTS_REACHED");
    std::FILE* file = name != nullptr ? std::fopen(name, "w") : nullptr;
    for (int k = 0; file != nullptr && k < 4096; ++k) {
      if (by_number[k]) {
        std::fprintf(file, "%d\n", k);
      }
    }
    if (file != nullptr) {
      std::fclose(file);
    }
  }
};
inline reached_mutants reached;

// Constants of the compiler are as they were: such a mutant is reached by no run.
constexpr bool is(int number) {
  if (std::is_constant_evaluated()) {
    return false;
  }
  reached.by_number[number] = true;
  return number == chosen;
}

enum class op {
  less,
  less_equal,
  greater,
  greater_equal,
  equal,
  unequal,
  plus,
  minus,
  times,
  over,
  modulo
};

template <op Op>
struct apply;

// `a < b` is written `a < swapped<...>{} < b`: the precedence and the order stay.
template <int Number, op To>
struct swapped {};
template <int Number, op To, class A>
struct swapped_left {
  A&& a;
};

#define MUTANT_OPERATOR(Name, Token)                                                     \
  template <>                                                                            \
  struct apply<op::Name> {                                                               \
    template <class A, class B>                                                          \
      requires requires(A&& a, B&& b) { static_cast<A&&>(a) Token static_cast<B&&>(b); } \
    static constexpr auto of(A&& a, B&& b) {                                             \
      return static_cast<A&&>(a) Token static_cast<B&&>(b);                              \
    }                                                                                    \
  };                                                                                     \
  template <int Number, op To, class A>                                                  \
  constexpr auto operator Token(A&& a, swapped<Number, To>) {                            \
    return swapped_left<Number, To, A>{static_cast<A&&>(a)};                             \
  }                                                                                      \
  template <int Number, op To, class A, class B>                                         \
  constexpr auto operator Token(swapped_left<Number, To, A> l, B&& b) {                  \
    if (is(Number)) {                                                                    \
      return apply<To>::of(static_cast<A&&>(l.a), static_cast<B&&>(b));                  \
    }                                                                                    \
    return apply<op::Name>::of(static_cast<A&&>(l.a), static_cast<B&&>(b));              \
  }

MUTANT_OPERATOR(less, <)
MUTANT_OPERATOR(less_equal, <=)
MUTANT_OPERATOR(greater, >)
MUTANT_OPERATOR(greater_equal, >=)
MUTANT_OPERATOR(equal, ==)
MUTANT_OPERATOR(unequal, !=)
MUTANT_OPERATOR(plus, +)
MUTANT_OPERATOR(minus, -)
MUTANT_OPERATOR(times, *)
MUTANT_OPERATOR(over, /)
MUTANT_OPERATOR(modulo, %)
#undef MUTANT_OPERATOR

// `a += b` is written `a += swapped<...>{} += b`, which groups from the right.
template <int Number, class B>
struct assigned_right {
  B&& b;
};
#define MUTANT_ASSIGNMENT(Token, Other)                                                \
  template <int Number, op To, class B>                                                \
  constexpr auto operator Token(swapped<Number, To>, B&& b) {                          \
    return assigned_right<Number, B>{static_cast<B&&>(b)};                             \
  }                                                                                    \
  template <int Number, class A, class B>                                              \
  constexpr decltype(auto) operator Token(A&& a, assigned_right<Number, B> r) {        \
    return is(Number) ? a Other static_cast<B&&>(r.b) : a Token static_cast<B&&>(r.b); \
  }
MUTANT_ASSIGNMENT(+=, -=)
MUTANT_ASSIGNMENT(-=, +=)
#undef MUTANT_ASSIGNMENT

// `++a` is written `mutant::counted_down<...>{} ->* a`.
template <int Number>
struct counted_down {
  template <class A>
  constexpr A& operator->*(A&& a) const {
    return is(Number) ? --a : ++a;
  }
  template <class A>
  constexpr A& operator->*(A& a) const {
    return is(Number) ? --a : ++a;
  }
};

template <int Number>
struct least_or_most {
  template <class T, class... More>
  static constexpr T min(const T& a, const std::type_identity_t<T>& b, More... more) {
    return is(Number) ? std::max<T>(a, b, more...) : std::min<T>(a, b, more...);
  }
  template <class T>
  static constexpr T min(std::initializer_list<T> all) {
    return is(Number) ? std::max<T>(all) : std::min<T>(all);
  }
  template <class T, class... More>
  static constexpr T max(const T& a, const std::type_identity_t<T>& b, More... more) {
    return is(Number) ? std::min<T>(a, b, more...) : std::max<T>(a, b, more...);
  }
  template <class T>
  static constexpr T max(std::initializer_list<T> all) {
    return is(Number) ? std::min<T>(all) : std::max<T>(all);
  }
};

// `a && b` is written both<...>(a, [&] { return b; }), since b is only computed where it counts.
template <int Number, class B>
constexpr bool both(bool a, B&& b) {
  return is(Number) ? a || b() : a && b();
}
template <int Number, class B>
constexpr bool either(bool a, B&& b) {
  return is(Number) ? a && b() : a || b();
}

}  // namespace mutant
