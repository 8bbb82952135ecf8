# The library: one INTERFACE target for each path, because each brings one heavy dependency.
#   instinfer::instinfer   the standard library only
#   instinfer::reference   + Eigen        instinfer::cpu   + Highway        instinfer::cuda   + CUDA runtime
#   instinfer::mpi         + MPI (the room cluster/)
include(${CMAKE_CURRENT_LIST_DIR}/dependencies.cmake)

set(instinfer_include ${PROJECT_SOURCE_DIR}/include)
file(GLOB_RECURSE core_headers CONFIGURE_DEPENDS ${instinfer_include}/instinfer/*.hpp)
foreach(path reference cpu cuda mpi)
  string(REPLACE mpi cluster room ${path}) # a room is called by what it does
  file(GLOB_RECURSE ${path}_headers CONFIGURE_DEPENDS
       ${instinfer_include}/instinfer/${room}/*.hpp ${instinfer_include}/instinfer/${room}/*.cuh
       ${instinfer_include}/instinfer/${path}.hpp ${instinfer_include}/instinfer/${path}.cuh)
  if(${path}_headers)
    list(REMOVE_ITEM core_headers ${${path}_headers})
  endif()
endforeach()

# Lets `cmake --build . --target all_verify_interface_header_sets` compile every header alone. Not the CUDA ones: they need nvcc.
set(CMAKE_VERIFY_INTERFACE_HEADER_SETS ${PROJECT_IS_TOP_LEVEL})

add_library(instinfer INTERFACE)
add_library(instinfer::instinfer ALIAS instinfer)
target_compile_features(instinfer INTERFACE cxx_std_20)
target_sources(instinfer INTERFACE FILE_SET HEADERS BASE_DIRS ${instinfer_include} FILES ${core_headers})

foreach(path reference cpu cuda mpi)
  add_library(instinfer_${path} INTERFACE)
  set_target_properties(instinfer_${path} PROPERTIES EXPORT_NAME ${path})
  target_link_libraries(instinfer_${path} INTERFACE instinfer)
  target_sources(instinfer_${path} INTERFACE FILE_SET HEADERS BASE_DIRS ${instinfer_include} FILES ${${path}_headers})
endforeach()
set_target_properties(instinfer_cuda PROPERTIES VERIFY_INTERFACE_HEADER_SETS OFF)

target_link_libraries(instinfer_reference INTERFACE Eigen3::Eigen)
# The library is linked for hwy::Abort alone, which unoptimised and sanitised builds call from Highway's own assertions.
target_link_libraries(instinfer_cpu INTERFACE hwy::hwy)
# Without it, Highway 1.0 stops with #error on processors newer than its table of -march=native baselines.
target_compile_definitions(instinfer_cpu INTERFACE HWY_COMPILE_ONLY_STATIC)
target_link_libraries(instinfer_mpi INTERFACE MPI::MPI_CXX)
target_compile_definitions(instinfer_mpi INTERFACE OMPI_SKIP_MPICXX MPICH_SKIP_MPICXX) # the C interface alone
target_link_libraries(instinfer_cuda INTERFACE CUDA::cudart)
# Kernels are constexpr templates, so that tests can run them on the host; nvcc calls such functions on a device with this flag.
target_compile_options(instinfer_cuda INTERFACE $<$<COMPILE_LANGUAGE:CUDA>:--expt-relaxed-constexpr>)

# A path whose dependency is missing is left out here (and still installed: headers need nothing to be copied).
foreach(path reference cpu cuda mpi)
  string(TOUPPER ${path} switch)
  if(path MATCHES "cuda|mpi" AND NOT INSTINFER_${switch})
    set(instinfer_${path}_FOUND FALSE)
    set(instinfer_${path}_REASON "instinfer::${path} is off (INSTINFER_${switch}=OFF)")
  else()
    instinfer_find_dependency(${path})
  endif()
  if(instinfer_${path}_FOUND)
    add_library(instinfer::${path} ALIAS instinfer_${path})
  else()
    set_target_properties(instinfer_${path} PROPERTIES VERIFY_INTERFACE_HEADER_SETS OFF)
    message(STATUS "${instinfer_${path}_REASON}: left out")
  endif()
endforeach()

function(instinfer_need path)
  if(NOT TARGET instinfer::${path})
    message(FATAL_ERROR "${instinfer_${path}_REASON}. Install it, or build only the library:\n"
            "  -DINSTINFER_BUILD_TESTS=OFF -DINSTINFER_BUILD_EXAMPLES=OFF -DINSTINFER_BUILD_BENCH=OFF")
  endif()
endfunction()

# find_package with a failure message that names the Debian package.
macro(instinfer_find_tool package debian purpose)
  find_package(${package} QUIET)
  if(NOT ${package}_FOUND)
    message(FATAL_ERROR "${purpose} need ${package} (Debian: ${debian})")
  endif()
endmacro()
