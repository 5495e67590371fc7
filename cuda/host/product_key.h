// A product as cuBLASLt takes it (column-major), and the key by which its algorithm is chosen once. The key leaves out
// the number of rows of a batch, so a row's bits cannot depend on it. Plain C++, tested without a GPU.
#pragma once

#include <cstdint>
#include <tuple>

#include "backend.h"

namespace implex::cuda {

// d[m, n] = op(a)[m, k] op(b)[k, n] + beta c[m, n] + bias[m], column-major.
struct LibraryProduct {
  int64_t m, n, k;
  bool a_transposed, b_transposed;
  const void* a;
  const void* b;
  const float* c;  // f32 where beta is 1: residual, or d itself
  void* d;
  int64_t lda, ldb, ldc, ldd;
  int32_t dtype, out_dtype;
  const float* bias;
  bool accumulate;    // beta is 1
  bool depth_varies;  // a weight's gradient: k is the number of tokens; else n is
};

struct ProductKey {
  int64_t m, fixed, lda, ldb, ldc, ldd;  // fixed: k, or n where the depth varies
  int32_t dtype, out_dtype, flags;
  bool operator<(const ProductKey& o) const { return as_tuple() < o.as_tuple(); }
  bool operator==(const ProductKey& o) const { return as_tuple() == o.as_tuple(); }

 private:
  std::tuple<int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int32_t, int32_t, int32_t> as_tuple() const {
    return {m, fixed, lda, ldb, ldc, ldd, dtype, out_dtype, flags};
  }
};

inline ProductKey key_of(const LibraryProduct& p) {
  const int32_t flags = (p.a_transposed ? 1 : 0) | (p.b_transposed ? 2 : 0) | (p.bias != nullptr ? 4 : 0) |
                        (p.accumulate ? 8 : 0) | (p.depth_varies ? 16 : 0);
  // Where a matrix has as many rows as the batch, its leading dimension is that of a buffer, not of the batch.
  return {p.m,  p.depth_varies ? p.n : p.k, p.lda, p.ldb, p.accumulate ? p.ldc : p.ldd, p.ldd, p.dtype, p.out_dtype,
          flags};
}

// Rows (or depth) at which the library is asked for an algorithm, and others at which the algorithm must be able too.
// 512: the MLP's products, two thirds of a model's work, come in blocks of so many (native/model/layer.h, kMlpRows).
constexpr int64_t kTypicalRows = 512;
constexpr int64_t kOtherRows[] = {1, 2, 7, 64, 333, 2048, 16384};

// Whether 16-byte accesses are possible everywhere. By strides and pointers, never by the number of rows.
inline bool library_aligned(const LibraryProduct& p) {
  const int64_t in = p.dtype == IX_BF16 ? 2 : 4;
  const int64_t out = p.out_dtype == IX_BF16 ? 2 : 4;
  const auto at16 = [](const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; };
  return p.lda * in % 16 == 0 && p.ldb * in % 16 == 0 && p.ldd * out % 16 == 0 &&
         (!p.accumulate || p.ldc * 4 % 16 == 0) && at16(p.a) && at16(p.b) && at16(p.d) &&
         (!p.accumulate || at16(p.c)) && (p.bias == nullptr || at16(p.bias));
}

}  // namespace implex::cuda
