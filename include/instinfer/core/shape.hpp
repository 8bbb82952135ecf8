#pragma once
// Shapes: head sizes and storage of KV entries (compile time); heads and layers of a model (run
// time).

#include <cstddef>
#include <string>
#include <type_traits>

#include "instinfer/codec/page_codec.hpp"
#include "instinfer/core/errors.hpp"

namespace instinfer {

// The largest head size: that of DeepSeek's latent rows.
inline constexpr int largest_head_dim = 576;

// Whether V has rows of its own, or is the first dims of K's rows.
enum class value_rows { own, in_keys };

// The format of one KV entry: K rows are [KDim], V rows are [VDim]. Storage is an element type
// (fp32, fp16, bf16) or a codec that stores elements in fewer bytes: kv_format<int8_pages<fp16>,
// 128>. Head sizes go from 1 to 576. For latent rows, see latent_format.
template <class Storage = fp16, int KDim = 128, int VDim = KDim,
          value_rows Values = value_rows::own>
struct kv_format {
  static_assert(
      PageCodec<codec_of<Storage>>,
      "instinfer: a KV format stores fp32, fp16, bf16 or pages of a codec, see codec/page_codec.hpp");
  static_assert(KDim > 0 && KDim <= largest_head_dim && VDim > 0 && VDim <= largest_head_dim,
                "instinfer: head sizes go from 1 to 576, see core/shape.hpp");
  static constexpr bool latent = Values == value_rows::in_keys;
  static_assert(!latent || VDim <= KDim,
                "instinfer: V of latent rows is a part of K's rows, so VDim is at most KDim");
  static_assert(!latent || dim_bytes<codec_of<Storage>> == 0,
                "instinfer: latent rows have no scales of dims, because V would need them, too");
  using storage = Storage;
  using codec = codec_of<Storage>;
  using packed = typename codec::packed;    // a sealed page is an array of these
  using element = typename codec::element;  // the type that append takes
  static constexpr bool plain = std::is_same_v<codec, plain_pages<element>>;

  // Kernels take rows of whole vectors of 16 elements, and codecs take whole groups. The cache adds
  // zeros to other rows. Callers pass and get rows of the true head sizes.
  static constexpr int row_unit = packed_elements<packed> % 16 == 0 ? packed_elements<packed>
                                  : 16 % packed_elements<packed> == 0
                                      ? 16
                                      : 16 * packed_elements<packed>;
  static constexpr int k_row = (KDim + row_unit - 1) / row_unit * row_unit;
  // V of latent rows is a part of a row, and begins where K does.
  static constexpr int v_unit = latent ? 16 : row_unit;
  static constexpr int v_row = (VDim + v_unit - 1) / v_unit * v_unit;
  static constexpr bool is_padded = k_row != KDim || v_row != VDim;
  // The format of the rows as they are stored.
  using padded = kv_format<Storage, k_row, v_row, Values>;

  // Format of pages in the group buffer, before they are sealed.
  using open = kv_format<element, KDim, VDim, Values>;
  // Format of decoded values.
  using decoded = std::conditional_t<plain, open, kv_format<fp32, KDim, VDim, Values>>;

  static constexpr int k_dim = KDim;
  static constexpr int v_dim = VDim;
  static constexpr int element_bytes = sizeof(element);
  // Bytes of one token's K and V as they are appended. Latent rows are appended as K alone.
  static constexpr int appended_bytes = (KDim + (latent ? 0 : VDim)) * element_bytes;
  // Bytes of one token's K and V, each stored once, in sealed pages, without scales.
  static constexpr int token_bytes = (k_row + (latent ? 0 : v_row)) /
                                     static_cast<int>(packed_elements<packed>) *
                                     static_cast<int>(sizeof(packed));
};

// Latent rows (MLA, DeepSeek-V2 §2.1): a token has one row of KDim values, its key, whose first
// VDim values are also its value. Each byte is stored, read and sent once. append takes k alone.
// All query heads of such a model share one KV head: latent_format<bf16, 576, 512> with
// model_shape{.q_heads = 128, .kv_heads = 1}.
template <class Storage, int KDim, int VDim>
using latent_format = kv_format<Storage, KDim, VDim, value_rows::in_keys>;

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
