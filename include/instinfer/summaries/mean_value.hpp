#pragma once
// Summary: the running mean of V (SparQ, SparF: v-bar of InstInfer Alg. 1).

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "instinfer/summaries/concepts.hpp"

namespace instinfer::attention {

// Mean of all live V rows. It is stored as a sum and a count in double, so that rows can leave
// again. After 1M appends and forgets the error is below 1e-9 of the largest value ever held.
struct mean_value {
  template <class Format>
  class state {
   public:
    using element = typename Format::element;
    static constexpr bool any_order = true;
    static constexpr bool ignores_keys = true;

    void append(std::span<const element> /*k*/, std::span<const element> v) noexcept {
      add(v, 1.0);
    }
    void forget(std::span<const element> /*k*/, std::span<const element> v) noexcept {
      add(v, -1.0);
    }
    void restate_v(std::span<const element> before, std::span<const element> after) noexcept {
      for (std::size_t i = 0; i < sum_.size(); ++i) {
        sum_[i] +=
            static_cast<double>(to_float(after[i])) - static_cast<double>(to_float(before[i]));
      }
    }

    // Mean of dim i; 0 for an empty cache.
    double operator[](std::size_t i) const {
      return count_ == 0 ? 0.0 : sum_[i] / static_cast<double>(count_);
    }

    static constexpr const char* name() { return "mean_value"; }
    void each_part(auto&& file) { file(sum_, count_); }
    bool fits(std::uint32_t first, std::uint32_t tokens, const auto& /*all*/) const {
      return count_ == std::int64_t{tokens} - first;
    }

   private:
    void add(std::span<const element> v, double sign) {
      count_ += sign > 0 ? 1 : -1;
      for (std::size_t i = 0; i < sum_.size(); ++i) {
        sum_[i] = count_ == 0 ? 0.0 : sum_[i] + sign * static_cast<double>(to_float(v[i]));
      }
    }
    std::array<double, static_cast<std::size_t>(Format::v_dim)> sum_{};
    std::int64_t count_ = 0;
  };
};

}  // namespace instinfer::attention
