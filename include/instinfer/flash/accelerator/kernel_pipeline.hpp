#pragma once
// The units behind the filters of all channels, as a pipeline in exact ticks: kernel buffer, GeMV,
// softmax and arg-top-k (InstInfer Fig. 8).

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "instinfer/flash/accelerator/accelerator_ticks.hpp"
#include "instinfer/flash/attend/attend_phase.hpp"
#include "instinfer/flash/attend/attend_work.hpp"
#include "instinfer/ssd/spec/timing.hpp"

namespace instinfer::flash {

struct load_release {
  std::int64_t at;
  std::uint32_t load;
};

// The rules.
// - The kernel buffer is a ring of page places. A filter asks for a place when it is free and has a
//   page. Places are given in the order of asking; at the same time the lower channel comes first,
//   and the DRAM of the group buffer last. The page passes the filter when it has its place.
// - The kernels take pages in the order of the ring. When the last page of a set is through, its
//   scores go to the softmax units, in the same order.
// - A place is free again when its page is through, with the scores that it completed, and all
//   places before it are free. So slow kernels or softmax units stall the filters, and these the
//   buses.
// - The next load of a head is released when arg-top-k has ranked the scores of the load before,
//   which needs all of them. It ranks in the order in which loads finish in the ring. A load with
//   nothing to rank keeps its order and takes no time. After a load without pages, arg-top-k
//   continues with the next load of the head. Meanwhile the drive works on other heads.
// - If only some heads are in work at once, the last load of one releases the first load of the
//   next head, in the same way.
// - A page of fused or latent rows takes one place. Its entries of K go through GeMV, then those
//   of V.
// Left out: a V page does not wait for the weights of its own tokens; their K comes before it in
// the plan.
//
// All orders are known when a place is given, so each page costs O(1) and no events.
//
// Units gives the time of each unit in ticks: gemv(FLOP), softmax(FLOP), top_k(elements) and their
// about(), as accelerator_ticks does.
template <class Units = accelerator_ticks>
class kernel_pipeline {
 public:
  // Precondition: places > 0. heads_at_once: in work at the same time; 0: all.
  kernel_pipeline(const Units& units, std::int32_t places, std::uint32_t group,
                  std::int32_t heads_at_once = 0)
      : units_{units},
        group_{group},
        heads_at_once_{static_cast<std::size_t>(heads_at_once)},
        free_at_(static_cast<std::size_t>(places)) {}

  // `work` must live until the end of the replay. Throws what work_ps throws for missing units.
  template <class Sink>
  void begin(const attend_work& work, Sink& sink) {
    work_ = &work;
    std::fill(free_at_.begin(), free_at_.end(), 0);
    next_place_ = 0;
    gemv_free_ = softmax_free_ = top_k_free_ = place_free_ = end_ = 0;
    steps_.fill(0);
    top_k_busy_ = 0;
    phases_.clear();
    releases_.clear();
    next_release_ = 0;
    sets_left_.resize(work.sets.size());
    for (std::size_t i = 0; i < work.sets.size(); ++i) {
      sets_left_[i] = work.sets[i].pages;
    }
    loads_.resize(work.loads.size());
    for (std::uint32_t i = 0; i < loads_.size(); ++i) {
      const head_load& load = work.loads[i];
      loads_[i] = {.sets_left = load.sets, .ready = 0};
      if (load.phase >= phases_.size()) {
        phases_.push_back({.op = load.op, .begin = never_ticks});
      }
    }
    first_loads_.clear();
    for (std::uint32_t i = 0; i < loads_.size(); ++i) {
      if (work.loads[i].phase == 0) {
        first_loads_.push_back(i);
      }
    }
    const std::size_t heads = first_loads_.size();
    next_head_ = heads_at_once_ == 0 ? heads : std::min(heads, heads_at_once_);
    for (std::size_t head = 0, at_once = next_head_; head < at_once; ++head) {
      rank(first_loads_[head], 0, sink);
    }
  }

  // At least the ticks of all work one after the other. elements: of all pages.
  double longest(const attend_work& work, double elements) const {
    double scores = 0;
    double ranked = 0;
    for (const score_set& set : work.sets) {
      scores += set.scores;
    }
    for (const head_load& load : work.loads) {
      ranked += static_cast<double>(load.ranked_elements);
    }
    return units_.gemv.about(2 * elements * group_) +
           units_.softmax.about(scores * softmax_flops_per_score) + units_.top_k.about(ranked);
  }

  // The next load to be released, or nullptr.
  const load_release* next_release() const {
    return next_release_ == releases_.size() ? nullptr : &releases_[next_release_];
  }
  void take_release() { ++next_release_; }
  // Lower bound for releases that are not known yet: their last page passes GeMV and is then
  // ranked.
  std::int64_t no_new_release_before() const { return std::max(gemv_free_, top_k_free_); }
  // Whether no further release can come.
  bool all_released() const { return next_release_ == loads_.size(); }

