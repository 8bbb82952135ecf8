// expect: instinfer: the drive's geometry, timing or rates are not valid, see ssd/spec/geometry.hpp and ssd/spec/presets.hpp
// A design whose drive has no channels.
#include "instinfer/instinfer.hpp"

constexpr instinfer::flash::drive_spec drive = [] {
  instinfer::flash::drive_spec d = instinfer::flash::instcsd;
#ifndef CONTROL
  d.geometry.channels = 0;
#endif
  return d;
}();

using mine = instinfer::design<instinfer::attention::dense, instinfer::layout::token_indexed<>,
                               drive, instinfer::transfer::in_storage>;

void use() { instinfer::flash::engine<mine> engine({}, {}); }
