#pragma once
// Shapes: head sizes and storage of KV entries (compile time); heads and layers of a model (run
// time).

#include <cstddef>
#include <string>
#include <type_traits>

#include "instinfer/codec/page_codec.hpp"
#include "instinfer/core/errors.hpp"

namespace instinfer {

// The format of one KV entry: K rows are [KDim], V rows are [VDim]. Storage is an element type
// (fp32, fp16, bf16) or a codec that stores elements in fewer bytes: kv_format<int8_pages<fp16>,
// 128>. Kernels exist for any multiple of 16 up to 256; models use 64, 80, 96, 128, 192 and 256.
// Other sizes are padded with zeros, and logit_rule::scale is set for the true size.
template <class Storage = fp16, int KDim = 128, int VDim = KDim>
struct kv_format {
  static_assert(
      PageCodec<codec_of<Storage>>,
      "instinfer: a KV format stores fp32, fp16, bf16 or pages of a codec, see codec/page_codec.hpp");
  static_assert(KDim > 0 && KDim % 16 == 0 && KDim <= 256 && VDim > 0 && VDim % 16 == 0 &&
                    VDim <= 256,
                "instinfer: head size must be a multiple of 16 up to 256, see core/shape.hpp");
  using storage = Storage;
  using codec = codec_of<Storage>;
  using packed = typename codec::packed;    // a sealed page is an array of these
  using element = typename codec::element;  // the type that append takes
  static constexpr bool plain = std::is_same_v<codec, plain_pages<element>>;
  static_assert(
      KDim % static_cast<int>(packed_elements<packed>) == 0 &&
          VDim % static_cast<int>(packed_elements<packed>) == 0,
      "instinfer: a codec of groups needs head sizes that its groups divide, see codec/int4_groups.hpp");

  // Format of pages in the group buffer, before they are sealed.
  using open = kv_format<element, KDim, VDim>;
  // Format of decoded values.
  using decoded = std::conditional_t<plain, open, kv_format<fp32, KDim, VDim>>;

  static constexpr int k_dim = KDim;
  static constexpr int v_dim = VDim;
  static constexpr int element_bytes = sizeof(element);
  // Bytes of one token's K and V, each stored once, in sealed pages, without scales.
  static constexpr int token_bytes =
      (KDim + VDim) / static_cast<int>(packed_elements<packed>) * static_cast<int>(sizeof(packed));
};

// Heads and layers of a model. MHA: q_heads == kv_heads; MQA: kv_heads == 1; GQA: between.
// Query head h reads KV head h / group().
struct model_shape {
  int layers = 1;
  int q_heads = 1;
  int kv_heads = 1;

  constexpr int group() const { return q_heads / kv_heads; }

  // Values of one token: a row of `dim` for every head.
  constexpr std::size_t q_values(int dim) const {
    return static_cast<std::size_t>(q_heads) * static_cast<std::size_t>(dim);
  }
  constexpr std::size_t kv_values(int dim) const {
    return static_cast<std::size_t>(kv_heads) * static_cast<std::size_t>(dim);
  }

  // Throws bad_argument unless all counts are positive and kv_heads divides q_heads.
  void validate() const {
    require(layers > 0 && q_heads > 0 && kv_heads > 0, [&] {
      return "model_shape: layers, q_heads and kv_heads must be positive, got " +
             std::to_string(layers) + ", " + std::to_string(q_heads) + ", " +
             std::to_string(kv_heads);
    });
    require(q_heads % kv_heads == 0, [&] {
      return "model_shape: kv_heads must divide q_heads, got " + std::to_string(q_heads) +
             " query heads over " + std::to_string(kv_heads) + " KV heads";
    });
  }
};

}  // namespace instinfer
