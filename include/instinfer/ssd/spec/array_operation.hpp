#pragma once
// What is asked of a page or block.

namespace instinfer::flash {

// An erase ignores the page coordinate: blocks pair as pages do.
enum class array_operation { read, program, erase };

constexpr const char* operation_name(array_operation what) {
  switch (what) {
    case array_operation::read:
      return "read";
    case array_operation::program:
      return "program";
    case array_operation::erase:
      return "erase";
  }
  return "";
}

}  // namespace instinfer::flash
