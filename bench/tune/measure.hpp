#pragma once
// How fast each kernel of tune/candidates.hpp is, against the default in alternating runs.

#include <array>
#include <cmath>
#include <functional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "candidates.hpp"
#include "filled_cache.hpp"
#include "processor.hpp"

namespace instinfer::bench {

// One shape: the kind that it belongs to, and the speed of each kernel over that of the default.
struct measured {
  std::size_t of_kind;  // index in kinds
  std::string name;
  std::array<double, kernels> gains{};
};

// Folds a given set of tokens.
struct fold_of {
  const index_set* tokens;
  using summaries = attention::summary_list<>;

  template <attention::AttentionMachine M>
  void operator()(M& m, const typename M::query& q) const {
    m.fold(q, *tokens);
  }
};

template <class Format>
class kernel_race {
  using cache_type = filled_cache<insta, Format>;
  using outputs = typename cache_type::outputs;
  using call = void (*)(const cache_type&, const fold_of&, outputs&, const worker_pool&);

 public:
  // The attends of a cache of 8 KV heads and 32 K tokens with groups of so many query heads: of all
  // tokens, and of an eighth of them, scattered.
  static void run(int group, std::vector<measured>& to) {
    const std::uint32_t tokens = 32768;
    const cache_type cache({8 * group, 8, {int{tokens}}}, {});
    index_set all;
    all.add(0, tokens);
    index_set some;
    std::mt19937 random(1);
    for (std::uint32_t t = 0; t < tokens; t += 8) {
      some.add(t + random() % 8);
    }
    const std::string heads = std::to_string(group) + (group == 1 ? " head" : " heads");
    to.push_back({group == 1 ? 0u : 1u, heads, race(cache, {&all})});
    if (group < 8) {
      to.push_back({2, heads + ", 1/8 of the rows", race(cache, {&some})});
    }
  }

 private:
  static std::array<double, kernels> race(const cache_type& cache, const fold_of& what) {
    static constexpr std::array<call, kernels> calls =
        all_calls(std::make_index_sequence<kernels>{});
    const worker_pool one(1);
    outputs expected = cache.make_outputs();
    calls[0](cache, what, expected, one);
    std::array<double, kernels> gains{};
    for (std::size_t i = 0; i < kernels; ++i) {
      outputs out = cache.make_outputs();
      double theirs = 1e9;
      double ours = 1e9;
      double spent = 0;
      for (int round = 0; round < 5 || spent < 0.4; ++round) {
        ours = std::min(ours, seconds(one, [&] { calls[0](cache, what, out, one); }));
        const double t = seconds(one, [&] { calls[i](cache, what, out, one); });
        theirs = std::min(theirs, t);
        spent += t;
      }
      require<bad_argument>(close(out[0], expected[0]), [&] {
        return "kernel " + std::to_string(i) + " gives another result than the default";
      });
      gains[i] = ours / theirs;
    }
    return gains;
  }

  static bool close(const std::vector<float>& a, const std::vector<float>& b) {
    double difference = 0;
    double norm = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
      difference += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
      norm += std::pow(static_cast<double>(b[i]), 2);
    }
    return std::sqrt(difference) <= 1e-5 * std::sqrt(norm);
  }

  template <std::size_t I>
  static void attend(const cache_type& cache, const fold_of& what, outputs& out,
                     const worker_pool& pool) {
    cache.template attend_as<cpu::tuned_path<kernel(I)>>(what, out, pool);
  }
  template <std::size_t... I>
  static constexpr std::array<call, kernels> all_calls(std::index_sequence<I...>) {
    return {attend<I>...};
  }
};

// The shapes that matter: groups of 1, 4 and 8 query heads. Each format is a unit of its own,
// because compiling its kernels takes a minute.
template <class Format>
std::vector<measured> measure();

template <class Format>
std::vector<measured> measure_all() {
  std::vector<measured> all;
  for (const int group : {1, 4, 8}) {
    kernel_race<Format>::run(group, all);
  }
  return all;
}

}  // namespace instinfer::bench
