# Flags of this project's own tests, examples, benchmarks and header checks; users never inherit them.
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)

set(host_flags -Wall -Wextra -Wpedantic -Wconversion -Wshadow)
if(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
  # Part of Clang's -Wconversion but not of g++'s: Eigen's signed indices meet the standard library's unsigned sizes everywhere.
  list(APPEND host_flags -Wno-sign-conversion)
endif()
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # g++ 12 sees uninitialised variables in its own AVX-512 intrinsics wherever they are inlined (GCC bug 105593).
  list(APPEND host_flags -Wno-maybe-uninitialized)
endif()
# What a user's project may ask of the headers beyond our own flags; .ci/run compiles each header so.
option(INSTINFER_STRICT "Compile with every warning that the headers are kept free of" OFF)
if(INSTINFER_STRICT)
  list(APPEND host_flags -Wsign-conversion -Wfloat-equal -Wswitch-enum -Wold-style-cast -Wdouble-promotion)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    list(APPEND host_flags -Wuseless-cast)
  endif()
endif()
if(INSTINFER_WERROR)
  list(APPEND host_flags -Werror)
endif()
if(INSTINFER_NATIVE)
  list(APPEND host_flags -march=native)
endif()

add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:${host_flags}>")
# -std by hand: CMake 3.25 knows no C++20 for nvcc. The other flag lets kernels call constexpr functions of the core.
add_compile_options("$<$<COMPILE_LANGUAGE:CUDA>:-std=c++20;--expt-relaxed-constexpr>")
if(INSTINFER_WERROR)
  # nvcc's own, ptxas's and the host compiler's; not -Wpedantic, which trips over the line markers that nvcc writes, nor
  # unknown pragmas, as Eigen's for nvcc reach the host compiler.
  add_compile_options("$<$<COMPILE_LANGUAGE:CUDA>:-Werror=all-warnings;-Xcompiler=-Wall,-Wextra,-Wconversion,-Wshadow,-Wno-unknown-pragmas>")
endif()
