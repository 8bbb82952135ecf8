#pragma once
// New tokens of a sequence, for calls that append them and attend; and how such a call is undone.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <utility>

#include "instinfer/core/page_key.hpp"
#include "instinfer/store/layer/extents.hpp"
#include "instinfer/store/sequences/value_checks.hpp"

namespace instinfer {

// Queries of a prompt that attend in one go: each of their pages is read once for all of them, and
// as many appends in between cost little.
inline constexpr std::size_t queries_together = 64;

// Rows of new tokens, oldest first, as engine::append takes them.
template <class Element>
struct new_tokens {
  std::span<const Element> k;           // [new_tokens, kv_heads, k_dim]
  std::span<const Element> v{};         // [new_tokens, kv_heads, v_dim]; latent rows: empty
  std::span<const float> index_keys{};  // [new_tokens, index_dim], for policies that take them

  // Tokens [first, last) of `count`.
  new_tokens part(std::size_t first, std::size_t last, std::size_t count) const {
    const auto rows = [&](auto all) {
      const std::size_t row = count == 0 ? 0 : all.size() / count;
      return all.subspan(first * row, (last - first) * row);
    };
    return {rows(k), rows(v), rows(index_keys)};
  }
};

// The number of new tokens. Throws bad_argument if k and v are not of the right shapes.
template <class Format>
std::size_t count_of(const new_tokens<typename Format::element>& rows, int kv_heads) {
  return store::tokens_of(rows.k.size(), rows.v.size(), kv_heads, Format::k_dim, Format::v_dim,
                          Format::latent);
}

// What one layer of a sequence was, before a call appended to it or its queries taught its
// summaries. Other calls on the engine invalidate it.
template <class Cache>
class layer_before {
 public:
  layer_before(const Cache& cache, sequence seq, int layer)
      : cache_{cache},
        seq_{seq},
        number_{static_cast<std::uint32_t>(layer)},
        base_{at().base()},
        positions_{at().positions()},
        learned_{at().summaries().copy_learned()} {}

  // What queries taught is undone.
  void put_back_learned() noexcept {
    at().summaries().put_back(learned_, static_cast<std::uint32_t>(at().base() - base_));
  }
  // That, and new tokens are taken back, unless an index was built of them meanwhile. Throws what
  // truncate does.
  template <class Engine>
  void put_back(Engine& engine) {
    put_back_learned();
    if (at().positions() > positions_ && at().may_truncate(static_cast<std::uint32_t>(
                                             positions_ - std::min(positions_, at().base())))) {
      engine.truncate(seq_, store::truncate_range{number_, number_ + 1, positions_});
    }
  }

 private:
  const auto& at() const { return cache_.at(seq_, static_cast<int>(number_)); }

  using learned = std::remove_cvref_t<
      decltype(std::declval<const typename Cache::layer&>().summaries().copy_learned())>;
  const Cache& cache_;
  sequence seq_;
  std::uint32_t number_;
  std::uint64_t base_;
  std::uint64_t positions_;
  learned learned_;
};

}  // namespace instinfer
