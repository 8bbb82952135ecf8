#pragma once
// The four constants of system::host_software, solved for the four numbers of Fig. 14 that they are
// calibrated on.

#include "paper/claims.hpp"

namespace instinfer::paper {

// x in [low, high] with f(x) = wanted, f monotonic; by bisection, to six digits.
template <class F>
double solve(double low, double high, double wanted, F&& f) {
  const bool rising = f(high) > f(low);
  for (int i = 0; i < 24; ++i) {
    const double middle = (low + high) / 2;
    ((f(middle) < wanted) == rising ? low : high) = middle;
  }
  return (low + high) / 2;
}

// One after the other, as each number depends on one constant alone, given those before it.
inline system::host_software calibrated() {
  using system::opt_13b;
  using system::paper_opt_workload;
  system::host_software found;
  const auto on = [&] {
    system::server m = system::paper_server();
    m.host.software = found;
    return m;
  };
  const auto speed = [&](const auto& s) { return system::run(s, 64).tokens_per_s(); };
  const double insta_best = speed(system::insta_system<>(opt_13b, on(), paper_opt_workload(256)));
  const double sparf_best =
      speed(system::insta_sparf_system<>(opt_13b, on(), paper_opt_workload(256)));
  found.cached_request_ns = solve(1e4, 1e6, paper_insta_over_flexgen, [&](double ns) {
    found.cached_request_ns = ns;
    return insta_best / speed(system::flexgen_system<>(opt_13b, on(), paper_opt_workload(32)));
  });
  found.pageable_bytes_per_s = solve(1e9, 30e9, paper_insta_over_deepspeed, [&](double rate) {
    found.pageable_bytes_per_s = rate;
    return insta_best / speed(system::deepspeed_system(opt_13b, on(), paper_opt_workload(16)));
  });
  found.swapped_page_ns = solve(1e2, 1e6, paper_swapping_factor, [&](double ns) {
    found.swapped_page_ns = ns;
    return speed(system::deepspeed_system(opt_13b, on(), paper_opt_workload(16))) /
           speed(system::deepspeed_system(opt_13b, on(), paper_opt_workload(32)));
  });
  found.recomputed_tokens = solve(1, 1e5, paper_sparf_over_recomp, [&](double tokens) {
    found.recomputed_tokens = tokens;
    return sparf_best / speed(system::recomp_system(opt_13b, on(), paper_opt_workload(256)));
  });
  return found;
}

}  // namespace instinfer::paper
