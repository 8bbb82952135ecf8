#pragma once
// Rows of a caller as the engine takes them: without gaps, of its own element type.

#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "instinfer/codec/element.hpp"
#include "instinfer/core/errors.hpp"
#include "instinfer_llm.h"

namespace instinfer::llm {

template <class E>
inline constexpr int type_of = std::is_same_v<E, fp32>   ? INSTINFER_LLM_FP32
                               : std::is_same_v<E, fp16> ? INSTINFER_LLM_FP16
                                                         : INSTINFER_LLM_BF16;

// Tokens [first, first + tokens) of rows [tokens, heads, dim] with elements of `type`. Rows that
// are without gaps and of type To are not copied; others go to `copy`. Throws bad_argument for
// absent rows and unknown types.
template <class To>
std::span<const To> packed(const instinfer_llm_rows& rows, int type, std::size_t first,
                           std::size_t tokens, std::size_t heads, std::size_t dim, const char* what,
                           std::vector<To>& copy) {
  require(rows.data != nullptr || tokens == 0,
          [&] { return std::string(what) + ": there are no rows"; });
  const auto token_stride = static_cast<std::ptrdiff_t>(rows.token_stride);
  const auto head_stride = static_cast<std::ptrdiff_t>(rows.head_stride);
  const auto row = static_cast<std::ptrdiff_t>(heads * dim);
  const bool in_place = (heads == 1 || head_stride == static_cast<std::ptrdiff_t>(dim)) &&
                        (tokens == 1 || token_stride == row);
  if (type == type_of<To> && in_place) {
    return {static_cast<const To*>(rows.data) + static_cast<std::ptrdiff_t>(first) * token_stride,
            tokens * heads * dim};
  }
  copy.resize(tokens * heads * dim);
  const auto gather = [&]<class From>(const From* from) {
    for (std::size_t t = 0; t < tokens; ++t) {
      for (std::size_t h = 0; h < heads; ++h) {
        const From* x = from + static_cast<std::ptrdiff_t>(first + t) * token_stride +
                        static_cast<std::ptrdiff_t>(h) * head_stride;
        To* to = copy.data() + (t * heads + h) * dim;
        for (std::size_t i = 0; i < dim; ++i) {
          if constexpr (std::is_same_v<From, To>) {
            to[i] = x[i];
          } else if constexpr (std::is_same_v<To, fp32>) {
            to[i] = to_float(x[i]);
          } else {
            to[i] = from_float<To>(to_float(x[i]));
          }
        }
      }
    }
  };
  switch (type) {
    case INSTINFER_LLM_FP32:
      gather(static_cast<const fp32*>(rows.data));
      break;
    case INSTINFER_LLM_FP16:
      gather(static_cast<const fp16*>(rows.data));
      break;
    case INSTINFER_LLM_BF16:
      gather(static_cast<const bf16*>(rows.data));
      break;
    default:
      throw bad_argument(std::string(what) +
                         ": the element type must be 0 (fp32), 1 (fp16) or 2 "
                         "(bf16), got " +
                         std::to_string(type));
  }
  return copy;
}

}  // namespace instinfer::llm
