// What the rules and options of the flash model cost or gain: the tables of docs/flash.md, on the
// paper's drive.

#include <cstdio>

#include "support/option_costs.hpp"

int main() { std::fputs(instinfer::examples::option_costs::tables().c_str(), stdout); }
