#pragma once
// The exact k largest of the keys that the CTAs of a cluster hold, as one ascending list. Ties go
// to the earlier key, as in core/top_k.hpp. The CTAs hold neighbouring keys, one after the other.
//
// Radix select on order-preserving keys, 11 + 11 + 10 bits: three passes that count, then one that
// writes. In a counting pass each CTA counts its own keys, and the first CTA's shared memory adds
// up the counts of all. Digits of 11 bits take the sign, the exponent and two bits of the fraction
// at once. That spreads softmax values better than 8 bits, whose first digit is half the exponent.

#include <cstdint>

#include "instinfer/cuda/kernels/unrolled.hpp"

namespace instinfer::cuda {

// CTAs of `Threads` threads, at most `most_ctas` in a cluster.
template <class Lane, std::uint32_t Threads>
class cluster_top_k {
 public:
  static constexpr std::uint32_t most_ctas = 8;  // what every device with clusters has
  static constexpr std::uint32_t bins = 2048;
  // Words of shared memory: the counts of two passes, of the warps and of the CTA, and what was
  // found.
  static constexpr std::uint32_t words = 2 * bins + 2 * (Threads / 32) + 4;

  // Which entries of the list are this CTA's.
  struct listed {
    std::uint32_t first = 0;
    std::uint32_t count = 0;
  };

  // keys [count] are this CTA's; list() reads them. 0 is no key.
  constexpr cluster_top_k(Lane& lane, std::uint32_t* memory, const std::uint32_t* keys,
                          std::uint32_t count)
      : lane_{lane}, memory_{memory}, keys_{keys}, count_{count} {}

  // Call this first. All CTAs of the cluster then synchronise once, and then call list().
  constexpr void prepare() const { clear(memory_); }

  // Calls write(place in the list, index of the key) for this CTA's part of the k largest of all
  // keys. There must be at least k keys, and k > 0.
  template <class Write>
  constexpr listed list(std::uint32_t k, Write&& write) {
    return list_above(find_threshold(k), write);
  }

 private:
  // Keys above `key` are kept, and the first `ties` of the keys that equal it.
  struct threshold {
    std::uint32_t key = 0;
    std::uint32_t ties = 0;
  };
  struct counts {
    std::uint32_t larger;
    std::uint32_t equal;
  };

  constexpr counts* warp_counts() const { return reinterpret_cast<counts*>(memory_ + 2 * bins); }
  constexpr counts* own_counts() const { return warp_counts() + Threads / 32; }
  constexpr std::uint32_t* found() const { return memory_ + 2 * bins + 2 * (Threads / 32) + 2; }
  constexpr std::uint32_t warp() const { return lane_.thread() / 32; }
  constexpr std::uint32_t lane_id() const { return lane_.thread() % 32; }

  // Finds the k-th largest key, digit by digit from the top. The other CTAs of a cluster add their
  // counts to those of the first, which finds the bin. A pass counts into the array that the pass
  // before did not use. That pass has cleared it, so it holds zeros when the first count comes.
  constexpr threshold find_threshold(std::uint32_t k) {
    threshold t{0, k};
    std::uint32_t known = 0;  // bits of the key that are settled
    for (std::uint32_t pass = 0; pass < 3; ++pass) {
      std::uint32_t* counted = memory_ + pass % 2 * bins;
      const std::uint32_t shift = pass == 0 ? 21 : pass == 1 ? 10 : 0;
      const std::uint32_t digit = pass == 2 ? 1023 : bins - 1;
      for (std::uint32_t p = lane_.thread(); p < count_; p += lane_.threads()) {
        const std::uint32_t key = keys_[p];
        if ((key & known) == t.key && key != 0) {
          lane_.count(counted + (key >> shift & digit));
        }
      }
      clear(memory_ + (pass + 1) % 2 * bins);
      if (lane_.cluster_rank() > 0) {
        add_to_first(counted);
      }
      lane_.sync_cluster();
      if (lane_.cluster_rank() == 0) {
        find_bin(counted, t.ties);
      }
      lane_.sync_cluster();
      const std::uint32_t* bin = lane_.of_rank(found(), 0);
      t.key |= bin[0] << shift;
      t.ties -= bin[1];
      known |= digit << shift;
    }
    return t;
  }
  constexpr void clear(std::uint32_t* counted) const {
    for (std::uint32_t b = lane_.thread(); b < bins; b += lane_.threads()) {
      counted[b] = 0;
    }
  }
  // Few bins have a count, because softmax values share their exponents.
  constexpr void add_to_first(std::uint32_t* counted) const {
    lane_.sync_block();
    for (std::uint32_t b = lane_.thread(); b < bins; b += lane_.threads()) {
      if (counted[b] > 0) {
        lane_.add_shared(lane_.of_rank(counted + b, 0), counted[b]);
      }
    }
  }

