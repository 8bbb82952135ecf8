#pragma once
// The sentence with which a call is refused.

#include <string>

#include "instinfer/core/errors.hpp"

namespace instinfer::test {

// The message of the Error that a call throws; "no error" if it throws none. Other exceptions go
// on.
template <class Error = bad_argument>
std::string refusal_of(auto&& call) {
  try {
    call();
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

inline bool says(const std::string& message, const std::string& part) {
  return message.find(part) != std::string::npos;
}

}  // namespace instinfer::test
