// expect: instinfer: the layout lacks `page_bytes` or `tiles<Format>(context_tokens)`, see layout/concepts.hpp
// A layout that names its page size only.
#include "instinfer/cpu/engine.hpp"

struct rows {
  static constexpr std::uint32_t page_bytes = 4096;
#ifdef CONTROL
  template <class Format>
  static constexpr instinfer::layout::tiling tiles(std::uint32_t context_tokens) {
    return instinfer::layout::token_indexed<4096>::tiles<Format>(context_tokens);
  }
#endif
};

using mine = instinfer::design<instinfer::attention::dense, rows, instinfer::flash::instcsd,
                               instinfer::transfer::in_storage>;

void use() { instinfer::cpu::engine<mine> engine({}, {}); }
