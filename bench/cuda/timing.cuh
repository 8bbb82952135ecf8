#pragma once
// Times of the GPU benchmark: a graph of launches between two events, and the card's bandwidth,
// nominal and as a kernel that only reads reaches it.

#include <algorithm>
#include <vector>

#include <instinfer/cuda/launch/device.cuh>

namespace bench {

using namespace instinfer;
using cuda::check;

// Reads everything once, eight 16-byte loads in flight a thread, and keeps the sum alive.
static __global__ void read_only(const uint4* data, std::uint64_t n, std::uint32_t* sink) {
  const std::uint64_t step = std::uint64_t{gridDim.x} * blockDim.x;
  std::uint32_t sum = 0;
  std::uint64_t i = std::uint64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  for (; i + 7 * step < n; i += 8 * step) {
    uint4 x[8];
#pragma unroll
    for (int u = 0; u < 8; ++u) {
      x[u] = __ldcs(data + i + u * step);
    }
#pragma unroll
    for (int u = 0; u < 8; ++u) {
      sum ^= x[u].x ^ x[u].y ^ x[u].z ^ x[u].w;
    }
  }
  for (; i < n; i += step) {
    sum ^= data[i].x;
  }
  if (sum == 0x1234'5678u) {
    *sink = sum;
  }
}

// Median seconds of one launch: work(stream, i) for i in [0, launches) captured in a graph, which
// runs five times.
template <class Work>
double seconds_of(std::uint32_t launches, Work&& work) {
  cudaStream_t stream = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
  for (std::uint32_t i = 0; i < launches; ++i) {
    work(stream, i);
  }
  cudaGraph_t graph = nullptr;
  check(cudaStreamEndCapture(stream, &graph), "cudaStreamEndCapture");
  cudaGraphExec_t run = nullptr;
  check(cudaGraphInstantiate(&run, graph, 0), "cudaGraphInstantiate");
  cudaEvent_t begin = nullptr;
  cudaEvent_t end = nullptr;
  check(cudaEventCreate(&begin), "cudaEventCreate");
  check(cudaEventCreate(&end), "cudaEventCreate");
  std::vector<double> times;
  for (int pass = 0; pass < 7; ++pass) {
    check(cudaEventRecord(begin, stream), "cudaEventRecord");
    check(cudaGraphLaunch(run, stream), "cudaGraphLaunch");
    check(cudaEventRecord(end, stream), "cudaEventRecord");
    check(cudaEventSynchronize(end), "cudaEventSynchronize");
    float ms = 0;
    check(cudaEventElapsedTime(&ms, begin, end), "cudaEventElapsedTime");
    if (pass >= 2) {  // two to warm up
      times.push_back(static_cast<double>(ms) / 1e3 / launches);
    }
  }
  check(cudaEventDestroy(begin), "cudaEventDestroy");
  check(cudaEventDestroy(end), "cudaEventDestroy");
  check(cudaGraphExecDestroy(run), "cudaGraphExecDestroy");
  check(cudaGraphDestroy(graph), "cudaGraphDestroy");
  check(cudaStreamDestroy(stream), "cudaStreamDestroy");
  std::ranges::nth_element(times, times.begin() + 2);
  return times[2];
}

inline double read_bandwidth() {
  static const double best = [] {
    const cuda::device_info device = cuda::current_device();
    const std::uint64_t bytes =
        std::uint64_t{20} * static_cast<unsigned>(device.l2_bytes) / 4096 * 4096;
    const cuda::array<std::byte> data(bytes);
    const cuda::array<std::uint32_t> sink(1);
    check(cudaMemset(data.data(), 1, bytes), "cudaMemset");
    check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
    double fastest = 0;
    for (const unsigned per_sm : {2u, 4u, 8u, 16u}) {
      for (const unsigned threads : {128u, 256u, 512u}) {
        const double s = seconds_of(20, [&](cudaStream_t stream, std::uint32_t) {
          read_only<<<per_sm* static_cast<unsigned>(device.multiprocessors), threads, 0, stream>>>(
              reinterpret_cast<const uint4*>(data.data()), bytes / sizeof(uint4), sink.data());
        });
        fastest = std::max(fastest, static_cast<double>(bytes) / s);
      }
    }
    return fastest;
  }();
  return best;
}

inline double nominal_bandwidth() {
  const int ordinal = cuda::current_device().ordinal;
  int khz = 0;
  int bits = 0;
  check(cudaDeviceGetAttribute(&khz, cudaDevAttrMemoryClockRate, ordinal),
        "cudaDeviceGetAttribute");
  check(cudaDeviceGetAttribute(&bits, cudaDevAttrGlobalMemoryBusWidth, ordinal),
        "cudaDeviceGetAttribute");
  return 2.0 * khz * 1e3 * bits / 8;
}

}  // namespace bench
