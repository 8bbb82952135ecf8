#pragma once
// The library's exception hierarchy: every bad input at the API's edge throws one of these, and leaves state unchanged.

#include <stdexcept>
#include <string>

namespace instinfer {

// Base of all exceptions thrown by instinfer. what() says what was wrong, where, and what was expected.
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

// A field of the logical address (InstInfer §IV-C, Fig. 10) cannot hold the value.
struct address_overflow : error {
  using error::error;
};

// A file is truncated, corrupted, or not what its header says.
struct bad_file : error {
  using error::error;
};

// A call to a device's runtime failed (CUDA); what() gives the call and the runtime's own words.
struct device_error : error {
  using error::error;
};

// There is no device, no driver for it, or it is too old for the kernels.
struct no_device : device_error {
  using device_error::device_error;
};

// Throws Error with the message that `describe()` builds, unless `ok`. The message is only built on failure, so
// checks on hot edges cost a compare.
template <class Error = bad_argument, class Describe>
constexpr void require(bool ok, Describe&& describe) {
  if (!ok) [[unlikely]] {
    throw Error(describe());
  }
}

}  // namespace instinfer
