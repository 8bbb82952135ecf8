// expect: instinfer: all kinds of layers take K and V of one element type
// Layers of fp16 beside layers of bf16 under one handle.
#include "instinfer/cpu.hpp"
#include "instinfer/engine/layered_engine.hpp"

template <class Format, class Store>
using my_engine = instinfer::engine<instinfer::insta, Format, instinfer::cpu::path, Store>;

#ifdef CONTROL
using second = instinfer::fp16;
#else
using second = instinfer::bf16;
#endif

using mine = instinfer::layered_engine<my_engine, instinfer::store::memory,
                                       instinfer::kv_format<instinfer::fp16, 64>,
                                       instinfer::kv_format<second, 128>>;

std::size_t use() { return mine::kinds; }
