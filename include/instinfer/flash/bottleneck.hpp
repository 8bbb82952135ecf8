#pragma once
// Names what sets the pace of an attend, from the times of its receipt.

#include <string>
#include <utility>

#include "instinfer/flash/attend/attend_bounds.hpp"
#include "instinfer/flash/attend/attend_phase.hpp"
#include "instinfer/flash/call_times.hpp"

namespace instinfer::flash {

// `share` says how much of the attend the named work explains.
struct bottleneck {
  std::string name;
  double ns = 0;     // time of the named work
  double share = 0;  // of the whole call
};

namespace detail {

// What takes longest in one phase. Flash counts while a channel reads and its data does not wait
// for the units behind.
inline std::pair<const char*, double> longest_part(const phase_ns& phase) {
  const std::pair<const char*, double> parts[] = {
      {"flash", phase.reading},   {"filter", phase.filter}, {"GeMV", phase.gemv},
      {"softmax", phase.softmax}, {"top-k", phase.top_k},   {"link", phase.route}};
  std::pair<const char*, double> longest = parts[0];
  for (const auto& part : parts) {
    longest = part.second > longest.second ? part : longest;
  }
  return longest;
}

}  // namespace detail

// A single resource is the bottleneck if it works for at least this share of the attend.
inline constexpr double one_resource_share = 0.9;

// The names:
// - A resource of attend_bounds.hpp: the one that works longest.
// If no resource works for 0.9 of the attend:
// - "array+bus": the busiest channel reads for longer than any resource works, because its arrays
//   and its bus take turns. With data_out_first this is the convoy (arbitration.hpp).
// - "background writes": reads waited for them for longer than any resource works.
// If these do not explain 0.9 of the attend either:
// - "softmax, flash" and the like: its phases run one after the other. The names are those of the
//   longest part of each phase. Loads of different phases may overlap, so the sum of the parts may
//   exceed the attend. The name above then stays.
inline bottleneck bottleneck_of(const call_times& done) {
  const double total_ns = done.total_ns();
  const resource most = done.bounds.largest();
  bottleneck found{.name = resource_name(most), .ns = done.bounds[most]};
  const auto is_found = [&] { return found.ns >= one_resource_share * total_ns; };
  if (!is_found()) {
    const std::pair<const char*, double> others[] = {
        {"array+bus", done.units[unit::flash] - done.stalled_ns},
        {"background writes", done.delay_ns}};
    for (const auto& [name, ns] : others) {
      if (ns > found.ns) {
        found = {.name = name, .ns = ns};
      }
    }
  }
  if (!is_found() && done.phases.size() > 1) {
    bottleneck in_turn;
    for (const phase_ns& phase : done.phases) {
      const auto [name, ns] = detail::longest_part(phase);
      if (!in_turn.name.ends_with(name)) {
        in_turn.name += (in_turn.name.empty() ? "" : ", ") + std::string(name);
      }
      in_turn.ns += ns;
    }
    if (in_turn.ns > found.ns && in_turn.ns <= total_ns) {
      found = in_turn;
    }
  }
  found.share = total_ns > 0 ? found.ns / total_ns : 0.0;
  return found;
}

}  // namespace instinfer::flash
