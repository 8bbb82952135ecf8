#pragma once
// The contract of a system: where weights and KV live, which way they go, and what overlaps with what.
//
//   deepspeed_system         KV in host memory; the kernel swaps when it overflows     system/deepspeed.hpp
//   flexgen_system<Design>   KV on SSDs under the host's file system                   system/flexgen.hpp
//   recomp_system            KV in GPU memory; what does not fit is computed again     system/recomp.hpp
//   insta_system<Design>     KV in the drive, and decode attention with it             system/insta.hpp

#include <concepts>
#include <string_view>

#include "instinfer/system/report.hpp"
#include "instinfer/system/spec/server.hpp"

namespace instinfer::system {

// Constructed for one model, server and workload, which it keeps. step(context): a decode step of the whole batch with so many
// tokens a sequence in the cache. More bandwidth of any link or memory must never make it slower, and a larger batch never need
// less memory.
template <class S>
concept System = requires(const S& s, double context) {
  { S::name } -> std::convertible_to<std::string_view>;
  { s.job() } -> std::convertible_to<workload>;
  { s.memory() } -> std::same_as<memory_use>;
  { s.prefill() } -> std::same_as<prefill_time>;
  { s.step(context) } -> std::same_as<decode_step>;
};

}  // namespace instinfer::system
