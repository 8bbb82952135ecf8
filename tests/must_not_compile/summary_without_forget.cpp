// expect: instinfer: a summary lacks append(k, v) or forget(k, v), both noexcept, see summaries/concepts.hpp
// A summary that cannot take back the tokens that are reclaimed.
#include "instinfer/cpu/engine.hpp"

struct token_count {
  template <class Format>
  struct state {
    using row = std::span<const typename Format::element>;
    void append(row /*k*/, row /*v*/) noexcept { ++tokens; }
#ifdef CONTROL
    void forget(row /*k*/, row /*v*/) noexcept { --tokens; }
#endif
    int tokens = 0;
  };
};

struct counting : instinfer::attention::dense {
  using summaries = instinfer::attention::summary_list<token_count>;
};

using mine = instinfer::design<counting, instinfer::layout::token_indexed<>,
                               instinfer::flash::instcsd, instinfer::transfer::in_storage>;

void use() { instinfer::cpu::engine<mine> engine({}, {}); }
