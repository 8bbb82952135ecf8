#pragma once
// Lets a program that builds and drops large engines over and over keep its memory.

#include <cstdlib>  // names the C library

#if defined(__GLIBC__)
#include <malloc.h>
#endif

namespace instinfer::examples {

// By default glibc gives large blocks back to the kernel as soon as they are freed, and the next
// engine gets them by page faults again, page by page: of 14 ms that a design point took, 5 (40
// heads, 8 sequences of 2048 tokens).
inline void keep_freed_memory() {
#if defined(__GLIBC__)
  mallopt(M_MMAP_THRESHOLD, 32 << 20);  // the most that glibc takes
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
#endif
}

}  // namespace instinfer::examples
