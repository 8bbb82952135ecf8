#pragma once
// How a cache is split over drives: by query group, by sequence, or by token.
//
//   by_heads                 each drive has some KV heads of all sequences (the paper's, §IV-D)
//   by_sequences             each drive has whole sequences
//   by_tokens                each drive has some tokens of all sequences (context parallel)
//   by_heads_and_sequences   some drives share the sequences, with some heads of each
//   by_heads_and_tokens      some drives share the tokens of some heads
//
// docs/cluster.md says which to use when. The policies are of integers alone and need no MPI.

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <string>
#include <vector>

#include "instinfer/attention/concepts.hpp"
#include "instinfer/core/errors.hpp"
#include "instinfer/core/logit_rule.hpp"
#include "instinfer/core/shape.hpp"

namespace instinfer::cluster {

// KV heads [first, last).
struct head_range {
  int first = 0;
  int last = 0;
  constexpr int size() const { return last - first; }
  friend constexpr bool operator==(const head_range&, const head_range&) = default;
};

// A split answers three questions for drive d of n. Each pair of a head and a token of a sequence
// has exactly one drive. An answer depends on nothing but the arguments.
//   heads(shape, d, n)      the KV heads of the drive, at least one
//   holds(home, d, n)       whether the drive has the sequence; its home is the slot that it was
//                           opened in, or the home of the sequence that it was forked from
//   tokens_of(count, d, n)  how many of a sequence's first `count` tokens the drive has; never
//                           decreases with the count
//   splits_tokens           whether a head's tokens lie on several drives, whose results merge;
//                           two drives have then the same heads, or none in common
//   name()                  tells splits apart that place tokens differently
//   validate(shape, n)      throws bad_argument if n drives cannot share the model
template <class S>
concept Split = std::semiregular<S> && requires(const S& s, const model_shape& shape, int d, int n,
                                                std::uint32_t home, std::uint64_t count) {
  { S::splits_tokens } -> std::convertible_to<bool>;
  { s.heads(shape, d, n) } -> std::same_as<head_range>;
  { s.holds(home, d, n) } -> std::same_as<bool>;
  { s.tokens_of(count, d, n) } -> std::same_as<std::uint64_t>;
  { s.name() } -> std::convertible_to<std::string>;
  s.validate(shape, n);
};

// Drive d has the KV heads [d H / n, (d + 1) H / n), so the counts of two drives differ by one at
// most: 7 heads on 4 drives are 1, 2, 2 and 2. Each result has the bits of one engine.
struct by_heads {
  static constexpr bool splits_tokens = false;

  head_range heads(const model_shape& shape, int drive, int drives) const {
    return {drive * shape.kv_heads / drives, (drive + 1) * shape.kv_heads / drives};
  }
  bool holds(std::uint32_t, int, int) const { return true; }
  std::uint64_t tokens_of(std::uint64_t count, int, int) const { return count; }
  std::string name() const { return "by_heads"; }
  void validate(const model_shape& shape, int drives) const {
    require(drives <= shape.kv_heads, [&] {
      return "by_heads: every drive needs a KV head, got " + std::to_string(drives) +
             " drives for " + std::to_string(shape.kv_heads) + " heads";
    });
  }
};

// A sequence is on drive home mod n. A new sequence takes the lowest free slot, and a fork stays
// where its pages are. Each result has the bits of one engine.
struct by_sequences {
  static constexpr bool splits_tokens = false;

  head_range heads(const model_shape& shape, int, int) const { return {0, shape.kv_heads}; }
  bool holds(std::uint32_t home, int drive, int drives) const {
    return home % static_cast<std::uint32_t>(drives) == static_cast<std::uint32_t>(drive);
  }
  std::uint64_t tokens_of(std::uint64_t count, int, int) const { return count; }
  std::string name() const { return "by_sequences"; }
  void validate(const model_shape&, int) const {}
};

// Blocks of `block` tokens go to the drives in turn: token t is on drive t / block mod n. Outputs
// merge by their log-sum-exp, and differ from those of one engine by rounding.
struct by_tokens {
  static constexpr bool splits_tokens = true;
  std::uint32_t block = 256;

  head_range heads(const model_shape& shape, int, int) const { return {0, shape.kv_heads}; }
  bool holds(std::uint32_t, int, int) const { return true; }
  std::uint64_t tokens_of(std::uint64_t count, int drive, int drives) const {
    const std::uint64_t round = std::uint64_t{block} * static_cast<std::uint64_t>(drives);
    const std::uint64_t before = std::uint64_t{block} * static_cast<std::uint64_t>(drive);
    const std::uint64_t rest = count % round;
    return count / round * block + std::min<std::uint64_t>(block, rest - std::min(rest, before));
  }
  std::string name() const { return "by_tokens, blocks of " + std::to_string(block); }
  void validate(const model_shape&, int) const {
    require(block > 0, [] { return std::string("by_tokens: block must be positive, got 0"); });
  }
};

// Throws bad_argument unless `head_groups` groups of as many drives can share the KV heads.
inline void check_head_groups(const char* split, int head_groups, const model_shape& shape,
                              int drives) {
  require(head_groups > 0 && drives % head_groups == 0, [&] {
    return std::string(split) + ": head_groups must divide the drives, got " +
           std::to_string(head_groups) + " groups of " + std::to_string(drives) + " drives";
  });
  by_heads{}.validate(shape, head_groups);
}

// `head_groups` groups of drives share the KV heads as by_heads, and the drives of a group the
// sequences as by_sequences: drive d of n is number d mod (n / head_groups) of its group. Each
// result has the bits of one engine.
struct by_heads_and_sequences {
  static constexpr bool splits_tokens = false;
  int head_groups = 1;

