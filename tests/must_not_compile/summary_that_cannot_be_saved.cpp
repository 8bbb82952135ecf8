// expect: instinfer: a summary cannot be saved, its state lacks name(), each_part(file) or
// fits(first, tokens, all), see summaries/concepts.hpp A cache whose summary would be lost in a
// file.
#include <sstream>

#include "instinfer/cpu/engine.hpp"

struct token_count {
  template <class Format>
  struct state {
    using row = std::span<const typename Format::element>;
    void append(row /*k*/, row /*v*/) noexcept { ++tokens; }
    void forget(row /*k*/, row /*v*/) noexcept { --tokens; }
#ifdef CONTROL
    static const char* name() { return "token_count"; }
    void each_part(auto&& file) { file(tokens); }
    bool fits(std::uint32_t first, std::uint32_t end, const auto&) const {
      return tokens == static_cast<int>(end - first);
    }
#endif
    int tokens = 0;
  };
};

struct counting : instinfer::attention::dense {
  using summaries = instinfer::attention::summary_list<token_count>;
};

using mine = instinfer::design<counting, instinfer::layout::token_indexed<>,
                               instinfer::flash::instcsd, instinfer::transfer::in_storage>;

void use() {
  instinfer::cpu::engine<mine> engine({}, {});
  std::stringstream file;
  engine.save(engine.open(), file);
}
