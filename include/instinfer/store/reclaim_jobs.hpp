#pragma once
// The host's list of jobs with an outdated flag, and which of them is reclaimed first when room is short or the drive is
// idle (InstInfer §IV-C). The caller gives the time; nothing here looks at a clock.
//
//   least_recently_used   the job that was touched longest ago (the paper's)

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "instinfer/core/errors.hpp"
#include "instinfer/core/page_key.hpp"

namespace instinfer::store {

// Times count in any unit, from any start.
struct reclaim_job {
  sequence seq;
  double last_use = 0;
  bool outdated = false;  // the host has said that the job is over: only then may it go
};

// A strict weak order of jobs: before(a, b) where a is to go first. Ties go to the lower slot.
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
  std::uint64_t low_pages = 0;  // threshold: with fewer free pages, jobs go at once
  double idle_age =
      std::numeric_limits<double>::infinity();  // in idle time, those unused for so long
};

// A value: copies are independent. A few hundred jobs are searched one by one. Cache is a kv_cache, or an engine.
template <class Order = least_recently_used>
class reclaim_jobs {
  static_assert(
      VictimOrder<Order>,
      "instinfer: a victim order lacks before(job, job) -> bool, see store/reclaim_jobs.hpp");

 public:
  explicit reclaim_jobs(const reclaim_rules& rules = {}, const Order& order = {})
      : rules_{rules}, order_{order} {}

  // The sequence was opened, appended to or attended. Throws bad_argument if its job is over, or the time is not a number.
  void used(sequence seq, double now) {
    require(now == now, [] { return std::string("reclaim jobs: the time must be a number"); });
    reclaim_job* job = find(seq);
    if (job == nullptr) {
      jobs_.push_back({seq, now});
      return;
    }
    require(!job->outdated,
            [&] { return name(seq) + " is outdated: it may be reclaimed at any time"; });
    job->last_use = std::max(job->last_use, now);
  }

  // The job is over, as of its last use. Throws unknown_sequence if it was never used here.
  void outdated(sequence seq) { known(seq).outdated = true; }

  // The sequence was reclaimed otherwise; nothing happens if it is not listed.
  void forget(sequence seq) {
    std::erase_if(jobs_, [&](const reclaim_job& job) { return job.seq == seq; });
  }

  // Which outdated job goes first; none if there is none.
  std::optional<sequence> victim() const {
    const reclaim_job* best = first([](const reclaim_job&) { return true; });
    return best == nullptr ? std::nullopt : std::optional(best->seq);
  }

  // Reclaims one job, which must be outdated. Throws unknown_sequence, and bad_argument for a live one.
  template <class Cache>
  void reclaim(Cache& cache, sequence seq) {
    require(known(seq).outdated, [&] {
      return name(seq) + " is live: its job must be outdated before it is reclaimed";
    });
    cache.reclaim(seq);
    forget(seq);
  }

  // Threshold: reclaims outdated jobs while the cache has fewer free pages than `wanted`, or than the rules' threshold.
  // Returns how many; whether it was enough, free_pages() tells.
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

  // Idle time: reclaims outdated jobs that nobody has used for idle_age, at most `most`. Returns how many.
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
