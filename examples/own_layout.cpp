// A KV page layout of your own: name the tiles of the three streams, and planning, kernels and
// timing follow.
//
// This one is for drives with 16 KiB pages. K lies dim by dim inside token-indexed pages, so that
// SIMD lanes are tokens; V lies token by token.

#include "support/on_every_path.hpp"
#include "support/program.hpp"

using namespace instinfer;

struct lanes_are_tokens {
  static constexpr std::uint32_t page_bytes = 16384;

  template <class Format>
  static constexpr layout::tiling tiles(std::uint32_t /*context_tokens*/) {
    constexpr std::uint32_t tokens = layout::group_tokens<Format>(page_bytes);
    return {
        .k_by_token = layout::by_dim(tokens, Format::k_dim),  // element (t, i) at i * tokens + t
        .k_by_dim = {},                                       // no second copy of K
        .v_by_token = layout::by_token(tokens, Format::v_dim)};
  }
};

static_assert(layout::Layout<lanes_are_tokens>);

// The paper's drive with larger pages and as many bytes.
constexpr flash::drive_spec large_pages = [] {
  flash::drive_spec drive = flash::instcsd;
  drive.geometry.page_bytes = 16384;
  drive.geometry.blocks /= 4;
  return drive;
}();

int main() {
  return program::run("own_layout", [] {
    using mine = design<attention::dense, lanes_are_tokens, large_pages, transfer::in_storage>;
    const model_shape shape{.layers = 1, .q_heads = 4, .kv_heads = 4};
    return examples::on_every_path<mine, kv_format<fp16, 128>>(shape, 3000) ? 0 : 1;
  });
}
