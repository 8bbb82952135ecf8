#pragma once
// The contract of a page codec: how a sealed page stores values.
// A layout maps (token, dim) to an element offset in the page; a codec maps element offsets to
// bytes. mdspan splits layout and accessor in the same way. Codecs store K and V in fewer bytes:
//
//   plain_pages<E>   the values as they were appended: fp32, fp16, bf16            this header
//   int8_pages<E>    8-bit integers, one scale per page                            scaled_pages.hpp
//   fp8_pages<E>     8-bit floating point (e4m3), one scale per page               scaled_pages.hpp
//   int4_groups<E>   4-bit codes, a step and a minimum per 64 values (FlexGen)     int4_groups.hpp
//   int8_dims<E>, int4_dims<E>   a centre and a scale for each dim of K (KIVI)     dim_scales.hpp
//   fp8_latent_rows  latent rows of 576 values in 656 bytes (DeepSeek)        fp8_latent_rows.hpp
//
// E is the type that append takes, and the type of a page while it is open in the group buffer. A
// page is encoded once, when it is sealed, so no value is rounded twice. The scale is stored in the
// page itself, so reading a page from flash gives everything that decoding needs.

#include <cstddef>
#include <cstring>
#include <span>

#include "instinfer/codec/element.hpp"

namespace instinfer {

// Number of consecutive elements in one packed value: 1, or the length of a group.
template <class Packed>
inline constexpr std::uint32_t packed_elements = 1;

// A sealed page is an array of `packed`. If scale_bytes is not 0, its last bytes hold an fp32 that
// multiplies all values. Semantics: encode() writes values [elements] and the scale to a page, and
// fills the rest with zeros. value() returns element i before scaling. holds() says whether
// encode() can store a given finite value; a codec whose range is smaller than the element's also
// names its `largest`. The CPU path also needs load_at(const packed*, i): see
// cpu/coded_load-inl.hpp.
template <class C>
concept PageCodec =
    Element<typename C::element> &&
    requires(const typename C::packed* packed, std::size_t i,
             std::span<const typename C::element> values, std::span<std::byte> page, float x) {
      { C::name } -> std::convertible_to<const char*>;
      { C::scale_bytes } -> std::convertible_to<std::uint32_t>;
      { C::value(packed, i) } noexcept -> std::same_as<float>;
      { C::encode(values, page) } noexcept;
      { C::holds(x) } -> std::same_as<bool>;
    };

// Rows of K in a page: value (t, i) is element origin + t * token_stride + i.
struct key_rows {
  std::uint32_t tokens = 0;
  std::uint32_t dims = 0;
  std::uint32_t token_stride = 0;
  std::uint32_t origin = 0;

  // The dim of an element of the page; dims or more if it is none of K.
  std::uint32_t dim_of(std::size_t element) const {
    const std::size_t from_first = element - origin;
    return element >= origin && from_first / token_stride < tokens
               ? static_cast<std::uint32_t>(from_first % token_stride)
               : dims;
  }
};

// Bytes that a codec keeps for each dim in pages of K by token: a scale and a centre. Such a codec
// also has encode(values, key_rows, page) for these pages (codec/dim_scales.hpp).
template <class C>
inline constexpr std::uint32_t dim_bytes = 0;
template <class C>
  requires requires { C::dim_bytes; }
inline constexpr std::uint32_t dim_bytes<C> = C::dim_bytes;

template <Element E>
struct plain_pages {
  using element = E;
  using packed = E;
  static constexpr const char* name = element_name<E>;
  static constexpr std::uint32_t scale_bytes = 0;

