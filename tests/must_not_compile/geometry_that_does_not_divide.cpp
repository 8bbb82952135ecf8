// expect: instinfer: the geometry of an ftl_store is not valid, see ssd/spec/geometry.hpp
// Codewords that do not divide the page.
#include "instinfer/flash/ftl_store.hpp"

#ifdef CONTROL
inline constexpr int codeword_bytes = 1024;
#else
inline constexpr int codeword_bytes = 1000;
#endif

inline constexpr instinfer::flash::geometry shape{
    .channels = 2, .blocks = 16, .pages = 4, .codeword_bytes = codeword_bytes};

void use() { instinfer::flash::ftl_store<shape> pages(2, 8, 4096); }
