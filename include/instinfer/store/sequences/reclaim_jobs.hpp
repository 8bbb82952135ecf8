#pragma once
// The host's list of jobs with an outdated flag, and the order in which jobs are reclaimed when
// pages are short or the drive is idle (InstInfer §IV-C).
// The caller passes the time; no function here reads a clock.
//
//   least_recently_used   the job with the oldest use first (the paper's order)

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "instinfer/core/errors.hpp"
#include "instinfer/core/page_key.hpp"

namespace instinfer::store {

// Times may have any unit and any start.
struct reclaim_job {
  sequence seq;
  double last_use = 0;
  bool outdated = false;  // the host has ended the job; only outdated jobs are reclaimed
};

// A strict weak order of jobs: before(a, b) if a must be reclaimed first. Ties go to the lower
// slot.
template <class V>
concept VictimOrder =
    std::copyable<V> && requires(const V& v, const reclaim_job& a, const reclaim_job& b) {
      { v.before(a, b) } -> std::same_as<bool>;
    };

struct least_recently_used {
  constexpr bool before(const reclaim_job& a, const reclaim_job& b) const {
    return a.last_use < b.last_use;
  }
};

struct reclaim_rules {
  std::uint64_t low_pages = 0;  // with fewer free pages, jobs are reclaimed at once
  // When idle, jobs unused for this time are reclaimed.
  double idle_age = std::numeric_limits<double>::infinity();
};

// Copies are independent. The search is linear: it is made for a few hundred jobs. Cache is a
// kv_cache or an engine.
template <class Order = least_recently_used>
class reclaim_jobs {
  static_assert(
      VictimOrder<Order>,
      "instinfer: a victim order lacks before(job, job) -> bool, see store/sequences/reclaim_jobs.hpp");

 public:
  explicit reclaim_jobs(const reclaim_rules& rules = {}, const Order& order = {})
      : rules_{rules}, order_{order} {}

  // Records that the sequence was opened, appended to or attended. Throws bad_argument if its job
  // is outdated or the time is not a number.
  void used(sequence seq, double now) {
    require(!std::isnan(now),
            [] { return std::string("reclaim jobs: the time must be a number"); });
    reclaim_job* job = find(seq);
    if (job == nullptr) {
      jobs_.push_back({seq, now});
      return;
    }
    require(!job->outdated,
            [&] { return name(seq) + " is outdated: it may be reclaimed at any time"; });
    job->last_use = std::max(job->last_use, now);
  }

  // Marks the job as outdated. Throws unknown_sequence if it was never used here.
  void outdated(sequence seq) { known(seq).outdated = true; }

  // Removes a sequence that was reclaimed elsewhere. No effect if it is not listed.
  void forget(sequence seq) {
    std::erase_if(jobs_, [&](const reclaim_job& job) { return job.seq == seq; });
  }

  // The outdated job to reclaim first; none if no job is outdated.
  std::optional<sequence> victim() const {
    const reclaim_job* best = first([](const reclaim_job&) { return true; });
    return best == nullptr ? std::nullopt : std::optional(best->seq);
  }

  // Reclaims one outdated job. Throws unknown_sequence, and bad_argument for a live job.
  template <class Cache>
  void reclaim(Cache& cache, sequence seq) {
    require(known(seq).outdated, [&] {
      return name(seq) + " is live: its job must be outdated before it is reclaimed";
    });
    cache.reclaim(seq);
    forget(seq);
  }

  // By threshold: reclaims outdated jobs while the cache has fewer free pages than `wanted` or than
  // the threshold of the rules. Returns the number of reclaimed jobs; check free_pages() for
  // success.
  template <class Cache>
  std::size_t reclaim_for_space(Cache& cache, std::uint64_t wanted = 0) {
    std::size_t count = 0;
    while (free_pages(cache) < std::max(wanted, rules_.low_pages)) {
      const std::optional<sequence> seq = victim();
      if (!seq) {
        break;
      }
      reclaim(cache, *seq);
      ++count;
    }
    return count;
  }

  // When idle: reclaims outdated jobs that were unused for idle_age, at most `most`. Returns the
  // number of reclaimed jobs.
  template <class Cache>
  std::size_t reclaim_when_idle(Cache& cache, double now,
                                std::size_t most = std::numeric_limits<std::size_t>::max()) {
    for (std::size_t count = 0; count < most; ++count) {
      const reclaim_job* job =
          first([&](const reclaim_job& j) { return now - j.last_use >= rules_.idle_age; });
      if (job == nullptr) {
        return count;
      }
      reclaim(cache, sequence{job->seq});
    }
    return most;
  }

  std::size_t size() const { return jobs_.size(); }

 private:
  template <class Cache>
  static std::uint64_t free_pages(const Cache& cache) {
    if constexpr (requires { cache.cache(); }) {
      return cache.cache().pages().free_pages();
    } else {
      return cache.pages().free_pages();
    }
  }

  static std::string name(sequence seq) {
    return "reclaim jobs: sequence " + std::to_string(seq.slot) + " (generation " +
           std::to_string(seq.generation) + ")";
  }

  reclaim_job* find(sequence seq) {
    const auto at = std::ranges::find(jobs_, seq, &reclaim_job::seq);
    return at == jobs_.end() ? nullptr : &*at;
  }
  reclaim_job& known(sequence seq) {
    reclaim_job* job = find(seq);
    require<unknown_sequence>(job != nullptr,
                              [&] { return name(seq) + " was never used, or is gone"; });
    return *job;
  }

  template <class May>
  const reclaim_job* first(May&& may) const {
    const reclaim_job* best = nullptr;
    for (const reclaim_job& job : jobs_) {
      if (job.outdated && may(job) &&
          (best == nullptr || order_.before(job, *best) ||
           (!order_.before(*best, job) && job.seq.slot < best->seq.slot))) {
        best = &job;
      }
    }
    return best;
  }

  reclaim_rules rules_;
  Order order_;
  std::vector<reclaim_job> jobs_;
};

}  // namespace instinfer::store
