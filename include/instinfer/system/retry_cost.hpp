#pragma once
// The flash time that read retries add to one layer's attention (InstInfer Fig. 22).

#include <cstdint>
#include <vector>

#include "instinfer/flash/engine.hpp"
#include "instinfer/ssd/spec/read_retry.hpp"

namespace instinfer::system {

// Runs the same attend on the drive with and without retries. Returns the relative increase of its
// time; 0.01 is 1 %.
template <Design D, class Format = kv_format<>>
double read_retry_increase(const model_shape& heads, int sequences, std::uint32_t context,
                           const flash::read_retry& retry,
                           const typename D::attention_policy& attention = {},
                           const flash::drive_spec& drive = D::drive) {
  const std::uint64_t bytes = (std::uint64_t{64} << 20) +
                              std::uint64_t{2} * context * static_cast<std::uint64_t>(sequences) *
                                  static_cast<std::uint64_t>(heads.kv_heads) * Format::token_bytes;
  const std::vector<float> q(static_cast<std::size_t>(heads.q_heads) * Format::k_dim, 1.0f);
  std::vector<float> out(static_cast<std::size_t>(heads.q_heads) * Format::v_dim);
  const auto attention_ns = [&](const flash::drive_rules& rules) {
    using engine = flash::engine<D, Format>;
    engine clock(heads, {.bytes = bytes, .context_tokens = context}, attention, {}, drive, {},
                 rules);
    std::vector<typename engine::request> batch;
    for (int i = 0; i < sequences; ++i) {
      batch.push_back({clock.open(), q, out});
      clock.append_untimed(batch.back().seq, 0, context - static_cast<std::uint32_t>(i) % 16);
    }
    return clock.attend_batch(0, batch).attention_ns;
  };
  flash::drive_rules with_retries = flash::independent_planes;
  with_retries.retry = retry;
  return attention_ns(with_retries) / attention_ns(flash::independent_planes) - 1.0;
}

}  // namespace instinfer::system
