#pragma once
// CHECK ends the process when an invariant of ours is broken. It is never for input: what a peer controls is
// handled with an error. On in every build.

#include <cstdio>
#include <cstdlib>

#define POINTSMAN_CHECK(condition)                                                           \
  do {                                                                                       \
    if (!(condition)) [[unlikely]] {                                                         \
      std::fprintf(stderr, "%s:%d: broken invariant: %s\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                                          \
    }                                                                                        \
  } while (false)
