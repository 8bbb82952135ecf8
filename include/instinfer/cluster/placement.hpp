#pragma once
// The host's table of sequences: how long they are, and which drives have them.

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "instinfer/cluster/file.hpp"
#include "instinfer/cluster/splits.hpp"
#include "instinfer/core/scratch.hpp"
#include "instinfer/store/sequences/sequence_slots.hpp"

namespace instinfer::cluster {

// Throws what the calls of one engine throw for unknown sequences and layers.
template <Split S>
class placement {
 public:
  placement(const model_shape& shape, const S& split) : shape_{shape}, split_{split} {}

  // Throws bad_argument for no drive, or for more than can share the model.
  void share_among(int drives) {
    require(drives > 0, [] {
      return std::string(
          "cluster: one rank and a host that holds nothing; start two or more, or set "
          "options::host_holds");
    });
    for (int d = 0; d < drives; ++d) {
      parts_.push_back(part_of(split_, shape_, d, drives));
    }
  }

  const model_shape& shape() const { return shape_; }
  const S& split() const { return split_; }
  const std::vector<drive_part>& parts() const { return parts_; }

  // Takes the lowest free slot. The home of a sequence decides which drives have it.
  sequence add(std::vector<layer_tokens> layers, std::uint32_t home) {
    resize_scratch(homes_, std::max<std::size_t>(homes_.size(), slots_.next() + 1));
    const sequence seq = slots_.take(std::move(layers));
    homes_[seq.slot] = home;
    return seq;
  }
  void remove(sequence seq) { slots_.give_back(seq); }
  std::uint32_t next_home() const { return slots_.next(); }
  std::uint32_t home(sequence seq) const { return homes_[seq.slot]; }

  std::vector<layer_tokens>& layers(sequence seq) { return slots_.at(seq); }
  layer_tokens& layer(sequence seq, int number) {
    std::vector<layer_tokens>& all = slots_.at(seq);
    store::require_layer(number, shape_.layers);
    return all[static_cast<std::size_t>(number)];
  }
  const layer_tokens& layer(sequence seq, int number) const {
    return const_cast<placement*>(this)->layer(seq, number);
  }
  // The layers of a range in which each layer can give up what `check(number, tokens)` allows.
  std::span<layer_tokens> layers(sequence seq, const char* who, const auto& range, auto&& check) {
    std::vector<layer_tokens>& all = slots_.at(seq);
    const std::uint32_t end = end_of(range);
    store::require_layers(who, range.first_layer, end, static_cast<std::uint32_t>(shape_.layers));
    for (std::uint32_t l = range.first_layer; l < end; ++l) {
      check(l, all[l]);
    }
    return std::span(all).first(end).subspan(range.first_layer);
  }
  std::uint32_t end_of(const auto& range) const {
    return range.end_layer == store::all_layers ? static_cast<std::uint32_t>(shape_.layers)
                                                : range.end_layer;
  }

  // Calls visit(part) for each drive that has the sequence in a slot, lowest first.
  void for_each_holder(std::uint32_t slot, auto&& visit) const {
    for (const drive_part& part : parts_) {
      if (split_.holds(homes_[slot], part.drive, part.drives)) {
        visit(part);
      }
    }
  }
  std::size_t holders(std::uint32_t slot) const {
    std::size_t n = 0;
    for_each_holder(slot, [&](const drive_part&) { ++n; });
    return n;
  }
  // How many of a sequence's first tokens a drive has.
  std::uint64_t tokens_of(const drive_part& part, std::uint64_t positions) const {
    return split_.tokens_of(positions, part.drive, part.drives);
  }

 private:
  model_shape shape_;
  S split_;
  std::vector<drive_part> parts_;
  store::sequence_slots<layer_tokens> slots_;
  std::vector<std::uint32_t> homes_;  // of each slot
};

}  // namespace instinfer::cluster
