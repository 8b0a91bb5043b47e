set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)

if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE RelWithDebInfo CACHE STRING "" FORCE)
endif()

find_program(SLUICE_CCACHE ccache)
if(SLUICE_CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${SLUICE_CCACHE})
endif()

set(SLUICE_SANITIZE "" CACHE STRING "address, thread, fuzzer (needs clang) or empty")

add_library(sluice_options INTERFACE)
target_include_directories(sluice_options INTERFACE ${PROJECT_SOURCE_DIR})
target_compile_options(sluice_options INTERFACE -Wall -Wextra -Wshadow -Wnon-virtual-dtor
  -Woverloaded-virtual -Werror)
target_compile_definitions(sluice_options INTERFACE SLUICE_VERSION="${PROJECT_VERSION}")
# Of the preset "simulation" alone: a program built with it is for tests (base/defect.h).
option(SLUICE_DEFECTS "Build the seeded defects in" OFF)
if(SLUICE_DEFECTS)
  target_compile_definitions(sluice_options INTERFACE SLUICE_DEFECTS)
endif()
if(SLUICE_SANITIZE STREQUAL "address")
  target_compile_options(sluice_options INTERFACE -fsanitize=address,undefined
    -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_link_options(sluice_options INTERFACE -fsanitize=address,undefined)
elseif(SLUICE_SANITIZE STREQUAL "thread")
  target_compile_options(sluice_options INTERFACE -fsanitize=thread -fno-omit-frame-pointer -Wno-tsan)
  target_link_options(sluice_options INTERFACE -fsanitize=thread)
elseif(SLUICE_SANITIZE STREQUAL "fuzzer")
  # What libFuzzer counts is compiled into everything; its main() is linked into the fuzzers alone (tests/fuzz).
  target_compile_options(sluice_options INTERFACE -fsanitize=fuzzer-no-link,address,undefined
    -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_link_options(sluice_options INTERFACE -fsanitize=address,undefined)
endif()

# Most of a file's compilation is headers, so compiling the sources of a library ten at a time takes a third of the
# processor time. Names in the unnamed namespaces of one directory are therefore distinct. More at a time would cost
# memory (a compiler of ten takes 0.9 GB) and whoever edits one of them.
option(SLUICE_UNITY "Compile the sources of a library several at a time" OFF)
function(sluice_unity target)
  set_target_properties(${target} PROPERTIES UNITY_BUILD ${SLUICE_UNITY} UNITY_BUILD_BATCH_SIZE 10)
endfunction()

# sluice_library(NAME DEPS...): the .cc files of the current folder as library sluice_NAME.
function(sluice_library name)
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cc)
  list(FILTER sources EXCLUDE REGEX "/main\\.cc$")
  if(sources)
    add_library(sluice_${name} STATIC ${sources})
    sluice_unity(sluice_${name})
    target_link_libraries(sluice_${name} PUBLIC sluice_options ${ARGN})
  else()
    add_library(sluice_${name} INTERFACE)
    target_link_libraries(sluice_${name} INTERFACE sluice_options ${ARGN})
  endif()
endfunction()

# sluice_tests(NAME DEPS...): the *_test.cc files of the current folder as program test_NAME.
function(sluice_tests name)
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cc)
  if(NOT sources)
    return()
  endif()
  add_executable(test_${name} ${sources})
  sluice_unity(test_${name})
  target_link_libraries(test_${name} PRIVATE sluice_options ${ARGN} GTest::gtest GTest::gmock GTest::gtest_main)
  add_test(NAME ${name} COMMAND test_${name} --gtest_color=no)
  set_tests_properties(${name} PROPERTIES TIMEOUT 600)
endfunction()
