// expect: instinfer: a KV format stores fp32, fp16, bf16 or pages of a codec, see codec/page_codec.hpp
// A codec that cannot seal a page.
#include "instinfer/instinfer.hpp"

struct sign_pages : instinfer::plain_pages<instinfer::fp16> {
#ifndef CONTROL
  static void encode(int) = delete;
#endif
};

using format = instinfer::kv_format<sign_pages, 128>;

void use() { instinfer::flash::engine<instinfer::insta, format> engine({}, {}); }
