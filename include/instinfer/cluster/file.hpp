#pragma once
// The file of one sequence of a cluster. It is the file of one engine (cache_file.hpp in
// store/sequences/), whatever the split and the number of drives: its pieces are those of the
// drives' own files, in another order.

#include <deque>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "instinfer/cluster/file_form.hpp"
#include "instinfer/cluster/message_stream.hpp"
#include "instinfer/cluster/splits.hpp"
#include "instinfer/store/sequences/cache_file.hpp"

namespace instinfer::cluster {

// The tokens of a layer of a sequence on all drives together: those at positions [first,
// positions) are live.
struct layer_tokens {
  std::uint64_t positions = 0;
  std::uint64_t first = 0;
};

// Base is the engine of a drive. `parts` are the drives that have the sequence, lowest first.
template <class Base, class S>
class split_file {
  using form = file_form<Base>;
  using states = typename form::summary_states;
  static_assert(
      !S::splits_tokens || std::tuple_size_v<states> == 0,
      "instinfer: a cluster that splits tokens cannot save or load summaries, since those of two drives do not merge; use by_heads or by_sequences, see cluster/splits.hpp");

 public:
  split_file(const S& split, const model_shape& whole, const layout::tiling& tiles,
             std::vector<drive_part> parts)
      : split_{split}, whole_{whole, tiles}, parts_{std::move(parts)} {}

  // Throws bad_argument if the tokens of a page lie on two drives. `who`: save or load.
  void require_whole_pages(const char* who, std::span<const layer_tokens> layers) const {
    for (const layer_tokens& l : layers) {
      require_whole_pages(who, extent_of(l, 0));
    }
  }

  // Writes the file of a sequence with these layers. from[i] has the file of parts[i]. Throws
  // bad_file if writing fails.
  void join(std::span<const layer_tokens> layers, std::string_view model,
            std::span<message* const> from, std::ostream& out) const {
    std::deque<source> sources;
    for (message* m : from) {
      sources.emplace_back(*m);
    }
    std::vector<store::layer_extent> extents;
    for (std::size_t l = 0; l < layers.size(); ++l) {
      extents.push_back(extent_of(layers[l], sources.front().extents[l].base));
      for (std::size_t i = 0; i < parts_.size(); ++i) {
        require_same(sources[i].extents[l], part_extent(extents[l], parts_[i]), l);
      }
    }
    store::file_writer to{out};
    write_head(to, whole_, model, extents);
    std::vector<std::byte> bytes;
    for (const store::layer_extent& e : extents) {
      whole_.each_piece(
          e, [&](std::uint32_t h, std::uint64_t first, std::uint64_t end, std::size_t size) {
            bytes.resize(size);
            sources[owner(h, first, end)].file.bytes(bytes);
            to.bytes(bytes);
          });
      each_head_states([&](std::uint32_t h, auto& state) {
        state.each_part(sources[owner(h, 0, 0)].file);
        state.each_part(to);
      });
      for (source& s : sources) {
        s.file.end_block();
      }
      to.end_block();
    }
    to.flush();
  }

  // Reads a file, and puts the file of parts[i] to to[i]. Returns the tokens of each layer. Throws
  // bad_file, or bad_argument if the tokens of a page would lie on two drives.
  std::vector<layer_tokens> cut(std::istream& in, std::string_view model,
                                std::span<message* const> to) const {
    store::file_reader from{in};
    store::cache_file_mark mark;
    from(mark);
    mark.check();
    std::string description;
    std::vector<store::layer_extent> extents;
    from(description, extents);
    from.end_block();
    store::require_same_description(description, whole_, model, "load: the file");
    store::require_extents(extents, whole_.shape().layers);

    std::vector<layer_tokens> layers;
    for (const store::layer_extent& e : extents) {
      const layer_tokens l{e.base + e.tokens, e.base + e.first};
      const auto number = static_cast<std::uint32_t>(layers.size());
      store::require_base(e, whole_.base_multiple(), number);
      store::require_pages(e, whole_.extent(l.first, l.positions, e.base).pages, number);
      require_whole_pages("load", e);
      layers.push_back(l);
    }
    std::deque<target> targets;
    for (std::size_t i = 0; i < parts_.size(); ++i) {
      std::vector<store::layer_extent> of_part;
      for (const store::layer_extent& e : extents) {
        of_part.push_back(part_extent(e, parts_[i]));
      }
      targets.emplace_back(*to[i]);
      write_head(targets.back().file, form_of(parts_[i]), {}, of_part);
    }
    std::vector<std::byte> bytes;
    for (const store::layer_extent& e : extents) {
      whole_.each_piece(
          e, [&](std::uint32_t h, std::uint64_t first, std::uint64_t end, std::size_t size) {
            bytes.resize(size);
            from.bytes(bytes);
            targets[owner(h, first, end)].file.bytes(bytes);
          });
      each_head_states([&](std::uint32_t h, auto& state) {
        state.each_part(from);
        state.each_part(targets[owner(h, 0, 0)].file);
      });
      from.end_block();
      for (target& t : targets) {
        t.file.end_block();
      }
    }
    for (target& t : targets) {
      t.file.flush();
    }
    return layers;
  }

