// The main program of a fuzz target where there is no libFuzzer:
//   FILE...          replays inputs
//   [SEED [COUNT]]   mutates the target's own inputs COUNT times, always in the same way for a seed
// It writes each input to last-input before it runs it, so that the one that fails is there.

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <random>
#include <string>

#include "tests/support/fuzz.hpp"

namespace {

using instinfer::test::fuzz_one;

std::string mutated(std::string x, const std::string& other, std::mt19937& random) {
  const auto below = [&](std::size_t n) { return n == 0 ? 0 : random() % n; };
  for (std::size_t i = below(4) + 1; i > 0 && x.size() > 1; --i) {
    const std::size_t at = 1 + below(x.size() - 1);
    switch (below(7)) {
      case 0:
        x[at] = static_cast<char>(x[at] ^ (1 << below(8)));
        break;
      case 1:
        x[at] = static_cast<char>(below(256));
        break;
      case 2:
        x.erase(at, 1 + below(16));
        break;
      case 3:
        x.resize(at);
        break;
      case 4:
        x.insert(at, x, 1 + below(x.size() - 1), below(64));
        break;
      case 5:
        x.insert(at, other, below(other.size()), below(64));
        break;
      default: {  // a number at an edge, where numbers are
        const std::uint64_t edges[] = {0,          1,          2,          0x7FFFFFFF,
                                       0x80000000, 0xFFFFFFFF, 1ull << 40, ~0ull};
        const std::uint64_t value = edges[below(8)] + below(3);
        const std::size_t bytes = below(2) == 0 ? 4 : 8;
        x.replace(at, bytes, std::string(reinterpret_cast<const char*>(&value), bytes));
      }
    }
  }
  return x;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1 && std::string(argv[1]).find_first_not_of("0123456789") != std::string::npos) {
    for (int i = 1; i < argc; ++i) {
      std::ifstream in(argv[i], std::ios::binary);
      if (!in) {
        std::fprintf(stderr, "%s cannot be read\n", argv[i]);
        return 1;
      }
      const bool taken = fuzz_one(std::string(std::istreambuf_iterator<char>(in), {}));
      std::printf("%s: %s\n", argv[i], taken ? "taken" : "refused");
    }
    return std::fflush(stdout) == 0 ? 0 : 1;
  }
  const unsigned long seed = argc > 1 ? std::strtoul(argv[1], nullptr, 10) : 1;
  const unsigned long count = argc > 2 ? std::strtoul(argv[2], nullptr, 10) : 20000;
  const std::vector<std::string> seeds = instinfer::test::fuzz_seeds();
  for (std::size_t i = 0; i < seeds.size(); ++i) {  // the canary: a reader that refuses everything
    if (!fuzz_one(seeds[i])) {
      std::fprintf(stderr, "input %zu of the target is refused\n", i);
      return 1;
    }
  }
  std::mt19937 random(static_cast<std::mt19937::result_type>(seed));
  unsigned long taken = 0;
  for (unsigned long i = 0; i < count; ++i) {
    const std::string input =
        mutated(seeds[random() % seeds.size()], seeds[random() % seeds.size()], random);
    std::ofstream("last-input", std::ios::binary) << input;
    taken += fuzz_one(input) ? 1 : 0;
  }
  std::remove("last-input");
  std::printf("%lu mutated inputs, seed %lu: %lu taken, %lu refused\n", count, seed, taken,
              count - taken);
  if (taken == 0 || taken == count) {
    std::fprintf(stderr, "mutations must be of both kinds\n");
    return 1;
  }
  return std::fflush(stdout) == 0 ? 0 : 1;
}
