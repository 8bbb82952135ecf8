// expect: instinfer: the drive is not a flash::drive_spec value, see ssd/spec/presets.hpp
// The drive's geometry where the whole drive belongs.
#include "instinfer/cpu/engine.hpp"

#ifdef CONTROL
inline constexpr auto drive = instinfer::flash::instcsd;
#else
inline constexpr auto drive = instinfer::flash::instcsd.geometry;
#endif

using mine = instinfer::design<instinfer::attention::dense, instinfer::layout::token_indexed<>,
                               drive, instinfer::transfer::in_storage>;

void use() { instinfer::cpu::engine<mine> engine({}, {}); }
