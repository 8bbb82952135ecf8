#pragma once
// The contract of a system: where weights and KV are, which route they take, and what overlaps.
//
//   deepspeed_system         KV in host memory; the kernel swaps what overflows      deepspeed.hpp
//   flexgen_system<Design>   KV on SSDs, through the host's file system              flexgen.hpp
//   recomp_system            KV in GPU memory; recomputes what does not fit          recomp.hpp
//   insta_system<Design>     KV and decode attention in the drive                    insta.hpp

#include <concepts>
#include <string_view>

#include "instinfer/system/report.hpp"
#include "instinfer/system/spec/server.hpp"

namespace instinfer::system {

// Constructed for one model, server and workload, which it stores. step(context) is a decode step
// of the whole batch with `context` tokens per sequence in the cache. More bandwidth of any link or
// memory must never make a system slower, and a larger batch must never need less memory.
template <class S>
concept System = requires(const S& s, double context) {
  { S::name } -> std::convertible_to<std::string_view>;
  { s.job() } -> std::convertible_to<workload>;
  { s.memory() } -> std::same_as<memory_use>;
  { s.prefill() } -> std::same_as<prefill_time>;
  { s.step(context) } -> std::same_as<decode_step>;
};

}  // namespace instinfer::system
