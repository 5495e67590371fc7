// Which kernel sets this build has, and which of them this processor can run.
#include <cstdlib>
#include <cstring>

#include "cpu/device.h"

#define IMPLEX_DECLARE_KERNELS(set) \
  namespace implex::cpu::set {      \
  extern const KernelTable table;   \
  }

IMPLEX_DECLARE_KERNELS(baseline)
#if defined(IMPLEX_HAVE_AVX2)
IMPLEX_DECLARE_KERNELS(avx2)
#endif
#if defined(IMPLEX_HAVE_AVX512)
IMPLEX_DECLARE_KERNELS(avx512)
#endif
#if defined(IMPLEX_HAVE_AVX512BF16)
IMPLEX_DECLARE_KERNELS(avx512bf16)
#endif

namespace implex::cpu {

const std::vector<const KernelTable*>& available_kernels() {
  static const std::vector<const KernelTable*> sets = [] {
    std::vector<const KernelTable*> found = {&baseline::table};
#if defined(IMPLEX_HAVE_AVX2)
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
    if (avx2) found.push_back(&avx2::table);
#if defined(IMPLEX_HAVE_AVX512)
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    if (avx512) found.push_back(&avx512::table);
#if defined(IMPLEX_HAVE_AVX512BF16)
    if (avx512 && __builtin_cpu_supports("avx512bf16")) found.push_back(&avx512bf16::table);
#endif
#endif
#endif
    return found;
  }();
  return sets;
}

const KernelTable* selected_kernels() {
  const auto& sets = available_kernels();
  if (const char* wanted = std::getenv("IMPLEX_KERNELS")) {
    for (const KernelTable* set : sets)
      if (std::strcmp(set->name, wanted) == 0) return set;
  }
  return sets.back();
}

}  // namespace implex::cpu
