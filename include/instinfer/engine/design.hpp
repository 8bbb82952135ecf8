#pragma once
// A design point of the paper's space as one type, and the named designs.
// Its parts are the attention policy, the KV page layout, the drive (flash channel geometry) and
// the transfer policy.

#include "instinfer/layout/dual.hpp"
#include "instinfer/layout/token_indexed.hpp"
#include "instinfer/methods/dense.hpp"
#include "instinfer/methods/sparf.hpp"
#include "instinfer/methods/sparq.hpp"
#include "instinfer/ssd/spec/presets.hpp"
#include "instinfer/transfer/gpu_direct.hpp"
#include "instinfer/transfer/host_bounce.hpp"
#include "instinfer/transfer/in_storage.hpp"

namespace instinfer {

// Drive is a flash::drive_spec value. All paths use the same design.
template <class Attention, class Layout, auto Drive, class Transfer>
struct design {
  static_assert(
      attention::AttentionPolicy<Attention>,
      "instinfer: the attention policy lacks `summaries` or operator()(machine, query), see attention/concepts.hpp");
  static_assert(
      layout::Layout<Layout>,
      "instinfer: the layout lacks `page_bytes` or `tiles<Format>(context_tokens)`, see layout/concepts.hpp");
  static_assert(std::same_as<std::remove_cvref_t<decltype(Drive)>, flash::drive_spec>,
                "instinfer: the drive is not a flash::drive_spec value, see ssd/spec/presets.hpp");
  static_assert(
      flash::valid(Drive),
      "instinfer: the drive's geometry, timing or rates are not valid, see ssd/spec/geometry.hpp and ssd/spec/presets.hpp");
  static_assert(
      transfer::Transfer<Transfer>,
      "instinfer: the transfer policy lacks `computes_in_drive`, bytes() or time(), see transfer/concepts.hpp");

  using attention_policy = Attention;
  using layout_policy = Layout;
  using transfer_policy = Transfer;
  static constexpr flash::drive_spec drive = Drive;
};

template <class D>
concept Design = requires {
  typename D::attention_policy;
  typename D::layout_policy;
  typename D::transfer_policy;
  { D::drive } -> std::convertible_to<flash::drive_spec>;
};

// The systems of InstInfer §VI-A, as far as they differ in one attention call.
using insta =
    design<attention::dense, layout::token_indexed<>, flash::instcsd, transfer::in_storage>;
using insta_sparf = design<attention::sparf, layout::dual<>, flash::instcsd, transfer::in_storage>;
using flexgen =
    design<attention::dense, layout::token_indexed<>, flash::pcie4_ssd, transfer::host_bounce>;
using flexgen_gds =
    design<attention::dense, layout::token_indexed<>, flash::pcie4_ssd, transfer::gpu_direct>;
using flexgen_sparq =
    design<attention::sparq, layout::dual<>, flash::pcie4_ssd, transfer::host_bounce>;

}  // namespace instinfer
