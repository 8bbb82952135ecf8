#pragma once
// What the GPU path was meant to reach on one H100, and whether the cases that just ran did.

#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "shape.hpp"

namespace bench {

struct measured {
  std::string kind;  // dense, sparf, ...
  shape s;
  double seconds = 0;
  double of_read = 0;
  double of_nominal = 0;
  double vs_dense = 0;  // 0: unknown
};

// Prints a line a target: the worst case that counts for it, or that none ran.
class targets {
 public:
  explicit targets(const std::vector<measured>& cases) : cases_{cases} {}

  void print() const {
    std::printf("\ntargets, set for one H100: worst case that ran\n");
    const auto dense = [](const measured& m) {
      return m.kind == "dense" && !m.s.skewed && m.s.page == 16;
    };
    const auto many = [&](const measured& m) {
      return dense(m) && m.s.batch * m.s.kv_heads >= 64 && m.s.tokens >= 8192;
    };
    const auto of_read = [](const measured& m) { return m.of_read; };
    line("dense, batch x KV heads >= 64, >= 8 K: of the read probe", 0.95, many, of_read);
    line("the same: of nominal", 0.87, many, [](const measured& m) { return m.of_nominal; });
    line(
        "dense, one sequence of 128 K: of the read probe", 0.85,
        [&](const measured& m) { return dense(m) && m.s.batch == 1 && m.s.tokens == 131072; },
        of_read);
    line(
        "page size 16: speed against page size 256", 0.97,
        [&](const measured& m) {
          return dense(m) && m.s.page == 16 && time_of(m.s, [](shape& x) { x.page = 256; }) > 0;
        },
        [&](const measured& m) {
          return time_of(m.s, [](shape& x) { x.page = 256; }) / m.seconds;
        });
    const auto even = [](shape& x) {
      x.tokens = static_cast<std::uint32_t>(x.all_tokens() / x.batch);
      x.skewed = false;
    };
    line(
        "skewed batch: speed against the even one of as many bytes", 0.90,
        [&](const measured& m) {
          return m.kind == "dense" && m.s.skewed && time_of(m.s, even) > 0;
        },
        [&](const measured& m) { return time_of(m.s, even) / m.seconds; });
    const auto sparf = [](const measured& m) { return m.kind == "sparf" && m.vs_dense > 0; };
    const auto vs_dense = [](const measured& m) { return m.vs_dense; };
    line(
        "SparF at 1/8, 32 K, batch >= 16: times as fast as dense", 5.0,
        [&](const measured& m) { return sparf(m) && m.s.tokens == 32768 && m.s.batch >= 16; },
        vs_dense);
    line(
        "SparF at 1/8, >= 8 K, any batch: times as fast as dense", 1.0,
        [&](const measured& m) { return sparf(m) && m.s.tokens >= 8192; }, vs_dense);
  }

 private:
  template <class Counts, class Value>
  void line(const char* what, double wanted, Counts&& counts, Value&& value) const {
    const measured* worst = nullptr;
    for (const measured& m : cases_) {
      if (counts(m) && (worst == nullptr || value(m) < value(*worst))) {
        worst = &m;
      }
    }
    if (worst == nullptr) {
      std::printf("  %-60s wanted %.2f: no such case ran\n", what, wanted);
    } else {
      std::printf("  %-60s wanted %.2f: %.3f %s (%s)\n", what, wanted, value(*worst),
                  value(*worst) >= wanted ? "met" : "NOT met", worst->s.name().c_str());
    }
  }

  // Seconds of dense attention over a shape like s; 0 where it did not run.
  template <class Change>
  double time_of(shape s, Change&& change) const {
    change(s);
    const auto found = std::ranges::find_if(
        cases_, [&](const measured& m) { return m.kind == "dense" && m.s.name() == s.name(); });
    return found == cases_.end() ? 0.0 : found->seconds;
  }

  const std::vector<measured>& cases_;
};

}  // namespace bench
