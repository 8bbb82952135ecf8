#pragma once
// A check for the command line's numbers that refuses what is no number, too: CLI::Range lets NaN
// pass, since no comparison with it is true.

#include <string>

#include <CLI/CLI.hpp>

namespace instinfer::program {

inline CLI::Validator number_in(double least, double most) {
  const std::string range = CLI::detail::to_string(least) + " to " + CLI::detail::to_string(most);
  return {[=](std::string& text) {
            double x = 0;  // every comparison with NaN is false
            if (CLI::detail::lexical_cast(text, x) && x >= least && x <= most) {
              return std::string();
            }
            return "a number from " + range + " is wanted, got " + text;
          },
          "in [" + range + "]"};
}

}  // namespace instinfer::program
