#pragma once
// What is asked of a page or block.

namespace instinfer::flash {

// An erase ignores the page coordinate: blocks pair as pages do.
enum class operation { read, program, erase };

constexpr const char* operation_name(operation what) {
  switch (what) {
    case operation::read:
      return "read";
    case operation::program:
      return "program";
    case operation::erase:
      return "erase";
  }
  return "";
}

}  // namespace instinfer::flash
