// The claims of the InstInfer paper, beside what this library gives for them; writes the figures and docs/reproduction.md.

#include <cstdio>
#include <cstring>
#include <exception>
#include <fstream>
#include <string>

#include "paper/calibration.hpp"
#include "paper/claims.hpp"

using namespace instinfer;

int main(int argc, char** argv) {
  if (argc > 1 && std::strcmp(argv[1], "--calibrate") == 0) {
    const system::host_software c = paper::calibrated();
    std::printf(
        "cached_request_ns %.0f\npageable_bytes_per_s %.4g\nswapped_page_ns %.0f\nrecomputed_tokens %.1f\n",
        c.cached_request_ns, c.pageable_bytes_per_s, c.swapped_page_ns, c.recomputed_tokens);
    return 0;
  }
  const auto runs = paper::run_everything();
  const auto claims = paper::all_claims(runs);
  for (const auto& c : claims) {
    std::printf("%-9s %-62s %10.4g %10.4g %-9s %+6.1f %% %s\n", c.figure.c_str(), c.what.c_str(),
                c.paper, c.ours, c.unit.c_str(), 100 * c.error(),
                c.how == paper::kind::calibrated ? "calibrated" : "predicted");
  }
  std::printf("median %.1f %%\n", 100 * paper::median_error(claims));
}
