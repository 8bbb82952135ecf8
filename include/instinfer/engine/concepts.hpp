#pragma once
// The concept of an engine: the paper's commands, common to all paths.

#include <concepts>
#include <span>

#include "instinfer/engine/attend_call.hpp"
#include "instinfer/store/sequences/kv_cache.hpp"

namespace instinfer {

// Every engine offers open, append, attend, reclaim and token counts. The paper's config is the
// construction.
template <class E>
concept Engine =
    requires(E& e, const E& c, sequence seq, std::span<const typename E::element> kv,
             std::span<const float> q, std::span<float> out, const store::reclaim_range& range) {
      { e.open() } -> std::same_as<sequence>;
      { e.append(seq, 0, kv, kv) } -> std::convertible_to<receipt>;
      { e.attend(seq, 0, q, out) } -> std::convertible_to<receipt>;
      e.reclaim(seq);
      e.reclaim(seq, range);
      { c.tokens(seq, 0) } -> std::convertible_to<std::uint32_t>;
      { c.positions(seq, 0) } -> std::convertible_to<std::uint64_t>;
    };

}  // namespace instinfer