  // Writes the highest bin with `wanted` or more keys in and above it to found()[0], and the number
  // of keys above it to found()[1]. A thread takes neighbouring bins. Shuffles sum the bins of a
  // warp; each thread sums the warps.
  constexpr void find_bin(const std::uint32_t* counted, std::uint32_t wanted) {
    constexpr std::uint32_t each = bins / Threads;
    const std::uint32_t high = bins - 1 - lane_.thread() * each;  // this thread's highest
    std::uint32_t mine = 0;
    unrolled<each>([&](auto b) { mine += counted[high - b]; });
    std::uint32_t above = inclusive_sum(mine);
    if (lane_id() == 31) {
      warp_counts()[warp()].larger = above;
    }
    above -= mine;
    lane_.sync_block();
    for (std::uint32_t w = 0; w < warp(); ++w) {
      above += warp_counts()[w].larger;
    }
    unrolled<each>([&](auto b) {
      const std::uint32_t n = counted[high - b];
      if (above < wanted && wanted <= above + n) {
        found()[0] = high - b;
        found()[1] = above;
      }
      above += n;
    });
  }

  // Sum over this lane and those before it.
  constexpr std::uint32_t inclusive_sum(std::uint32_t x) const {
    for (const std::uint32_t distance : {1u, 2u, 4u, 8u, 16u}) {
      const std::uint32_t other =
          lane_.shuffle(x, lane_id() >= distance ? lane_id() - distance : lane_id());
      x += lane_id() >= distance ? other : 0;
    }
    return x;
  }

  // A warp goes twice through a stretch of keys, 32 at a time: it counts, then it writes.
  template <class Write>
  constexpr listed list_above(const threshold& t, Write&& write) {
    const std::uint32_t stretch = (count_ + lane_.threads() - 1) / lane_.threads() * 32;
    const std::uint32_t first = warp() * stretch;
    const std::uint32_t last = first + stretch < count_ ? first + stretch : count_;
    counts mine{0, 0};
    for (std::uint32_t p = first; p < last; p += 32) {
      const std::uint32_t key = p + lane_id() < last ? keys_[p + lane_id()] : 0;
      mine.larger += lane_.bits(lane_.ballot(key > t.key));
      mine.equal += lane_.bits(lane_.ballot(key == t.key));
    }
    if (lane_id() == 0) {
      warp_counts()[warp()] = mine;
    }
    lane_.sync_block();
    if (lane_.thread() == 0) {
      *own_counts() = sum_of_warps(lane_.threads() / 32);
    }
    lane_.sync_cluster();
    counts before{0, 0};
    unrolled<most_ctas>([&](auto r) {
      if (r < lane_.cluster_rank()) {
        const counts other = *lane_.of_rank(own_counts(), r);
        before.larger += other.larger;
        before.equal += other.equal;
      }
    });
    const auto place = [&](const counts& c) {
      return c.larger + (c.equal < t.ties ? c.equal : t.ties);
    };
    const counts own = *own_counts();
    const std::uint32_t begin = place(before);
    const std::uint32_t end = place({before.larger + own.larger, before.equal + own.equal});
    const counts warps = sum_of_warps(warp());
    counts at{before.larger + warps.larger, before.equal + warps.equal};
    const std::uint32_t lower = (1u << lane_id()) - 1;
    for (std::uint32_t p = first; p < last; p += 32) {
      const std::uint32_t key = p + lane_id() < last ? keys_[p + lane_id()] : 0;
      const std::uint32_t above = lane_.ballot(key > t.key);
      const std::uint32_t same = lane_.ballot(key == t.key);
      const counts here{at.larger + lane_.bits(above & lower), at.equal + lane_.bits(same & lower)};
      if (key > t.key || (key == t.key && here.equal < t.ties)) {
        write(place(here), p + lane_id());
      }
      at.larger += lane_.bits(above);
      at.equal += lane_.bits(same);
    }
    return {begin, end - begin};
  }

  constexpr counts sum_of_warps(std::uint32_t n) const {
    counts sum{0, 0};
    for (std::uint32_t w = 0; w < n; ++w) {
      sum.larger += warp_counts()[w].larger;
      sum.equal += warp_counts()[w].equal;
    }
    return sum;
  }

  Lane& lane_;
  std::uint32_t* memory_;
  const std::uint32_t* keys_;
  std::uint32_t count_;
};

}  // namespace instinfer::cuda
