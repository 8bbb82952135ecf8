#pragma once
// How much a policy keeps: a share of the available items, or a count. It is checked where it is
// used; the error carries the user's name for the budget.

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <string>

#include "instinfer/core/errors.hpp"

namespace instinfer {

class budget {
 public:
  // A share in [0, 1], rounded up: a positive share of a non-empty set keeps at least one.
  constexpr budget(double share) : share_{share} {}  // NOLINT: a ratio reads best as a plain number

  // An integer could mean a share or a count: write exactly(n) or at_most(n).
  template <std::integral T>
  budget(T) = delete;

  // Exactly n; an error if fewer are available.
  static constexpr budget exactly(std::int64_t n) { return budget{n, true}; }

  // n, or all if fewer are available: the usual choice for a context that still grows.
  static constexpr budget at_most(std::int64_t n) { return budget{n, false}; }

  // Number kept of `available`. `what` names the budget in the error, e.g. "keep_tokens".
  // Throws bad_argument for NaN, a share outside [0, 1], a negative count, or exactly(n) with n >
  // available.
  std::uint32_t of(std::uint32_t available, const char* what) const {
    if (count_ == no_count) {
      require(share_ >= 0.0 && share_ <= 1.0, [&] {
        return std::string(what) + ": a share must lie in [0, 1], got " + std::to_string(share_);
      });
      // 1e-9 absorbs the rounding of shares like 1/3 so that 1/3 of 96 is 32, not 33.
      const auto kept = static_cast<std::uint32_t>(std::ceil(share_ * available - 1e-9));
      return std::clamp(kept, share_ > 0.0 ? std::min(1u, available) : 0u, available);
    }
    require(count_ >= 0, [&] {
      return std::string(what) + ": a count must not be negative, got " + std::to_string(count_);
    });
    require(!exact_ || count_ <= available, [&] {
      return std::string(what) + ": exactly " + std::to_string(count_) +
             " were asked for, but there are only " + std::to_string(available) +
             " (budget::at_most takes what there is)";
    });
    return static_cast<std::uint32_t>(std::min<std::int64_t>(count_, available));
  }

  // Returns this budget. Throws bad_argument if it keeps nothing, and wherever of() throws.
  const budget& positive(const char* what) const {
    require(of(at_least(), what) > 0,
            [&] { return std::string(what) + ": must keep something, got 0"; });
    return *this;
  }

  friend constexpr bool operator==(const budget& a, const budget& b) {
    return a.share_ <= b.share_ && b.share_ <= a.share_ && a.count_ == b.count_ &&
           a.exact_ == b.exact_;
  }

 private:
  // A number of available items large enough for exactly(n).
  constexpr std::uint32_t at_least() const {
    return static_cast<std::uint32_t>(std::clamp<std::int64_t>(count_, 1, UINT32_MAX));
  }

  static constexpr std::int64_t no_count = INT64_MIN;
  constexpr budget(std::int64_t n, bool exact) : count_{n}, exact_{exact} {}

  double share_ = 1.0;
  std::int64_t count_ = no_count;
  bool exact_ = false;
};

}  // namespace instinfer
