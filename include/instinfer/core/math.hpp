#pragma once
// The functions of <cmath> that the portable headers call. libstdc++'s <cmath> brings the special
// functions of C++17 with it, which took a tenth of the memory that compiling instinfer.hpp takes.

namespace instinfer::math {

inline float sqrt(float x) { return __builtin_sqrtf(x); }
inline double sqrt(double x) { return __builtin_sqrt(x); }
inline float tanh(float x) { return __builtin_tanhf(x); }
inline double tanh(double x) { return __builtin_tanh(x); }
inline double exp(double x) { return __builtin_exp(x); }
inline double log(double x) { return __builtin_log(x); }
inline double cos(double x) { return __builtin_cos(x); }
inline double sin(double x) { return __builtin_sin(x); }
inline double pow(double base, double exponent) { return __builtin_pow(base, exponent); }
inline double ceil(double x) { return __builtin_ceil(x); }

}  // namespace instinfer::math