 private:
  struct source {
    explicit source(message& from) : stream{from}, file{stream} {
      store::cache_file_mark mark;
      std::string description;
      file(mark, description, extents);
      file.end_block();
    }
    message_reader stream;
    store::file_reader<std::istream> file;
    std::vector<store::layer_extent> extents;
  };
  struct target {
    explicit target(message& to) : stream{to}, file{stream} {}
    message_writer stream;
    store::file_writer<std::ostream> file;
  };

  form form_of(const drive_part& part) const { return {part.shape, whole_.tiles()}; }
  static void write_head(auto& to, const form& of, std::string_view model,
                         std::vector<store::layer_extent>& extents) {
    store::cache_file_mark mark;
    std::string description = store::file_description(of, model, of.tiles());
    to(mark, description, extents);
    to.end_block();
  }

  // Drives that have some of the tokens number them for themselves. A file numbers them from the
  // first live page on, so that numbers suffice wherever it is loaded.
  store::layer_extent extent_of(const layer_tokens& l, std::uint64_t base_of_drives) const {
    return whole_.extent(l.first, l.positions,
                         S::splits_tokens ? whole_.base_before(l.first) : base_of_drives);
  }
  store::layer_extent part_extent(const store::layer_extent& e, const drive_part& part) const {
    const auto mine = [&](std::uint64_t position) {
      return split_.tokens_of(position, part.drive, part.drives);
    };
    const std::uint64_t first = mine(e.base + e.first);
    return form_of(part).extent(first, mine(e.base + e.tokens),
                                S::splits_tokens ? whole_.base_before(first) : e.base);
  }
  // What a drive has saved is what it must have, by the host's table.
  static void require_same(const store::layer_extent& is, const store::layer_extent& must,
                           std::size_t layer) {
    require<error>(is.base + is.first == must.base + must.first &&
                       is.base + is.tokens == must.base + must.tokens && is.pages == must.pages &&
                       (S::splits_tokens || is.base == must.base),
                   [&] {
                     return "save: the drives do not number the tokens of layer " +
                            std::to_string(layer) + " from the same position on, " +
                            std::to_string(is.base) + " and " + std::to_string(must.base);
                   });
  }

  // The part that has tokens [first, end) of KV head h; parts_.size() if no part has them all.
  std::size_t owner(std::uint32_t h, std::uint64_t first, std::uint64_t end) const {
    const auto head = static_cast<int>(h);
    const auto has = [&](const drive_part& p) {
      return p.heads.first <= head && head < p.heads.last &&
             split_.tokens_of(end, p.drive, p.drives) -
                     split_.tokens_of(first, p.drive, p.drives) ==
                 end - first;
    };
    return static_cast<std::size_t>(std::find_if(parts_.begin(), parts_.end(), has) -
                                    parts_.begin());
  }
  void require_whole_pages(const char* who, const store::layer_extent& e) const {
    if constexpr (S::splits_tokens) {
      whole_.each_piece(
          e, [&](std::uint32_t h, std::uint64_t first, std::uint64_t end, std::size_t) {
            require(owner(h, first, end) < parts_.size(), [&] {
              return std::string(who) + ": tokens [" + std::to_string(first) + ", " +
                     std::to_string(end) + ") of a page lie on several drives (" + split_.name() +
                     "); files need blocks of a multiple of the tokens of a page";
            });
          });
    }
  }

  // visit(h, state) for each summary of each head, which the visitor reads and writes.
  void each_head_states(auto&& visit) const {
    for (std::uint32_t h = 0; h < static_cast<std::uint32_t>(whole_.shape().kv_heads); ++h) {
      states of_head;
      std::apply([&](auto&... state) { (visit(h, state), ...); }, of_head);
    }
  }

  const S& split_;
  form whole_;
  std::vector<drive_part> parts_;
};

}  // namespace instinfer::cluster
