#pragma once
// A batch of requests on its way: which drive gets which, and where the results go. It keeps its
// memory.

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "instinfer/cluster/calls.hpp"
#include "instinfer/cluster/placement.hpp"
#include "instinfer/cluster/slices.hpp"
#include "instinfer/engine/attend_check.hpp"

namespace instinfer::cluster {

// Base is the engine whose rules a request must keep.
template <class Base, class S>
class posted_batch {
  using format = typename Base::format;
  using policy = typename Base::policy;
  static constexpr auto k_dim = static_cast<std::size_t>(format::k_dim);
  static constexpr auto v_dim = static_cast<std::size_t>(format::v_dim);

 public:
  bool pending() const { return pending_; }

  // Sends each drive the requests for which it has tokens, in one message. Before, throws all that
  // one engine would throw, so that no drive learns from a batch that another refuses.
  template <class Drive>
  void post(const placement<S>& placed, int layer, std::span<const attend_request> batch,
            calls<Drive>& to) {
    check(placed, layer, batch);
    batch_.assign(batch.begin(), batch.end());
    requests_.resize(placed.parts().size());
    for (std::vector<std::uint32_t>& list : requests_) {
      list.clear();
    }
    for (std::uint32_t r = 0; r < batch.size(); ++r) {
      const layer_tokens& tokens = placed.layer(batch[r].seq, layer);
      placed.for_each_holder(batch[r].seq.slot, [&](const drive_part& part) {
        if (!S::splits_tokens ||
            placed.tokens_of(part, tokens.positions) > placed.tokens_of(part, tokens.first)) {
          list_of(part).push_back(r);
        }
      });
    }
    for (const drive_part& part : placed.parts()) {
      const std::vector<std::uint32_t>& list = list_of(part);
      if (!list.empty()) {
        message& m =
            to.command_to(part.drive, {.what = operation::attend,
                                       .layer = layer,
                                       .requests = static_cast<std::uint32_t>(list.size())});
        for (const std::uint32_t r : list) {
          put_request(m, batch[r], query_heads::of(part), k_dim,
                      placed.layer(batch[r].seq, layer).positions);
        }
      }
    }
    to.send();
    pending_ = true;
  }

  // Waits for all drives, and then writes the outputs. If a drive failed, throws its exception and
  // writes none.
  template <class Drive>
  receipt wait(const placement<S>& placed, calls<Drive>& from) {
    pending_ = false;
    const receipt done = from.collect(false);
    sums_.resize(std::max(sums_.size(), batch_.size()));
    for (std::size_t r = 0; S::splits_tokens && r < batch_.size(); ++r) {
      clear_results(batch_[r].out, sums_of(r));
    }
    for (const int d : from.asked()) {
      const drive_part& part = placed.parts()[static_cast<std::size_t>(d)];
      for (const std::uint32_t r : list_of(part)) {
        take_results<S::splits_tokens>(from.results_of(d), query_heads::of(part), v_dim,
                                       batch_[r].out, sums_of(r));
      }
    }
    return done;
  }

 private:
  std::vector<std::uint32_t>& list_of(const drive_part& part) {
    return requests_[static_cast<std::size_t>(part.drive)];
  }

  void check(const placement<S>& placed, int layer, std::span<const attend_request> batch) {
    if constexpr (attention::learns<typename Base::summaries>) {
      require_distinct(batch, distinct_);
    }
    for (const attend_request& r : batch) {
      const layer_tokens& of = placed.layer(r.seq, layer);
      require(r.bias.empty() && r.visible == nullptr,
              [] { return std::string("attend: a cluster takes no bias and no visible set"); });
      check_request<policy, format>(r, placed.shape(),
                                    static_cast<std::uint32_t>(of.positions - of.first));
    }
  }

  // Where a request's log-sum-exp goes: to the caller, or to scratch if drives are merged by it.
  std::span<float> sums_of(std::size_t r) {
    const attend_request& of = batch_[r];
    if (!S::splits_tokens || !of.log_sum_exp.empty()) {
      return of.log_sum_exp;
    }
    resize_scratch(sums_[r], of.out.size() / v_dim);
    return sums_[r];
  }

  bool pending_ = false;
  std::vector<attend_request> batch_;
  std::vector<std::vector<std::uint32_t>> requests_;  // of each drive
  std::vector<std::vector<float>> sums_;              // of each request
  std::vector<std::uint32_t> distinct_;
};

}  // namespace instinfer::cluster
