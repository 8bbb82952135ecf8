// What the rules and options of the flash model cost or gain: the tables of docs/flash.md, on the
// paper's drive.

#include <cstdio>

#include "support/option_costs.hpp"
#include "support/program.hpp"

int main() {
  return instinfer::program::run("flash_options", [] {
    std::fputs(instinfer::examples::option_costs::tables().c_str(), stdout);
    return 0;
  });
}
