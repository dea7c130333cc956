# CUDA: off unless asked for (cmake --preset cuda). Sets what tensor/cuda and kernels/cuda are built with.

option(SPILLWAY_CUDA "Build the CUDA backend (needs nvcc and cuBLASLt)" OFF)
if(NOT SPILLWAY_CUDA)
  return()
endif()

enable_language(CUDA)
# CMake 3.25 does not know these of nvcc 13.
set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
find_package(CUDAToolkit REQUIRED)

set(default_chips 75 80 86 89 90a)
if(CUDAToolkit_VERSION VERSION_LESS 13)
  list(PREPEND default_chips 70)
  message(STATUS "CUDA ${CUDAToolkit_VERSION} still builds for sm_70 (V100): included")
else()
  message(STATUS "CUDA ${CUDAToolkit_VERSION} has dropped sm_70 (V100): build with CUDA 12 (--preset cuda12) for it")
endif()
set(SPILLWAY_CUDA_ARCHITECTURES ${default_chips} CACHE STRING "Compute capabilities to build for, such as 80;90a")

set(CMAKE_CUDA_ARCHITECTURES "")
set(spillway_cuda_chips "")
set(spillway_cuda_numbers "")
foreach(chip ${SPILLWAY_CUDA_ARCHITECTURES})
  list(APPEND CMAKE_CUDA_ARCHITECTURES ${chip}-real)
  string(APPEND spillway_cuda_chips "sm_${chip} ")
  string(REGEX MATCH "[0-9]+" number ${chip})
  list(APPEND spillway_cuda_numbers ${number})
endforeach()
string(STRIP "${spillway_cuda_chips}" spillway_cuda_chips)
string(REPLACE ";" "," spillway_cuda_numbers "${spillway_cuda_numbers}")
message(STATUS "CUDA code for ${spillway_cuda_chips}")

if(CCACHE)
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${CCACHE})
endif()

add_library(spillway_cuda INTERFACE)
target_link_libraries(spillway_cuda INTERFACE CUDA::cudart_static CUDA::cublasLt)
target_compile_definitions(spillway_cuda INTERFACE SPILLWAY_CUDA=1)
target_compile_options(spillway_cuda INTERFACE
  "$<$<COMPILE_LANGUAGE:CUDA>:--expt-relaxed-constexpr;-lineinfo;-Xcompiler=-Wall>")
