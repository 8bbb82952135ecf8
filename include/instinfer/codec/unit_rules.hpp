#pragma once
// What the including translation unit must have, and what it may have: exceptions, and macros named
// like functions of the standard library.

// Every error of the library is an exception.
#if !defined(__cpp_exceptions)
#error \
    "instinfer: compile with exceptions (no -fno-exceptions): errors are thrown, see core/errors.hpp"
#endif

// windows.h and others define these. libstdc++ undefines them as well, but a unit may define them
// after the headers of the standard library.
#undef min
#undef max
