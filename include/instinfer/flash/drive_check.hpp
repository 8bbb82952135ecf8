#pragma once
// Checks that a drive fits a design, a format and a capacity; and the route to it.

#include <string>

#include "instinfer/ssd/spec/drive_rules.hpp"
#include "instinfer/ssd/spec/presets.hpp"
#include "instinfer/store/layer/extents.hpp"
#include "instinfer/transfer/concepts.hpp"

namespace instinfer::flash {

// Throws bad_argument for an invalid drive, one that does not fit the design and format, or one
// smaller than the capacity.
template <class D, class Format>
void check_drive(const drive_spec& drive, const store::capacity& capacity,
                 const drive_rules& rules) {
  validate(drive);
  require(
      drive.geometry.page_bytes == static_cast<std::int32_t>(D::layout_policy::page_bytes), [&] {
        return "flash engine: the drive's pages have " + std::to_string(drive.geometry.page_bytes) +
               " bytes, the layout's " + std::to_string(D::layout_policy::page_bytes);
      });
  require(!D::transfer_policy::computes_in_drive || drive.units.present(), [] {
    return std::string(
        "flash engine: attention in storage needs a drive with an accelerator, this one has none");
  });
  require(Format::plain || rules.transfer == transfer_size::page, [] {
    return std::string(
        "flash engine: a codec's scales lie elsewhere in the page, so whole pages are transferred");
  });
  require(capacity.bytes <= static_cast<std::uint64_t>(drive.geometry.bytes()), [&] {
    return "flash engine: the drive holds " + std::to_string(drive.geometry.bytes()) +
           " bytes, the capacity is " + std::to_string(capacity.bytes);
  });
}

// The route with the drive's own link. Throws bad_argument for an invalid route.
inline transfer::route_spec with_link_of(const drive_spec& drive, transfer::route_spec times) {
  times.drive_link.bytes_per_s = static_cast<double>(drive.link_bytes_per_s);
  transfer::validate(times);
  return times;
}

}  // namespace instinfer::flash
