#pragma once
// What the ranks of one engine must have in common, compared when it is made.

#include <bit>
#include <string>
#include <string_view>
#include <type_traits>

#include "instinfer/cluster/communicator.hpp"
#include "instinfer/cluster/failure.hpp"
#include "instinfer/cluster/splits.hpp"
#include "instinfer/store/sequences/cache_file.hpp"

namespace instinfer::cluster {

// The engine whose cache it is: that inside a timing engine, or the engine itself.
template <class Engine>
const auto& computing(const Engine& e) {
  if constexpr (requires { e.inner(); }) {
    return e.inner();
  } else {
    return e;
  }
}
template <class Engine>
using computing_engine = std::remove_cvref_t<decltype(computing(std::declval<const Engine&>()))>;

// As this compiler spells it.
template <class T>
std::string_view type_name() {
  const std::string_view all = __PRETTY_FUNCTION__;
  const std::size_t begin = all.find("T = ") + 4;
  return all.substr(begin, all.find_last_of(all.find(';') == all.npos ? ']' : ';') - begin);
}

// One property a line, of every rank.
template <class Engine, class S>
std::string properties_of_rank(const S& split, const model_shape& shape, int drives) {
  using base = computing_engine<Engine>;
  constexpr int message_version = 1;
  const auto line = [](const char* name, auto value) {
    if constexpr (requires { std::to_string(value); }) {
      return std::string(name) + ": " + std::to_string(value) + "\n";
    } else {
      return std::string(name) + ": " + std::string(value) + "\n";
    }
  };
  return line("messages of version", message_version) +
         line("byte order", std::endian::native == std::endian::little ? "little" : "big") +
         line("bits of a size", 8 * sizeof(std::size_t)) + line("split", split.name()) +
         line("drives", drives) + line("layers", shape.layers) +
         line("query heads", shape.q_heads) + line("KV heads", shape.kv_heads) +
         line("format", type_name<typename base::format>()) +
         line("page bytes", base::design_type::layout_policy::page_bytes) +
         line("method", type_name<typename base::policy>());
}

// Settings that travel between ranks, as their bytes.
template <class Policy>
inline constexpr bool travels = std::is_trivially_copyable_v<Policy> && alignof(Policy) <= 8;

// What the host knows of the engines of all drives: the properties that all have in common, one a
// line, empty on a rank without an engine; their tiles; their settings, if these travel.
template <class Base>
struct drive_facts {
  using policy = typename Base::policy;

  std::string properties;
  layout::tiling tiles{};
  policy attention{};

  void put_to(message& to) const {
    to.put_text(properties);
    to.put(tiles);
    if constexpr (travels<policy>) {
      to.put(attention);
    }
  }
  static drive_facts take_from(message& from) {
    drive_facts f;
    f.properties = from.take_text();
    f.tiles = from.take<layout::tiling>();
    if constexpr (travels<policy>) {
      f.attention = from.take<policy>();
    }
    return f;
  }
};

// The properties are without what differs between the drives of a split.
template <class Engine>
drive_facts<computing_engine<Engine>> facts_of_drive(const Engine& engine) {
  const auto& base = computing(engine);
  std::string text = store::file_description(base.cache(), "", base.cache().tiles());
  for (const char* name : {"query heads: ", "KV heads: "}) {
    const std::size_t at = text.find(name);
    text.erase(at, text.find('\n', at) + 1 - at);
  }
  const logit_rule& rule = base.logits();
  text += "scale, soft cap: " + std::to_string(rule.scale) + ", " + std::to_string(rule.soft_cap) +
          "\nwindow, sinks: " + std::to_string(rule.window) + ", " + std::to_string(rule.sinks) +
          "\n";
  return {text, base.cache().tiles(), base.attention()};
}

// The first line of `other` that differs; empty if none does.
inline std::string first_difference(std::string_view one, std::string_view other) {
  while (!one.empty() || !other.empty()) {
    const auto next = [](std::string_view& text) {
      const std::string_view line = text.substr(0, text.find('\n'));
      text.remove_prefix(std::min(text.size(), line.size() + 1));
      return line;
    };
    const std::string_view a = next(one);
    const std::string_view b = next(other);
    if (a != b) {
      return "\"" + std::string(b) + "\", not \"" + std::string(a) + "\"";
    }
  }
  return {};
}

// Collective: compares all ranks on rank 0. If a rank failed, all ranks throw its exception; if
// properties differ, all throw bad_argument with the rank and the first line that differs.
// Completes the facts of a host without an engine.
template <class Facts>
void agree(communicator& ranks, const failure& mine, const std::string& of_rank, Facts& of_drive) {
  message m;
  std::uint64_t culprit = 0;
  failure found = mine;
  if (ranks.rank() == 0) {
    for (int r = 1; r < ranks.size(); ++r) {
      ranks.receive(r, m);
      const failure theirs = failure::take_from(m);
      const std::string_view their_rank = m.take_text();
      Facts their_drive = Facts::take_from(m);
      if (found) {
        continue;
      }
      if (const std::string line = first_difference(of_rank, their_rank); !line.empty()) {
        found = {failure::type::bad_argument, 0, "cluster: this rank has " + line};
      } else if (theirs) {
        found = theirs;
      } else if (of_drive.properties.empty()) {
        of_drive = std::move(their_drive);
      } else if (const std::string other =
                     first_difference(of_drive.properties, their_drive.properties);
                 !other.empty()) {
        found = {failure::type::bad_argument, 0, "cluster: this rank has " + other};
      }
      culprit = found ? static_cast<std::uint64_t>(r) : 0;
    }
    for (int r = 1; r < ranks.size(); ++r) {
      m.clear();
      found.put_to(m);
      m.put(culprit);
      ranks.send(r, m);
    }
  } else {
    mine.put_to(m);
    m.put_text(of_rank);
    of_drive.put_to(m);
    ranks.send(0, m);
    ranks.receive(0, m);
    found = failure::take_from(m);
    culprit = m.take<std::uint64_t>();
  }
  if (found) {
    found.rethrow(static_cast<int>(culprit));
  }
}

}  // namespace instinfer::cluster
