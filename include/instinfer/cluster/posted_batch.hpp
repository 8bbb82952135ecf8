#pragma once
// A batch of requests on its way: which drive gets which, and where the results go. It keeps its
// memory.

#include <algorithm>
#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <vector>

#include "instinfer/cluster/calls.hpp"
#include "instinfer/cluster/merge_tree.hpp"
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
  using tree = merge_tree<format::v_dim>;

  // Collective. Where tokens are split, drives that have the same heads merge their results.
  template <class Drive>
  void connect(const placement<S>& placed, const calls<Drive>& all) {
    for (const drive_part& part : placed.parts()) {
      if (S::splits_tokens && group_of(part) == groups_.size()) {
        const bool member = all.is_drive() && placed.parts()[all.own_index()].heads == part.heads;
        groups_.push_back({.part = part, .rows = {}});
        trees_.emplace_back(all.ranks(), member);
      }
    }
  }
  // On a drive that is not the host: gives its results of an attend away.
  void give(const drive_part& part, std::span<float> rows) { trees_[group_of(part)].merge(rows); }

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
    first_query_.clear();
    queries_ = 0;
    for (std::uint32_t r = 0; r < batch.size(); ++r) {
      first_query_.push_back(queries_);
      queries_ += queries_of<format>(batch[r], placed.shape());
      const layer_tokens& tokens = placed.layer(batch[r].seq, layer);
      placed.for_each_holder(batch[r].seq.slot, [&](const drive_part& part) {
        if (!S::splits_tokens || live(placed, part, tokens).size() > 0) {
          list_of(part).push_back(r);
        }
      });
    }
    for (const drive_part& part : placed.parts()) {
      const std::vector<std::uint32_t>& list = list_of(part);
      if (!list.empty() || S::splits_tokens) {  // all merge
        message& m = to.command_to(part.drive, {.what = operation::attend,
                                                .layer = layer,
                                                .requests = static_cast<std::uint32_t>(list.size()),
                                                .queries = queries_});
        for (const std::uint32_t r : list) {
          put_request(m, batch[r], first_query_[r], query_heads::of(part), k_dim,
                      live(placed, part, placed.layer(batch[r].seq, layer)));
        }
      }
    }
    to.send();
    pending_ = true;
  }

  // Waits for all drives, and then writes the outputs. If a drive failed, throws its exception and
  // writes none.
  template <class Drive>
  receipt wait(calls<Drive>& from, const placement<S>& placed) {
    drop(from, placed);
    const receipt done = from.settle(false);
    for (group& g : groups_) {
      const query_heads heads = query_heads::of(g.part);
      for (std::size_t r = 0; r < batch_.size(); ++r) {
        take_rows(g.merged.subspan(first_query_[r] * heads.heads * tree::row), heads, v_dim,
                  batch_[r].out, batch_[r].log_sum_exp);
      }
    }
    for (const int d : from.asked()) {
      const drive_part& part = placed.parts()[static_cast<std::size_t>(d)];
      for (std::size_t i = 0; !S::splits_tokens && i < list_of(part).size(); ++i) {
        const attend_request& r = batch_[list_of(part)[i]];
        take_results(from.results_of(d), query_heads::of(part), v_dim, r.out, r.log_sum_exp);
      }
    }
    return done;
  }

  // The same, but writes no output.
  template <class Drive>
  void drop(calls<Drive>& from, const placement<S>& placed) {
    pending_ = false;
    from.take_outcomes();
    merge(from, placed);
  }

 private:
  // Drives that have the same heads, and their results [queries of the batch, heads, tree::row].
  struct group {
    drive_part part;  // of one of them
    std::vector<float> rows;
    std::span<float> merged{};
  };

  std::size_t group_of(const drive_part& part) const {
    const auto same = [&](const group& g) { return g.part.heads == part.heads; };
    return static_cast<std::size_t>(std::find_if(groups_.begin(), groups_.end(), same) -
                                    groups_.begin());
  }
  std::vector<std::uint32_t>& list_of(const drive_part& part) {
    return requests_[static_cast<std::size_t>(part.drive)];
  }
  static token_slice<S> live(const placement<S>& placed, const drive_part& part,
                             const layer_tokens& of) {
    return {placed.split(), part, of.first, of.positions - of.first};
  }

  // All drives take part, also those that failed. A host that is a drive has rows of its own.
  template <class Drive>
  void merge(calls<Drive>& from, const placement<S>& placed) {
    for (std::size_t i = 0; i < groups_.size(); ++i) {
      group& g = groups_[i];
      const std::size_t values = queries_ * query_heads::of(g.part).heads * tree::row;
      if (from.is_drive() && group_of(placed.parts()[from.own_index()]) == i) {
        g.merged = from.own()->rows();
      } else {
        resize_scratch(g.rows, values);
        tree::clear(g.merged = g.rows);
      }
      trees_[i].merge(g.merged);
    }
    for (const int d : from.asked()) {
      const drive_part& part = placed.parts()[static_cast<std::size_t>(d)];
      if (S::splits_tokens) {
        from.add_results(d, groups_[group_of(part)].merged.size_bytes());
      }
    }
  }

  void check(const placement<S>& placed, int layer, std::span<const attend_request> batch) {
    if constexpr (attention::learns<typename Base::summaries>) {
      require_distinct(batch, distinct_);
    }
    for (const attend_request& r : batch) {
      const layer_tokens& of = placed.layer(r.seq, layer);
      require(r.visible == nullptr || of.positions >> 32 == 0, [] {
        return std::string("attend: a cluster takes visible sets up to position 2^32");
      });
      check_request<policy, format>(r, placed.shape(),
                                    static_cast<std::uint32_t>(of.positions - of.first));
    }
  }

  std::vector<group> groups_;
  std::deque<tree> trees_;  // of each group
  bool pending_ = false;
  std::vector<attend_request> batch_;
  std::vector<std::uint64_t> first_query_;  // of each request
  std::uint64_t queries_ = 0;
  std::vector<std::vector<std::uint32_t>> requests_;  // of each drive
  std::vector<std::uint32_t> distinct_;
};

}  // namespace instinfer::cluster
