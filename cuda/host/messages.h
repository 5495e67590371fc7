// Texts of errors: the operation, its shape, and for memory what was asked and what there is. Plain C++, tested without
// a GPU.
#pragma once

#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>

#include "backend.h"

namespace implex::cuda {

// "gemm [12, 2048]" or "gemm [12, 2048] by 8192". Dimensions below 0 are left out.
inline void operation_text(char* to, size_t size, const char* name, int64_t rows, int64_t cols, int64_t depth) {
  if (rows < 0)
    std::snprintf(to, size, "%s", name);
  else if (cols < 0)
    std::snprintf(to, size, "%s [%lld]", name, static_cast<long long>(rows));
  else if (depth < 0)
    std::snprintf(to, size, "%s [%lld, %lld]", name, static_cast<long long>(rows), static_cast<long long>(cols));
  else
    std::snprintf(to, size, "%s [%lld, %lld] by %lld", name, static_cast<long long>(rows), static_cast<long long>(cols),
                  static_cast<long long>(depth));
}

inline double mebibytes(size_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

// `operation`: as above. `advice` may be empty.
inline void out_of_memory_text(char* to, size_t size, const char* operation, size_t asked, size_t free_bytes,
                               size_t total, const char* advice) {
  std::snprintf(to, size,
                "%s: the GPU is out of memory: asked for %.1f MiB (%zu bytes), %.1f MiB of %.1f MiB are free%s%s",
                operation, mebibytes(asked), asked, mebibytes(free_bytes), mebibytes(total),
                advice[0] == '\0' ? "" : "; ", advice);
}

constexpr const char* kWithoutGraphs = "IMPLEX_CUDA_GRAPHS=0 does without graphs";
// `recorded`: an operation of a graph, which may be what the error is about.
inline void cuda_error_text(char* to, size_t size, const char* operation, const char* name, const char* text,
                            bool recorded) {
  std::snprintf(to, size, "%s: CUDA error %s: %s%s%s", operation, name, text, recorded ? "; " : "",
                recorded ? kWithoutGraphs : "");
}

// Cards older than the kernels are compiled for.
constexpr int kOldestMajor = 8;
inline bool card_is_served(int major) { return major >= kOldestMajor; }
inline void old_card_text(char* to, size_t size, const char* card, int major, int minor) {
  std::snprintf(to, size,
                "%s has compute capability %d.%d; the CUDA device needs 8.0 (Ampere) or newer, for bf16 matrix "
                "instructions",
                card, major, minor);
}

}  // namespace implex::cuda
