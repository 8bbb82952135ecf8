#pragma once
// Sequences by slot, and the handles to them. A slot that was given back is taken again, under
// another generation.

#include <algorithm>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "instinfer/core/page_key.hpp"
#include "instinfer/core/raw_array.hpp"
#include "instinfer/core/scratch.hpp"
#include "instinfer/store/sequences/capacity_checks.hpp"

namespace instinfer::store {

// What a commit keeps of a slot (store/sequences/commit.hpp).
struct slot_state {
  std::uint32_t generation = 0;
  std::uint32_t open = 0;
};

// Layer is what a sequence has of each layer, or of each kind of layer.
template <class Layer>
class sequence_slots {
 public:
  // The slot of the next sequence: the lowest free one.
  std::uint32_t next() const {
    return free_.empty() ? static_cast<std::uint32_t>(slots_.size()) : free_.front();
  }
  // Allocates all memory that the next take() and its give_back() need.
  void reserve() {
    if (free_.empty()) {
      reserve_scratch(free_, slots_.size() + 1);
      reserve_scratch(slots_, slots_.size() + 1);
    }
  }
  // Opens a sequence in slot next().
  sequence take(std::vector<Layer>&& layers) {
    reserve();
    const std::uint32_t slot = next();
    if (free_.empty()) {
      slots_.emplace_back();
    } else {
      std::pop_heap(free_.begin(), free_.end(), lowest_on_top);
      free_.pop_back();
    }
    slots_[slot].layers = std::move(layers);
    slots_[slot].open = true;
    return {slot, slots_[slot].generation, identity_.data()};
  }
  void give_back(sequence seq) {
    slots_[seq.slot].layers.clear();
    slots_[seq.slot].open = false;
    ++slots_[seq.slot].generation;
    free_.push_back(seq.slot);
    std::push_heap(free_.begin(), free_.end(), lowest_on_top);
  }

  // The open sequences, by slot.
  std::vector<sequence> open_ones() const {
    std::vector<sequence> all;
    for (std::uint32_t slot = 0; slot < slots_.size(); ++slot) {
      if (slots_[slot].open) {
        all.push_back({slot, slots_[slot].generation, identity_.data()});
      }
    }
    return all;
  }
  std::vector<slot_state> states() const {
    std::vector<slot_state> all;
    for (const slot_content& s : slots_) {
      all.push_back({s.generation, s.open ? 1u : 0u});
    }
    return all;
  }
  // Gives slots that nobody has taken yet the states of others, and layers_of(handle) to the open
  // ones. If it throws, the object must not be used.
  template <class LayersOf>
  void restore(std::span<const slot_state> states, LayersOf&& layers_of) {
    for (const slot_state& s : states) {
      const auto slot = static_cast<std::uint32_t>(slots_.size());
      slots_.push_back({{}, s.generation, s.open != 0});
      if (s.open != 0) {
        slots_.back().layers = layers_of(sequence{slot, s.generation, identity_.data()});
      } else {
        free_.push_back(slot);  // in rising order, as a heap may be
      }
    }
  }

  // The layers of an open sequence. Throws unknown_sequence.
  std::vector<Layer>& at(sequence seq) {
    require_open(seq.cache == identity_.data() && seq.slot < slots_.size() &&
                     slots_[seq.slot].open && slots_[seq.slot].generation == seq.generation,
                 seq);
    return slots_[seq.slot].layers;
  }
  const std::vector<Layer>& at(sequence seq) const {
    return const_cast<sequence_slots*>(this)->at(seq);
  }

  // Whether f(layers) holds for any open sequence.
  template <class F>
  bool any(F&& f) const {
    return std::ranges::any_of(slots_,
                               [&](const slot_content& s) { return s.open && f(s.layers); });
  }

 private:
  struct slot_content {
    std::vector<Layer> layers;
    std::uint32_t generation = 0;
    bool open = false;
  };
  static bool lowest_on_top(std::uint32_t a, std::uint32_t b) { return a > b; }

  std::vector<slot_content> slots_;
  std::vector<std::uint32_t> free_;  // a heap, the lowest on top
  // Its address names the cache, also after a move.
  raw_array<char> identity_{1};
};

}  // namespace instinfer::store
