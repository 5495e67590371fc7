// A device module for the loader's tests: the CPU's table under the name "test", or, with IMPLEX_TEST_FAULT, a module
// with one fault. Two pretend to be the CUDA module, one of them with wrong products: what the GPU tests are tried on.
#include <cstdio>
#include <cstring>
#include <vector>

#include "cpu/device.h"

#define FAULT_NONE 0
#define FAULT_SYMBOL 1   // another entry point
#define FAULT_NULL 2     // no table
#define FAULT_VERSION 3  // another version, and nothing else that may be touched
#define FAULT_SIZE 4
#define FAULT_OPEN 5  // a device that cannot be opened
#define FAULT_CUDA 6  // none, under the name "cuda"
#define FAULT_CUDA_WRONG 7

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
    t.name = IMPLEX_TEST_FAULT == FAULT_CUDA || IMPLEX_TEST_FAULT == FAULT_CUDA_WRONG ? "cuda" : "test";
#if IMPLEX_TEST_FAULT == FAULT_SIZE
    t.size -= 8;
#elif IMPLEX_TEST_FAULT == FAULT_OPEN
    t.open = [](ix_device**, ix_status* status) -> int32_t {
      status->code = IX_UNAVAILABLE;
      std::snprintf(status->message, sizeof status->message, "no such device today");
      return IX_UNAVAILABLE;
    };
#elif IMPLEX_TEST_FAULT == FAULT_CUDA_WRONG
    t.gemm = [](ix_device* device, const ix_mat* in, const ix_weight* weight, const ix_epilogue* epilogue,
                const ix_mat* out, ix_status* status) -> int32_t {
      // The last column of the input is left out, as by a loop that ends too soon.
      ix_mat most = *in;
      std::vector<char> copy(static_cast<size_t>(in->rows * in->stride) * (in->dtype == IX_BF16 ? 2 : 4));
      if (in->rows == 0) return IX_OK;
      const size_t size = in->dtype == IX_BF16 ? 2 : 4;
      for (int64_t row = 0; row < in->rows; ++row)
        std::memcpy(copy.data() + static_cast<size_t>(row * in->stride) * size,
                    static_cast<const char*>(in->data) + static_cast<size_t>(row * in->stride) * size,
                    static_cast<size_t>(in->cols - 1) * size);
      most.data = copy.data();
      return implex_cpu_backend()->gemm(device, &most, weight, epilogue, out, status);
    };
#endif
    return t;
  }();
  return &table;
#endif
}