  static float value(const E* elements, std::size_t i) noexcept { return to_float(elements[i]); }
  static void encode(std::span<const E> values, std::span<std::byte> page) noexcept {
    std::memcpy(page.data(), values.data(), values.size_bytes());
    std::memset(page.data() + values.size_bytes(), 0, page.size() - values.size_bytes());
  }
  static constexpr bool holds(float) { return true; }
};

namespace detail {

template <class Storage>
struct codec_of {
  using type = Storage;
};
template <Element E>
struct codec_of<E> {
  using type = plain_pages<E>;
};

}  // namespace detail

// The codec of a format's storage type. An element type stands for its plain pages.
template <class Storage>
using codec_of = typename detail::codec_of<Storage>::type;

// A decoded value as an element that can be encoded again. Where a codec's steps end beyond its
// range, it becomes the largest value of the range.
template <PageCodec C>
constexpr typename C::element held(float x) {
  constexpr float most = [] {
    if constexpr (requires { C::largest; }) {
      return C::largest < largest_finite<typename C::element> ? C::largest
                                                              : largest_finite<typename C::element>;
    } else {
      return largest_finite<typename C::element>;
    }
  }();
  return from_float<typename C::element>(x > most ? most : x < -most ? -most : x);
}

// Number of elements that fit in a page, or in a page of K by token with `k_dims` dims.
template <PageCodec C>
constexpr std::uint32_t elements_in(std::uint32_t page_bytes, std::uint32_t k_dims = 0) {
  using packed = typename C::packed;
  constexpr std::uint32_t packed_bytes = sizeof(packed);
  const std::uint32_t scales = C::scale_bytes + dim_bytes<C> * k_dims;
  if (page_bytes <= scales) {
    return 0;
  }
  return (page_bytes - scales) / packed_bytes * packed_elements<packed>;
}

// Reads the scale of a sealed page. A codec without scales gives 1 and reads no memory.
template <PageCodec C, bool Scaled = (C::scale_bytes > 0)>
struct page_scale {
  page_scale() = default;
  constexpr page_scale(const std::byte* /*page*/, std::size_t /*page_bytes*/) {}
  constexpr float operator()() const { return 1.0f; }
};
template <PageCodec C>
struct page_scale<C, true> {
  const std::byte* at = nullptr;

  page_scale() = default;
  page_scale(const std::byte* page, std::size_t page_bytes)
      : at{page + page_bytes - sizeof(float)} {}
  float operator()() const {
    float scale;
    std::memcpy(&scale, at, sizeof(scale));
    return scale;
  }
};

// Finds the scale and the centre of each dim in a sealed page of K by token; a codec without them
// has none.
template <PageCodec C, bool Scaled = (dim_bytes<C> > 0)>
struct page_dims {
  page_dims() = default;
  constexpr page_dims(const std::byte* /*page*/, std::size_t /*page_bytes*/,
                      std::uint32_t /*dims*/) {}
  constexpr bool stored() const { return false; }
  constexpr float value(float code, std::uint32_t /*dim*/) const { return code; }
};
template <PageCodec C>
struct page_dims<C, true> {
  const bf16* scales = nullptr;  // [dims], then centres [dims]; null: not a page of K by token
  std::uint32_t dims = 0;

  page_dims() = default;
  page_dims(const std::byte* page, std::size_t page_bytes, std::uint32_t of_dims)
      : scales{reinterpret_cast<const bf16*>(page + page_bytes - C::scale_bytes -
                                             std::size_t{C::dim_bytes} * of_dims)},
        dims{of_dims} {}
  bool stored() const { return scales != nullptr; }
  float value(float code, std::uint32_t dim) const {
    return to_float(scales[dims + dim]) + to_float(scales[dim]) * code;
  }
};

// Bytes of wanted entries, without the rest of their pages. Entries of sealed pages are coded,
// entries of open pages are as appended.
struct entry_size {
  std::uint32_t packed_bytes = 0;
  std::uint32_t packed_elements = 1;
  std::uint32_t scale_bytes = 0;  // per page
  std::uint32_t open_bytes = 0;   // per element
  std::uint32_t dim_bytes = 0;    // per dim that is wanted of a page of K by token

  // A part of a group counts by its share of elements.
  constexpr std::uint64_t sealed(std::uint64_t elements, std::uint64_t pages) const {
    return (elements * packed_bytes + packed_elements - 1) / packed_elements + pages * scale_bytes;
  }
  constexpr std::uint64_t open(std::uint64_t elements) const { return elements * open_bytes; }
};

template <PageCodec C>
inline constexpr entry_size entry_size_of{sizeof(typename C::packed),
                                          packed_elements<typename C::packed>, C::scale_bytes,
                                          sizeof(typename C::element), dim_bytes<C>};

}  // namespace instinfer
