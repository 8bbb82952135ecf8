#pragma once
// What a layered engine keeps in a commit, besides the caches of its kinds: the kind of each layer,
// and which sequences of the caches belong together.

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "instinfer/store/sequences/cache_file.hpp"
#include "instinfer/store/sequences/sequence_slots.hpp"

namespace instinfer {

struct layered_state {
  store::cache_file_mark mark;
  std::string layers;                    // "kinds of layers: 0 0 1"
  std::vector<store::slot_state> slots;  // of the engine
  std::vector<std::uint32_t> parts;      // [open sequences, kinds], slots of the kinds' caches

  static std::string text(const std::vector<std::uint32_t>& kind_of_layer) {
    std::string all = "kinds of layers:";
    for (const std::uint32_t kind : kind_of_layer) {
      all += " " + std::to_string(kind);
    }
    return all;
  }

  template <class Out>
  void write(Out& out) {
    store::file_writer to{out};
    to(mark, layers, slots, parts);
    to.end_block();
  }
  // Throws bad_file where `layers` is not `expected`.
  template <class In>
  void read(In& in, const std::string& expected) {
    store::file_reader from{in};
    from(mark);
    mark.check();
    from(layers, slots, parts);
    from.end_block();
    require<bad_file>(layers == expected, [&] {
      return "reopen: the drive is of another cache: it has \"" + layers + "\", the engine \"" +
             expected + "\"";
    });
  }
};

// Gives the open sequences of the kinds' caches to the sequences of a layered engine.
class sequence_parts_reader {
 public:
  // of_kinds [kinds, open sequences]; slots as layered_state::parts.
  sequence_parts_reader(std::vector<std::vector<sequence>> of_kinds,
                        const std::vector<std::uint32_t>& slots)
      : of_kinds_{std::move(of_kinds)}, slots_{slots} {}

  // The parts of the next open sequence, one of each kind. Throws bad_file for a sequence that is
  // not open, or is a part already.
  std::vector<sequence> next() {
    std::vector<sequence> parts;
    for (std::vector<sequence>& all : of_kinds_) {
      const auto part = std::ranges::find_if(
          all, [&](const sequence& s) { return next_ < slots_.size() && s.slot == slots_[next_]; });
      require<bad_file>(part != all.end(), [] {
        return std::string("reopen: a sequence has no part of its own in each kind of layer");
      });
      ++next_;
      parts.push_back(*part);
      all.erase(part);
    }
    return parts;
  }
  // Throws bad_file if a sequence of a kind's cache is nobody's part.
  void require_all() const {
    const bool all = next_ == slots_.size() &&
                     std::ranges::all_of(of_kinds_, [](const auto& left) { return left.empty(); });
    require<bad_file>(all, [] {
      return std::string("reopen: a kind of layer has a sequence that the engine does not have");
    });
  }

 private:
  std::vector<std::vector<sequence>> of_kinds_;  // those that are not given yet
  const std::vector<std::uint32_t>& slots_;
  std::size_t next_ = 0;
};

}  // namespace instinfer
