#pragma once
// The operations on a page or block of the flash array: read, program, erase.

namespace instinfer::flash {

// An erase ignores the page coordinate, so the rules that pair pages also pair blocks.
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
