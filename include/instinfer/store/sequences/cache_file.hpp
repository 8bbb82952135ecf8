#pragma once
// A file of one sequence of a KV cache, with all its layers.
// A long prompt can so be read and clustered once, and decoded from many times.
//
//   head     "instkv\r\n", version, byte order; a description in text; tokens and pages of each
//            layer; checksum
//   layer    for each stored stream: live sealed pages, head by head, then open pages; for each
//            head: its summaries; checksum
//
// Numbers have the byte order of memory, so all machines that use a file need the same byte order.
// A file can be loaded on a drive with another number of channels or another size, or with an FTL.
// The checksum detects damage, not malice: trust a file as you trust its author.

#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <vector>

#include "instinfer/store/sequences/checked_stream.hpp"
#include "instinfer/store/sequences/sequence_cache.hpp"
#include "instinfer/summaries/concepts.hpp"

namespace instinfer::store {

struct cache_file_mark {
  static constexpr std::uint32_t this_version = 3;  // changes with the parts of any summary
  static constexpr std::uint32_t this_byte_order = 0x01020304;

  std::array<char, 8> magic{'i', 'n', 's', 't', 'k', 'v', '\r', '\n'};
  std::uint32_t version = this_version;
  std::uint32_t byte_order = this_byte_order;

  void each_part(auto&& file) { file(magic, version, byte_order); }

