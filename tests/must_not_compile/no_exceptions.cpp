// expect: instinfer: compile with exceptions (no -fno-exceptions)
// What g++ and clang++ leave undefined under -fno-exceptions.
#ifndef CONTROL
#undef __cpp_exceptions
#endif
#include <instinfer/instinfer.hpp>

int main() { return instinfer::model_shape{}.layers; }
