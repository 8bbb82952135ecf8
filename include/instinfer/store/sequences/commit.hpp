#pragma once
// The state of a KV cache in a commit of a store that lasts: all sequences with their tables of
// pages, open pages and summaries. Sealed pages stay where they are.
//
//   head      version; a description in text, as in a cache file; the generation of each slot, and
//             whether its sequence is open; checksum
//   sequence  of each open slot: tokens of each layer; for each layer: the numbers of its live
//             sealed pages, its open pages, its summaries; checksum

#include <string>
#include <utility>
#include <vector>

#include "instinfer/store/sequences/cache_file.hpp"

namespace instinfer::store {

// A page store with commits: drive_files (drive/drive_files.hpp).
template <class S>
concept LastingStore = requires(const S& s) {
  { s.commits() } -> std::convertible_to<std::uint64_t>;
  { s.to_reopen() } -> std::convertible_to<bool>;
};

// Writes the state to a stream. `model` is the drive's name. Throws what the stream throws.
template <class Cache, class Out>
void write_state(const Cache& cache, std::string_view model, Out& out) {
  check_savable<Cache>();
  file_writer to{out};
  cache_file_mark mark;
  std::string description = file_description(cache, model, cache.tiles());
  std::vector<slot_state> slots = cache.slot_states();
  to(mark, description, slots);
  to.end_block();
  for (const sequence seq : cache.sequences()) {
    std::vector<layer_extent> extents;
    for (int l = 0; l < cache.shape().layers; ++l) {
      extents.push_back(cache.at(seq, l).extent());
    }
    to(extents);
    for (int l = 0; l < cache.shape().layers; ++l) {
      const auto& layer = cache.at(seq, l);
      layer.for_each_stream([&](const auto& s) { s.write_state(layer.tokens(), to); });
      layer.summaries().for_each([&](auto& state) { state.each_part(to); });
    }
    to.end_block();
  }
}

// Counts the owners of a drive's pages as the tables of a state name them.
class page_owners {
 public:
  explicit page_owners(std::uint64_t pages) : owned_(pages) {}

  // Throws bad_file for a page that the drive does not have, or that is another cache's.
  template <class Store>
  void add(Store& store, std::span<const page_id> pages) {
    for (const page_id& page : pages) {
      const auto number = static_cast<std::uint32_t>(page);
      require<bad_file>(number < owned_.size() && store.holds(page), [&] {
        return "reopen: a table names page " + std::to_string(number) +
               ", which is not among the pages of the commit";
      });
      if (owned_[number]) {
        require<bad_file>(of_others_.empty() || !of_others_[number], [&] {
          return "reopen: page " + std::to_string(number) + " is in the tables of two caches";
        });
        store.reserve_owners({&page, 1});
        store.share({&page, 1});
      } else {
        owned_[number] = true;
        ++count_;
      }
    }
  }
  // The next tables are those of another cache on the drive: caches share no page.
  void next_cache() { of_others_ = owned_; }
  std::uint64_t pages() const { return owned_.size(); }
  // Throws bad_file unless every allocated page has an owner.
  template <class Store>
  void require_all(const Store& store) const {
    const std::uint64_t pages = store.capacity_pages() - store.free_pages();
    require<bad_file>(count_ == pages, [&] {
      return "reopen: the commit has " + std::to_string(pages) + " pages, its tables name " +
             std::to_string(count_);
    });
  }

 private:
  std::vector<bool> owned_;      // [pages]
  std::vector<bool> of_others_;  // [pages], by the caches before; empty for the first one
  std::uint64_t count_ = 0;
};

// Reads the state into a cache without sequences, over the store that has its pages. Throws
// bad_file, address_overflow and drive_full (the group buffer); do not use the cache then.
template <class Cache, class In>
void read_state(Cache& cache, std::string_view model, In& in, page_owners& owners) {
  check_savable<Cache>();
  file_reader from{in};
  cache_file_mark mark;
  std::string description;
  std::vector<slot_state> slots;
  from(mark);
  mark.check();
  from(description, slots);
  from.end_block();
  require_same_description(description, cache, model, "reopen: the drive");

  cache.reopen(slots, [&](sequence seq) {
    std::vector<layer_extent> extents;
    from(extents);
    auto layers = cache.layers_for(seq, extents);
    for (std::size_t l = 0; l < layers.size(); ++l) {
      auto& layer = layers[l];
      require<bad_file>(extents[l].pages <= owners.pages(), [&] {
        return "reopen: layer " + std::to_string(l) + " has " + std::to_string(extents[l].pages) +
               " pages, the drive " + std::to_string(owners.pages());
      });
      layer.for_each_stream([&](auto& s) {
        s.read_state(layer.first(), layer.tokens(), from);
        owners.add(cache.pages(), s.live());
      });
      layer.summaries().for_each([&](auto& state) { state.each_part(from); });
      require<bad_file>(layer.summaries().fit(layer.first(), layer.tokens()), [&] {
        return "reopen: the summaries of layer " + std::to_string(l) + " are not those of " +
               std::to_string(layer.tokens() - layer.first()) + " live tokens";
      });
    }
    from.end_block();
    return layers;
  });
}
// The same for the only cache on the drive.
template <class Cache, class In>
void read_state(Cache& cache, std::string_view model, In& in) {
  page_owners owners(cache.pages().capacity_pages());
  read_state(cache, model, in, owners);
  owners.require_all(cache.pages());
}

}  // namespace instinfer::store
