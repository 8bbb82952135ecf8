#pragma once
// What the tests of flash::engine on a whole drive share: batches, and a small drive on a
// translation layer.

#include <vector>

#include "instinfer/flash/engine.hpp"
#include "instinfer/flash/ftl_store.hpp"
#include "tests/support/shared_timelines.hpp"

namespace instinfer::test {

using drive_format = kv_format<fp16, 128>;  // 16 tokens a page of 4 KiB

template <class Engine>
flash::receipt attend(Engine& engine, std::span<const sequence> all) {
  const model_shape& shape = engine.inner().cache().shape();
  const std::vector<float> q(static_cast<std::size_t>(shape.q_heads * 128), 1.0f);
  std::vector<float> out(q.size());
  std::vector<typename Engine::request> batch;
  for (const sequence seq : all) {
    batch.push_back({seq, q, out});
  }
  return engine.attend_batch(0, batch);
}

// `batch` sequences of `tokens` each on a drive of its own.
template <class D, class... Rest>
flash::receipt one_step(const model_shape& shape, int batch, std::uint64_t tokens,
                        const flash::drive_spec& drive = D::drive,
                        const flash::drive_rules& rules = {}) {
  flash::engine<D, drive_format, flash::random_selection, Rest...> engine(
      shape, {.bytes = std::uint64_t{8} << 30, .context_tokens = 2048}, {}, {}, drive, {}, rules);
  std::vector<sequence> all;
  for (int i = 0; i < batch; ++i) {
    all.push_back(engine.open());
    engine.append_count(all.back(), 0, tokens);
  }
  return attend(engine, all);
}

inline constexpr model_shape opt_13b{.layers = 1, .q_heads = 40, .kv_heads = 40};
inline constexpr model_shape few_heads{.layers = 1, .q_heads = 4, .kv_heads = 4};

// 2 channels x 2 chips x 2 planes x 24 blocks x 8 pages: 1,536 pages.
inline constexpr flash::geometry small{
    .channels = 2, .chips = 2, .dies = 1, .planes = 2, .blocks = 24, .pages = 8};
inline constexpr flash::drive_spec small_drive = [] {
  flash::drive_spec drive = flash::instcsd;
  drive.geometry = small;
  return drive;
}();
inline const store::capacity drive_capacity{.bytes = 2 * 700 * 4096, .context_tokens = 512};
inline constexpr model_shape one_head{.layers = 1, .q_heads = 1, .kv_heads = 1};

using clean_store =
    flash::ftl_store<small, flash::kv_blocks{.frontiers = 4, .erase_below_blocks = 4}>;
using greedy_store = flash::ftl_store<small, flash::greedy_pages{}>;

template <class Store, template <class> class Writes = flash::foreground_writes>
using engine_on = flash::engine<insta, drive_format, flash::random_selection, flash::data_out_first,
                                Store, Writes>;

}  // namespace instinfer::test
