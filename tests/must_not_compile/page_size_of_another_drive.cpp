// expect: instinfer: the layout's page size is not the drive's, see layout/concepts.hpp and ssd/spec/presets.hpp
// A layout for 16 KiB pages on a drive with pages of 4 KiB.
#include "instinfer/cpu/engine.hpp"

#ifdef CONTROL
inline constexpr std::uint32_t page_bytes = 4096;
#else
inline constexpr std::uint32_t page_bytes = 16384;
#endif

using mine =
    instinfer::design<instinfer::attention::dense, instinfer::layout::token_indexed<page_bytes>,
                      instinfer::flash::instcsd, instinfer::transfer::in_storage>;

void use() { instinfer::cpu::engine<mine> engine({}, {}); }
