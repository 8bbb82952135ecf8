// expect: instinfer: a fault model lacks program_fails(location) or erase_fails(location), see ssd/ftl/fault_model.hpp
// Faults of programs only.
#include "instinfer/ssd/ftl/ftl.hpp"

namespace flash = instinfer::flash;

struct worn_out_channel {
  bool program_fails(const flash::location& at) const { return at.channel == 1; }
#ifdef CONTROL
  bool erase_fails(const flash::location& at) const { return at.channel == 1; }
#endif
};

void use() {
  flash::ftl<flash::kv_blocks, flash::no_pages, worn_out_channel> drive({.blocks = 8, .pages = 4},
                                                                        4);
}
