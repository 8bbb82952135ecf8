// expect: instinfer: a summary cannot take tokens back, its state lacks any_order or truncate\(n, all\)
// A cache whose summary would keep what was taken back.
#include "instinfer/cpu/engine.hpp"

struct newest_key {
  template <class Format>
  struct state {
    using row = std::span<const typename Format::element>;
    void append(row k, row /*v*/) noexcept {
      ++tokens;
      first_dim = k[0];
    }
    void forget(row /*k*/, row /*v*/) noexcept {}
#ifdef CONTROL
    // Made anew from the last token that stays.
    std::uint32_t whole_before(std::uint32_t n) const { return n == 0 ? 0 : n - 1; }
    void truncate(std::uint32_t n, const auto&) noexcept { tokens = n; }
#endif
    std::uint32_t tokens = 0;
    typename Format::element first_dim{};
  };
};

struct remembering : instinfer::attention::dense {
  using summaries = instinfer::attention::summary_list<newest_key>;
};

using remembers = instinfer::design<remembering, instinfer::layout::token_indexed<>,
                                    instinfer::flash::instcsd, instinfer::transfer::in_storage>;

void take_back() {
  instinfer::cpu::engine<remembers> engine({}, {});
  engine.truncate(engine.open(), 0);
}
