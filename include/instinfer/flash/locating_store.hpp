#pragma once
// The concept of a page store on an FTL: what flash::engine needs in addition to the pages.

#include <concepts>
#include <cstdint>

#include "instinfer/core/page_key.hpp"
#include "instinfer/ssd/ftl/counters.hpp"
#include "instinfer/ssd/spec/geometry.hpp"
#include "instinfer/ssd/spec/location.hpp"

namespace instinfer::flash {

// A page store that knows the location of each page, for example flash/ftl_store.hpp. The pages of
// other stores are placed by number (placement.hpp).
template <class S>
concept LocatingStore = requires(S& s, const S& c, page_id page, std::uint64_t most) {
  { c.locate(page) } -> std::same_as<location>;
  { c.shape() } -> std::convertible_to<geometry>;
  { s.translation().operations() } -> std::convertible_to<const ftl_operations&>;
  s.translation().count_read(page);
  s.translation().idle(most);
};

}  // namespace instinfer::flash
