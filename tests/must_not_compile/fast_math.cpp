// expect: instinfer: compile without -ffast-math, -Ofast, -fassociative-math and -ffinite-math-only
// What g++ and clang++ define under -ffast-math: rounding and infinity would be compiled away.
#ifndef CONTROL
#define __FAST_MATH__ 1
#endif
#include <instinfer/instinfer.hpp>

int main() { return instinfer::round_to_int(0.4f); }