  head_range heads(const model_shape& shape, int drive, int drives) const {
    return by_heads{}.heads(shape, drive / (drives / head_groups), head_groups);
  }
  bool holds(std::uint32_t home, int drive, int drives) const {
    const int group = drives / head_groups;
    return by_sequences{}.holds(home, drive % group, group);
  }
  std::uint64_t tokens_of(std::uint64_t count, int, int) const { return count; }
  std::string name() const {
    return "by_heads_and_sequences, " + std::to_string(head_groups) + " groups";
  }
  void validate(const model_shape& shape, int drives) const {
    check_head_groups("by_heads_and_sequences", head_groups, shape, drives);
  }
};

// `head_groups` groups of drives share the KV heads as by_heads, and the drives of a group the
// tokens as by_tokens: drive d of n is number d mod (n / head_groups) of its group.
struct by_heads_and_tokens {
  static constexpr bool splits_tokens = true;
  int head_groups = 1;
  std::uint32_t block = 256;

  head_range heads(const model_shape& shape, int drive, int drives) const {
    return by_heads{}.heads(shape, drive / (drives / head_groups), head_groups);
  }
  bool holds(std::uint32_t, int, int) const { return true; }
  std::uint64_t tokens_of(std::uint64_t count, int drive, int drives) const {
    const int group = drives / head_groups;
    return by_tokens{block}.tokens_of(count, drive % group, group);
  }
  std::string name() const {
    return "by_heads_and_tokens, " + std::to_string(head_groups) + " groups, blocks of " +
           std::to_string(block);
  }
  void validate(const model_shape& shape, int drives) const {
    check_head_groups("by_heads_and_tokens", head_groups, shape, drives);
    by_tokens{block}.validate(shape, drives);
  }
};

// Refuses at compile time what a split cannot answer as one engine does.
template <class S, class Policy>
struct split_rules {
  static_assert(
      Split<S>,
      "instinfer: a split lacks heads, holds, tokens_of, splits_tokens, name or validate, see cluster/splits.hpp");
  static_assert(
      !requires { requires S::splits_tokens; } || attention::folds_all_visible<Policy>,
      "instinfer: splits by tokens merge results over parts of a context, but this method selects tokens by the whole context; use by_heads or by_sequences, see cluster/splits.hpp");
  // Throws bad_argument where a rule needs a token's place in the whole context.
  static void check(const logit_rule& logits) {
    if constexpr (S::splits_tokens) {
      require(logits.window == 0 && !logits.biased() && logits.sink_logits.empty(), [] {
        return std::string(
            "cluster: where tokens are split, a drive does not know the distances of its tokens; logit_rule must have no window, slopes, distance_bias and sink_logits");
      });
    }
  }
};

// The part of a model that one drive has: what its engine is made of.
struct drive_part {
  int drive = 0;
  int drives = 1;
  head_range heads;   // KV heads of the whole model
  model_shape shape;  // of the drive's engine
  model_shape whole;  // of the model

  // The rule for this drive's query heads. Its arrays are parts of the given ones, but for sink
  // logits of several layers, which are copied to `kept`.
  logit_rule logits(const logit_rule& rule, std::vector<float>& kept) const {
    const auto all = static_cast<std::size_t>(whole.q_heads);
    const auto mine = static_cast<std::size_t>(shape.q_heads);
    const auto first = static_cast<std::size_t>(heads.first * whole.group());
    rule.validate_arrays(static_cast<std::size_t>(whole.layers), all);
    const auto cut = [&](std::span<const float> values) {
      const std::size_t row = values.size() / all;
      return values.subspan(first * row, mine * row);
    };
    logit_rule part = rule;
    part.slopes = cut(rule.slopes);
    part.distance_bias = cut(rule.distance_bias);
    if (rule.sink_logits.size() > all) {
      kept.clear();
      for (std::size_t at = first; at < rule.sink_logits.size(); at += all) {
        const auto row = rule.sink_logits.subspan(at, mine);
        kept.insert(kept.end(), row.begin(), row.end());
      }
      part.sink_logits = kept;
    } else {
      part.sink_logits = cut(rule.sink_logits);
    }
    return part;
  }
};

// Throws bad_argument for a shape that is not valid, or that n drives cannot share.
template <Split S>
drive_part part_of(const S& split, const model_shape& whole, int drive, int drives) {
  whole.validate();
  split.validate(whole, drives);
  drive_part part{.drive = drive,
                  .drives = drives,
                  .heads = split.heads(whole, drive, drives),
                  .shape = whole,
                  .whole = whole};
  part.shape.kv_heads = part.heads.size();
  part.shape.q_heads = part.heads.size() * whole.group();
  return part;
}

}  // namespace instinfer::cluster
