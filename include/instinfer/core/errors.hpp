#pragma once
// The library's exceptions. Every bad input at the API's edge throws one of them and leaves the
// state unchanged.

#include <stdexcept>
#include <string>

#include "instinfer/codec/unit_rules.hpp"

namespace instinfer {

// Base of all exceptions thrown by instinfer. what() says what was wrong, where, and what was
// expected.
struct error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// An argument outside its domain: a shape, span length, ratio, count, NaN or infinity.
struct bad_argument : error {
  using error::error;
};

// A sequence handle that was never opened, or was reclaimed.
struct unknown_sequence : error {
  using error::error;
};

// The drive has fewer free pages than the call needs. Nothing was written.
struct drive_full : error {
  using error::error;
};

// A field of the logical address (InstInfer §IV-C, Fig. 10) is too short for the value.
struct address_overflow : error {
  using error::error;
};

// A file is truncated, corrupted, or does not match its header.
struct bad_file : error {
  using error::error;
};

// A call to the device runtime (CUDA) failed; what() has the call and the runtime's own message.
struct device_error : error {
  using error::error;
};

// No device, no driver, or a device too old for the kernels.
struct no_device : device_error {
  using device_error::device_error;
};

namespace detail {

// Cold and apart, so that messages are compiled for size and do not swell the functions that check.
template <class Error, class Describe>
[[noreturn, gnu::cold, gnu::noinline]] void fail(Describe& describe) {
  throw Error(describe());
}

}  // namespace detail

// Throws Error with the message of describe() unless `ok`. The message is built only on failure, so
// a check on a hot path costs one comparison.
template <class Error = bad_argument, class Describe>
constexpr void require(bool ok, Describe&& describe) {
  if (!ok) [[unlikely]] {
    detail::fail<Error>(describe);
  }
}

}  // namespace instinfer
