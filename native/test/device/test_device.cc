// A device module for the loader's tests: the CPU's table under the name "test", or, with IMPLEX_TEST_FAULT, a module
// with one fault.
#include <cstdio>

#include "cpu/device.h"

#define FAULT_NONE 0
#define FAULT_SYMBOL 1   // another entry point
#define FAULT_NULL 2     // no table
#define FAULT_VERSION 3  // another version, and nothing else that may be touched
#define FAULT_SIZE 4
#define FAULT_OPEN 5  // a device that cannot be opened

#if IMPLEX_TEST_FAULT == FAULT_SYMBOL
#define ENTRY some_other_function
#else
#define ENTRY implex_backend
#endif

extern "C" __attribute__((visibility("default"))) const ix_backend* ENTRY(void) {
#if IMPLEX_TEST_FAULT == FAULT_NULL
  return nullptr;
#elif IMPLEX_TEST_FAULT == FAULT_VERSION
  alignas(ix_backend) static const uint32_t table[2] = {IMPLEX_BACKEND_VERSION + 1, 8};
  return reinterpret_cast<const ix_backend*>(table);
#else
  static const ix_backend table = [] {
    ix_backend t = *implex_cpu_backend();
    t.name = "test";
#if IMPLEX_TEST_FAULT == FAULT_SIZE
    t.size -= 8;
#elif IMPLEX_TEST_FAULT == FAULT_OPEN
    t.open = [](ix_device**, ix_status* status) -> int32_t {
      status->code = IX_UNAVAILABLE;
      std::snprintf(status->message, sizeof status->message, "no such device today");
      return IX_UNAVAILABLE;
    };
#endif
    return t;
  }();
  return &table;
#endif
}
