#pragma once
// The formats that ./dev bench tune measures.

#include <instinfer/codec/scaled_pages.hpp>
#include <instinfer/core/shape.hpp>

namespace instinfer::bench {

using tuned_f16 = kv_format<fp16, 128>;
using tuned_f32 = kv_format<fp32, 128>;
using tuned_i8 = kv_format<int8_pages<fp16>, 128>;

}  // namespace instinfer::bench
