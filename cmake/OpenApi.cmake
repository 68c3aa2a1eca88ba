# Puts src/api/openapi.json into a module, as openapi_document().
function(multiverse_openapi module)
  set(source ${PROJECT_SOURCE_DIR}/src/api/openapi.json)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${source})
  file(READ ${source} document)
  string(CONFIGURE "${document}" document @ONLY)
  set(output ${CMAKE_CURRENT_BINARY_DIR}/openapi_document.cpp)
  file(CONFIGURE OUTPUT ${output} @ONLY CONTENT [[
// Written by cmake/OpenApi.cmake.
#include "multiverse/api/endpoints.h"

#pragma GCC diagnostic ignored "-Woverlength-strings"

std::string_view multiverse::openapi_document() {
  return R"openapi(@document@)openapi";
}
]])
  target_sources(${module} PRIVATE ${output})
endfunction()