  // Throws bad_file for another format, byte order or version.
  void check() const {
    require<bad_file>(magic == cache_file_mark{}.magic,
                      [] { return std::string("load: this is not a cache file"); });
    require<bad_file>(byte_order == this_byte_order, [] {
      return std::string("load: the file was written on a computer of another byte order");
    });
    require<bad_file>(version == this_version, [&] {
      return "load: the file is of version " + std::to_string(version) +
             ", this library reads version " + std::to_string(this_version);
    });
  }
};

// The properties that a file and an engine must share, one per line: a name, a colon, a value.
// `model` is the caller's own name: a model and its fine-tuned version have the same shapes.
template <class Cache>
std::string file_description(const Cache& cache, std::string_view model,
                             const layout::tiling& tiles) {
  using format = typename Cache::format;
  std::string text;
  const auto line = [&](const char* name, const std::string& value) {
    text.append(name).append(": ").append(value).append("\n");
  };
  line("model", std::string(model));
  line("layers", std::to_string(cache.shape().layers));
  line("query heads", std::to_string(cache.shape().q_heads));
  line("KV heads", std::to_string(cache.shape().kv_heads));
  line("K dims", std::to_string(format::k_dim));
  line("V dims", std::to_string(format::v_dim));
  line("elements", element_name<typename format::element>);
  line("stored as", format::codec::name);
  line("page bytes", std::to_string(cache.page_bytes()));
  for (const stream s : {stream::k_by_token, stream::k_by_dim, stream::v_by_token}) {
    const layout::tile& t = tiles.of(s);
    line(stream_name(s), t.stored()
                             ? std::to_string(t.tokens) + " tokens x " + std::to_string(t.dims) +
                                   " dims a page, strides " + std::to_string(t.token_stride) +
                                   " and " + std::to_string(t.dim_stride) +
                                   (t.origin > 0 ? ", from " + std::to_string(t.origin) : "") +
                                   (tiles.has_pages(s) ? "" : ", in the pages of K by token")
                             : "not stored");
  }
  std::string summaries;
  [&]<class... State>(std::type_identity<std::tuple<State...>>) {
    ((summaries += (summaries.empty() ? "" : ", ") + std::string(State::name())), ...);
  }(std::type_identity<typename Cache::summary_states>{});
  line("summaries", summaries.empty() ? "none" : summaries);
  return text;
}

// The engine's context, halved or doubled until its layout chooses the file's tiles; 0 if none
// does, as where something else differs, too.
template <class Cache>
std::uint32_t context_of_file(std::string_view file, const Cache& cache, std::string_view model) {
  const std::uint64_t own = cache.context_tokens();
  for (int step = 1; step < 32; ++step) {
    for (const std::uint64_t other : {own >> step, own << step}) {
      const auto context = static_cast<std::uint32_t>(other);
      if (context > 0 && context == other &&
          file == file_description(cache, model, cache.tiles_for(context))) {
        return context;
      }
    }
  }
  return 0;
}

// Throws bad_file, with the first line that differs, and the context if that is the reason.
template <class Cache>
void require_same_description(std::string_view file, const Cache& cache, std::string_view model,
                              const std::string& who = "load: the file") {
  const std::string engine = file_description(cache, model, cache.tiles());
  if (file == engine) {
    return;
  }
  const auto [in_file, in_engine] = std::ranges::mismatch(file, std::string_view(engine));
  const auto line_at = [](std::string_view text, auto at) {
    const auto where = static_cast<std::size_t>(at - text.begin());
    const std::size_t begin = where == 0 ? 0 : text.rfind('\n', where - 1) + 1;
    return std::string(text.substr(begin, text.find('\n', begin) - begin));
  };
  std::string what = "another cache";
  if constexpr (requires { cache.context_tokens(); }) {
    if (const std::uint32_t context = context_of_file(file, cache, model); context != 0) {
      what = "a cache for another context: context_tokens = " + std::to_string(context) +
             " would do, the engine's is " + std::to_string(cache.context_tokens());
    }
  }
  throw bad_file(who + " is of " + what + ": it has \"" + line_at(file, in_file) +
                 "\", the engine \"" + line_at(engine, in_engine) + "\"");
}

template <class States>
inline constexpr bool savable = false;
template <class... State>
inline constexpr bool savable<std::tuple<State...>> = (attention::SavableState<State> && ...);

template <class Cache>
constexpr void check_savable() {
  static_assert(
      savable<typename Cache::summary_states>,
      "instinfer: a summary cannot be saved, its state lacks name(), each_part(file) or fits(first, tokens, all), see summaries/concepts.hpp");
}

// Writes a sequence to a binary stream. Throws unknown_sequence, and bad_file if writing fails.
template <class Cache, class Out>
void save(const Cache& cache, sequence seq, std::string_view model, Out& out) {
  check_savable<Cache>();
  std::vector<layer_extent> extents;
  for (int l = 0; l < cache.shape().layers; ++l) {
    extents.push_back(cache.at(seq, l).extent());
  }
  file_writer to{out};
  cache_file_mark mark;
  std::string description = file_description(cache, model, cache.tiles());
  to(mark, description, extents);
  to.end_block();
  for (int l = 0; l < cache.shape().layers; ++l) {
    const auto& layer = cache.at(seq, l);
    layer.for_each_stream([&](const auto& s) {
      s.save(cache.pages(), layer.tokens(),
             [&](std::span<const std::byte> bytes) { to.bytes(bytes); });
    });
    layer.summaries().for_each([&](auto& state) { state.each_part(to); });
    to.end_block();
  }
  to.flush();
}

// Reads one sequence, and no byte after it, into an open, empty sequence. Adds the pages written to
// `written`. Throws unknown_sequence, bad_argument if the sequence is not empty, bad_file,
// address_overflow or drive_full, and then leaves the cache unchanged.
template <class Cache, class In>
traffic load(Cache& cache, sequence seq, std::string_view model, In& in,
             std::vector<page_id>& written) {
  check_savable<Cache>();
  cache.require_empty(seq);
  file_reader from{in};
  cache_file_mark mark;
  from(mark);
  mark.check();
  std::string description;
  std::vector<layer_extent> extents;
  from(description, extents);
  from.end_block();
  require_same_description(description, cache, model);

  const std::size_t pages_before = written.size();
  auto layers = cache.room_for(seq, extents, written);
  try {
    for (std::uint32_t l = 0; l < layers.size(); ++l) {
      auto& layer = layers[l];
      layer.for_each_stream([&](auto& s) {
        s.load(cache.pages(), l + seq.slot, layer.first(), layer.tokens(), written,
               [&](std::span<std::byte> bytes) { from.bytes(bytes); });
      });
      layer.summaries().for_each([&](auto& state) { state.each_part(from); });
      from.end_block();
      require<bad_file>(layer.summaries().fit(layer.first(), layer.tokens()), [&] {
        return "load: the summaries of layer " + std::to_string(l) +
               " of the file are not those of " + std::to_string(layer.tokens() - layer.first()) +
               " live tokens";
      });
    }
  } catch (...) {
    for (auto& layer : layers) {
      layer.release_all(cache.pages());
    }
    written.resize(pages_before);
    throw;
  }
  cache.adopt(seq, std::move(layers));
  const std::uint64_t pages = written.size() - pages_before;
  return {.pages_written = pages,
          .written_bytes = pages * cache.page_bytes(),
          .link_bytes = from.bytes_read()};
}

}  // namespace instinfer::store
