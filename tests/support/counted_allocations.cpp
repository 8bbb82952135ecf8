#include "tests/support/counted_allocations.hpp"

#include <cstdlib>
#include <new>

namespace instinfer::test {

std::int64_t allocations = 0;
std::int64_t allocations_left = -1;

}  // namespace instinfer::test

// Not inlined: g++ would otherwise see malloc meet operator delete, and warn.
[[gnu::noinline]] void* operator new(std::size_t bytes) {
  using namespace instinfer::test;
  ++allocations;
  if (allocations_left == 0) {
    throw std::bad_alloc();
  }
  if (allocations_left > 0) {
    --allocations_left;
  }
  if (void* p = std::malloc(bytes == 0 ? 1 : bytes)) {
    return p;
  }
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::size_t) noexcept { std::free(p); }
