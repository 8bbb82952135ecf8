#pragma once
// What the library's arithmetic needs of the compiler: rounding as written, and infinities.

// Exponentials and codes are rounded by adding and subtracting 1.5 * 2^23, and an empty softmax
// state has the maximum -infinity. Under the flags below both are compiled away: attention was then
// wrong by 0.1 to 1.1 without a word.
#if defined(__FAST_MATH__) || defined(__ASSOCIATIVE_MATH__) || \
    (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__)
#error \
    "instinfer: compile without -ffast-math, -Ofast, -fassociative-math and -ffinite-math-only: results rely on rounding and on infinity"
#endif

// clang++ does not tell of -fassociative-math alone. A function that rounds says so for itself, as
// its first line.
#if defined(__clang__)
#define INSTINFER_ROUNDS_AS_WRITTEN _Pragma("clang fp reassociate(off)")
#else
#define INSTINFER_ROUNDS_AS_WRITTEN
#endif