  // The time at which a place is given that a filter asked for at `asked`. Precondition: calls come
  // in the order of asking.
  std::int64_t place_given(std::int64_t asked) const {
    return std::max(asked, free_at_[next_place_]);
  }
  // The page of task `i` is in the place given last, complete at `filled`. Returns its phase.
  template <class Sink>
  std::uint32_t put(std::size_t i, std::int64_t filled, Sink& sink) {
    const page_task& task = work_->pages[i];
    const score_set& set = work_->sets[task.set];
    const std::uint32_t phase_number = work_->loads[set.load].phase;
    phase_ticks& phase = phases_[phase_number];
    gemv_free_ = std::max(gemv_free_, filled);
    multiply(task.in_step(), set.step, i, phase, sink);
    if (task.values > 0) {
      multiply(task.values, kernel_step::attend, i, phase, sink);
    }
    place_free_ = std::max(place_free_, gemv_free_);
    phase.pages += task.page != no_page ? 1 : 0;
    if (--sets_left_[task.set] == 0) {
      end_set(set, sink);
    }
    free_at_[next_place_] = place_free_;
    next_place_ = next_place_ + 1 == free_at_.size() ? 0 : next_place_ + 1;
    return phase_number;
  }

  std::int64_t end() const { return end_; }
  std::span<const load_release> releases() const { return releases_; }
  // Flash and filter times are 0.
  std::span<const phase_ticks> phases() const { return phases_; }
  std::int64_t busy(kernel_step step) const { return steps_[static_cast<std::size_t>(step)]; }
  std::int64_t top_k_busy() const { return top_k_busy_; }

 private:
  // GeMV of `elements` of page i.
  template <class Sink>
  void multiply(std::uint32_t elements, kernel_step step, std::size_t i, phase_ticks& phase,
                Sink& sink) {
    const std::int64_t ticks = units_.gemv(2 * std::int64_t{elements} * group_);
    const std::int64_t begin = gemv_free_;
    gemv_free_ += ticks;
    sink.gemv(step, i, begin, gemv_free_);
    phase.gemv += ticks;
    steps_[static_cast<std::size_t>(step)] += ticks;
  }

  struct load_state {
    std::uint32_t sets_left = 0;
    std::int64_t ready = 0;  // of the sets that are done
  };

  phase_ticks& phase_of(std::uint32_t load) { return phases_[work_->loads[load].phase]; }

  template <class Sink>
  void end_set(const score_set& set, Sink& sink) {
    std::int64_t done = gemv_free_;
    if (set.scores > 0) {
      const std::int64_t begin = std::max(softmax_free_, gemv_free_);
      const std::int64_t ticks = units_.softmax(std::int64_t{set.scores} * softmax_flops_per_score);
      softmax_free_ = done = begin + ticks;
      sink.softmax(set, begin, done);
      place_free_ = std::max(place_free_, done);
      phase_of(set.load).softmax += ticks;
      steps_[static_cast<std::size_t>(set.step)] += ticks;
    }
    load_state& load = loads_[set.load];
    load.ready = std::max(load.ready, done);
    if (--load.sets_left == 0) {
      finish(set.load, load.ready, sink);
    }
  }

  template <class Sink>
  void finish(std::uint32_t load, std::int64_t ready, Sink& sink) {
    end_ = std::max(end_, ready);
    phase_of(load).end = std::max(phase_of(load).end, ready);
    if (next_of(load)) {
      rank(load, ready, sink);
    }
  }

  // Whether a load follows: of the same head, or of the next one. Then `load` is that one.
  bool next_of(std::uint32_t& load) {
    if (work_->has_next(load)) {
      ++load;
      return true;
    }
    if (next_head_ == first_loads_.size()) {
      return false;
    }
    load = first_loads_[next_head_++];
    return true;
  }

  template <class Sink>
  void rank(std::uint32_t load, std::int64_t ready, Sink& sink) {
    std::int64_t begin = std::max(top_k_free_, ready);
    for (bool more = true; more;) {
      const std::int64_t ticks =
          units_.top_k(static_cast<std::int64_t>(work_->loads[load].ranked_elements));
      top_k_free_ = begin + ticks;
      if (ticks > 0) {
        sink.top_k(load, begin, top_k_free_);
      }
      begin = top_k_free_;
      top_k_busy_ += ticks;
      phase_ticks& phase = phase_of(load);
      phase.top_k += ticks;
      phase.begin = std::min(phase.begin, top_k_free_);
      releases_.push_back({top_k_free_, load});
      more = work_->loads[load].sets == 0;
      if (more) {
        end_ = std::max(end_, top_k_free_);
        phase.end = std::max(phase.end, top_k_free_);
        more = next_of(load);
      }
    }
  }

  Units units_;
  std::uint32_t group_;
  std::size_t heads_at_once_;
  const attend_work* work_ = nullptr;
  std::vector<std::uint32_t> first_loads_;  // [heads]
  std::size_t next_head_ = 0;               // that is not in work yet
  std::vector<std::int64_t> free_at_;       // [places]
  std::size_t next_place_ = 0;
  std::int64_t gemv_free_ = 0;
  std::int64_t softmax_free_ = 0;
  std::int64_t top_k_free_ = 0;
  std::int64_t place_free_ = 0;  // of the place before the next one
  std::int64_t end_ = 0;
  std::array<std::int64_t, 3> steps_{};  // busy, by kernel_step
  std::int64_t top_k_busy_ = 0;
  std::vector<phase_ticks> phases_;
  std::vector<load_release> releases_;
  std::size_t next_release_ = 0;
  std::vector<std::uint32_t> sets_left_;
  std::vector<load_state> loads_;
};

}  // namespace instinfer::flash
