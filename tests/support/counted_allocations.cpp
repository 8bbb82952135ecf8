#include "tests/support/counted_allocations.hpp"

#include <cstdlib>
#include <new>

namespace instinfer::test {

std::int64_t allocations = 0;
std::int64_t allocations_left = -1;

}  // namespace instinfer::test

// Every form that the standard library calls without an alignment, so that what one allocates
// another may free: std::stable_sort asks with nothrow and frees with the plain form.
// Not inlined: g++ would otherwise see malloc meet operator delete, and warn.
[[gnu::noinline]] void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  using namespace instinfer::test;
  ++allocations;
  if (allocations_left == 0) {
    return nullptr;
  }
  if (allocations_left > 0) {
    --allocations_left;
  }
  return std::malloc(bytes == 0 ? 1 : bytes);
}
[[gnu::noinline]] void* operator new(std::size_t bytes) {
  if (void* p = operator new(bytes, std::nothrow)) {
    return p;
  }
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::size_t) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, const std::nothrow_t&) noexcept { std::free(p); }
