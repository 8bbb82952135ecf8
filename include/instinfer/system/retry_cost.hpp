#pragma once
// What read retries add to the flash time of one layer's attention (InstInfer Fig. 22).

#include <cstdint>
#include <vector>

#include "instinfer/flash/engine.hpp"
#include "instinfer/flash/read_retry.hpp"

namespace instinfer::system {

// The same planned pages twice on the drive's timeline, with and without retries. Returns the relative increase of the summed
// makespans of all phases; 0.01 is 1 %.
template <Design D, class Format = kv_format<>>
double read_retry_increase(const model_shape& heads, int sequences, std::uint32_t context,
                           const flash::read_retry& retry,
                           const typename D::attention_policy& attention = {},
                           const flash::drive_spec& drive = D::drive) {
  const std::uint64_t bytes = (std::uint64_t{64} << 20) +
                              std::uint64_t{2} * context * static_cast<std::uint64_t>(sequences) *
                                  static_cast<std::uint64_t>(heads.kv_heads * Format::token_bytes);
  instinfer::engine<D, Format, flash::drawn, store::ledger> cache(
      heads, {.bytes = bytes, .context_tokens = context}, attention, {},
      static_cast<std::uint32_t>(drive.geometry.channels));
  const auto q_heads = static_cast<std::size_t>(heads.q_heads);
  const std::vector<float> q(q_heads * Format::k_dim, 1.0f);
  std::vector<float> out(q_heads * Format::v_dim);
  typename decltype(cache)::scratch work;
  std::vector<flash::phase_load> phases;
  for (int i = 0; i < sequences; ++i) {
    const sequence seq = cache.open();
    cache.append_count(seq, 0, context - static_cast<std::uint32_t>(i) % 16);
    flash::attend_phases observed(static_cast<std::uint32_t>(heads.kv_heads),
                                  static_cast<std::uint32_t>(heads.group()), Format::k_dim,
                                  Format::element_bytes);
    cache.attend(seq, 0, q, out, work, parallel::serial{}, observed);
    observed.add_to(phases);
  }
  const flash::placement where{drive.geometry};
  flash::timeline<> plain{drive.geometry, drive.timing};
  flash::timeline<> retried{drive.geometry, drive.timing, {.retry = retry}};
  std::vector<flash::location> pages;
  double without = 0;
  double with = 0;
  for (const flash::phase_load& phase : phases) {
    pages.clear();
    for (const page_id page : phase.pages) {
      pages.push_back(where(page));
    }
    without += static_cast<double>(plain.read(pages).makespan_ps());
    with += static_cast<double>(retried.read(pages).makespan_ps());
  }
  return with / without - 1.0;
}

}  // namespace instinfer::system
