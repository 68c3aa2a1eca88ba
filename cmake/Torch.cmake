# libtorch from the PyPI wheel that scripts/setup installed. The imported target is declared here: TorchConfig.cmake
# wants a CUDA toolkit on the machine. The wheel's CPU library has symbols that only its CUDA libraries define, hence
# --allow-shlib-undefined.
set(MULTIVERSE_TORCH_DIR "" CACHE PATH "The wheel's torch folder; found in build/deps where empty")
if(NOT MULTIVERSE_TORCH_DIR)
  file(GLOB torch_dirs ${PROJECT_SOURCE_DIR}/build/deps/venv/lib/python3*/site-packages/torch)
  if(NOT torch_dirs)
    message(FATAL_ERROR "libtorch not found under build/deps: run scripts/setup first, or set MULTIVERSE_TORCH_DIR")
  endif()
  list(GET torch_dirs 0 MULTIVERSE_TORCH_DIR)
endif()
foreach(name c10 torch_cpu)
  add_library(${name} SHARED IMPORTED)
  set_target_properties(${name} PROPERTIES
    IMPORTED_LOCATION ${MULTIVERSE_TORCH_DIR}/lib/lib${name}.so
    INTERFACE_INCLUDE_DIRECTORIES ${MULTIVERSE_TORCH_DIR}/include)
endforeach()
set_property(TARGET torch_cpu PROPERTY INTERFACE_LINK_LIBRARIES c10)
set_property(TARGET torch_cpu PROPERTY INTERFACE_LINK_OPTIONS -Wl,--allow-shlib-undefined)
