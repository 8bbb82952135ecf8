#pragma once
// KV formats by width alone, for timing: int8 as one byte an element, without its scales.

#include "instinfer/core/shape.hpp"

namespace instinfer::system {

// Stands where a kv_format does in a path that holds no data: plans and the drive's timeline ask for sizes only.
template <int ElementBytes, int KDim = 128, int VDim = KDim>
struct kv_width {
  static_assert(ElementBytes > 0 && KDim > 0 && VDim > 0,
                "instinfer: widths and head sizes are positive, see system/kv_width.hpp");
  using element = fp16;  // of summaries, which are never formed; entries have element_bytes
  static constexpr int k_dim = KDim;
  static constexpr int v_dim = VDim;
  static constexpr int element_bytes = ElementBytes;
  static constexpr int token_bytes = (KDim + VDim) * element_bytes;  // K and V once
};

using int8_kv = kv_width<1>;

}  // namespace instinfer::system
