# The GPU side: needs nvcc and the CUDA libraries that libtorch_cuda links, which the wheels next to torch bring
# (scripts/setup --cuda on, or --dev). AUTO takes it where both are there.
set(MULTIVERSE_CUDA AUTO CACHE STRING "Build for NVIDIA GPUs: AUTO, ON or OFF")
set(MULTIVERSE_CUDA_ARCHITECTURES 90a CACHE STRING "GPU architectures, for instance 80;89;90a;100;120")

set(have_cuda OFF)
if(NOT MULTIVERSE_CUDA STREQUAL OFF)
  get_filename_component(site_packages ${MULTIVERSE_TORCH_DIR} DIRECTORY)
  find_program(MULTIVERSE_NVCC nvcc
    PATHS ENV CUDA_HOME ENV CUDA_PATH /usr/local/cuda ${site_packages}/nvidia/cu13 PATH_SUFFIXES bin)
  set(cuda_libraries ${site_packages}/nvidia/cu13/lib)
  set(missing "")
  if(NOT MULTIVERSE_NVCC)
    list(APPEND missing "nvcc")
  endif()
  foreach(library libcublas.so.13 libcudart.so.13 libcusparse.so.12)
    if(NOT EXISTS ${cuda_libraries}/${library})
      list(APPEND missing ${library})
    endif()
  endforeach()
  if(NOT missing)
    set(have_cuda ON)
  elseif(MULTIVERSE_CUDA STREQUAL ON)
    message(FATAL_ERROR "MULTIVERSE_CUDA is ON, but these are missing: ${missing}. scripts/setup --cuda on installs them")
  else()
    message(STATUS "Built without CUDA (missing: ${missing}; scripts/setup --cuda on installs them)")
  endif()
endif()

if(have_cuda)
  set(CMAKE_CUDA_COMPILER ${MULTIVERSE_NVCC})
  set(CMAKE_CUDA_ARCHITECTURES ${MULTIVERSE_CUDA_ARCHITECTURES})
  set(CMAKE_CUDA_RUNTIME_LIBRARY None)  # the wheel's, which torch uses
  set(CMAKE_CUDA_STANDARD 17)           # CMake 3.25 knows no CUDA20
  if(CMAKE_CXX_COMPILER_LAUNCHER)
    set(CMAKE_CUDA_COMPILER_LAUNCHER ${CMAKE_CXX_COMPILER_LAUNCHER})
  endif()
  enable_language(CUDA)
  add_library(cudart SHARED IMPORTED)
  set_target_properties(cudart PROPERTIES
    IMPORTED_LOCATION ${cuda_libraries}/libcudart.so.13
    INTERFACE_INCLUDE_DIRECTORIES "${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES}")
  foreach(name c10_cuda torch_cuda)
    add_library(${name} SHARED IMPORTED)
    set_target_properties(${name} PROPERTIES IMPORTED_LOCATION ${MULTIVERSE_TORCH_DIR}/lib/lib${name}.so)
  endforeach()
  set_property(TARGET c10_cuda PROPERTY INTERFACE_LINK_LIBRARIES "cudart;c10")
  # torch_cuda registers its operators when it is loaded: it must be linked though no symbol of it is named.
  set_property(TARGET torch_cuda PROPERTY INTERFACE_LINK_LIBRARIES "c10_cuda;torch_cpu")
  set_property(TARGET torch_cuda PROPERTY INTERFACE_LINK_OPTIONS
    "-Wl,--no-as-needed,${MULTIVERSE_TORCH_DIR}/lib/libtorch_cuda.so,--as-needed")
endif()
