#pragma once
// The CUDA runtime as the library uses it: errors as exceptions, the properties of the current
// device, and arrays that free themselves.

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include <cuda_runtime.h>

#include "instinfer/core/errors.hpp"

namespace instinfer::cuda {

inline constexpr int least_capability = 80;  // mma.m16n8k16, cp.async: sm_80

// Throws device_error with the call's name and the runtime's text; no_device where there is no
// device, or no driver for it.
inline void check(cudaError_t status, const char* call) {
  if (status == cudaSuccess) [[likely]] {
    return;
  }
  (void)cudaGetLastError();  // so that the next call does not report it again
  const std::string what = std::string("CUDA: ") + call + ": " + cudaGetErrorString(status) + " (" +
                           cudaGetErrorName(status) + ")";
  require<no_device>(status != cudaErrorNoDevice && status != cudaErrorInsufficientDriver &&
                         status != cudaErrorSystemDriverMismatch &&
                         status != cudaErrorSystemNotReady && status != cudaErrorStubLibrary,
                     [&] { return what; });
  throw device_error(what);
}

struct device_info {
  int ordinal = 0;
  int capability = 0;  // 80 for 8.0
  int multiprocessors = 0;
  int shared_bytes_per_cta = 0;  // most that a kernel may ask for
  int l2_bytes = 0;

  // Throws no_device where the device is older, or has less shared memory for a CTA.
  void require_at_least(int needed_capability, int needed_shared_bytes = 0) const {
    require<no_device>(capability >= needed_capability, [&] {
      return "CUDA: device " + std::to_string(ordinal) + " is sm_" + std::to_string(capability) +
             ", the kernels need sm_" + std::to_string(needed_capability) + " or later";
    });
    require<no_device>(shared_bytes_per_cta >= needed_shared_bytes, [&] {
      return "CUDA: device " + std::to_string(ordinal) + " gives a CTA " +
             std::to_string(shared_bytes_per_cta) + " bytes of shared memory, the kernel needs " +
             std::to_string(needed_shared_bytes);
    });
  }
};

// The calling thread's current device. Throws no_device, also for a device older than sm_80.
inline device_info current_device() {
  device_info d;
  check(cudaGetDevice(&d.ordinal), "cudaGetDevice");
  const auto attribute = [&](cudaDeviceAttr a) {
    int value = 0;
    check(cudaDeviceGetAttribute(&value, a, d.ordinal), "cudaDeviceGetAttribute");
    return value;
  };
  d.capability = 10 * attribute(cudaDevAttrComputeCapabilityMajor) +
                 attribute(cudaDevAttrComputeCapabilityMinor);
  d.multiprocessors = attribute(cudaDevAttrMultiProcessorCount);
  d.shared_bytes_per_cta = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
  d.l2_bytes = attribute(cudaDevAttrL2CacheSize);
  d.require_at_least(least_capability);
  return d;
}

// Where an array lives.
enum class memory_kind {
  device,
  pinned  // host memory that the device reads over its link
};

// An array of n elements, uninitialised; moved, not copied.
template <class T, memory_kind Kind = memory_kind::device>
class array {
 public:
  array() = default;
  // Throws device_error where there is no room.
  explicit array(std::size_t n) : size_{n} {
    if (n > 0) {
      void* p = nullptr;
      Kind == memory_kind::device
          ? check(cudaMalloc(&p, n * sizeof(T)), "cudaMalloc")
          : check(cudaHostAlloc(&p, n * sizeof(T), cudaHostAllocMapped | cudaHostAllocPortable),
                  "cudaHostAlloc");
      data_ = static_cast<T*>(p);
    }
  }
  array(array&& other) noexcept
      : data_{std::exchange(other.data_, nullptr)}, size_{std::exchange(other.size_, 0)} {}
  array& operator=(array&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  array(const array&) = delete;
  array& operator=(const array&) = delete;
  ~array() { (void)(Kind == memory_kind::device ? cudaFree(data_) : cudaFreeHost(data_)); }

  T* data() const { return data_; }
  std::size_t size() const { return size_; }

  // Makes room for at least n elements; the old ones are lost. Allocates half as much again, so
  // that a growing context rarely allocates.
  void grow(std::size_t n) {
    if (n > size_) {
      *this = array();
      *this = array(n + n / 2);
    }
  }

 private:
  T* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace instinfer::cuda
