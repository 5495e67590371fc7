// Packed products: weight panels, and the register tile of 6 rows by one panel.
//
// Layout of a packed weight [N, K]: ceil(N / kPanel) panels; a panel holds, for each k, its kPanel columns side by
// side. bf16 keeps pairs (k, k+1) of a column together, as the dot-product instructions want them; an odd K is padded
// with zero.
#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

#include "cpu/kernels/entries.h"
#include "cpu/kernels/simd.h"

namespace implex::cpu::IMPLEX_KERNELS {
namespace {

constexpr int kRows = 6;
constexpr int64_t kDepthBlock = 256;  // k per pass over a tile: a panel's slice stays in the first-level cache

template <int R>
IMPLEX_INLINE void micro_f32(const float* a, int64_t a_stride, const float* panel, int64_t depth, float* c,
                             int64_t c_stride, bool first) {
  vf acc[R][kPanelVectors];
  for (int r = 0; r < R; ++r)
    for (int j = 0; j < kPanelVectors; ++j) acc[r][j] = first ? vf{} : load(c + r * c_stride + j * kLanes);
  for (int64_t k = 0; k < depth; ++k) {
    vf b[kPanelVectors];
    for (int j = 0; j < kPanelVectors; ++j) b[j] = load(panel + k * kPanel + j * kLanes);
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) {
      const vf x = splat(a[r * a_stride + k]);
      for (int j = 0; j < kPanelVectors; ++j) acc[r][j] += x * b[j];
    }
  }
  for (int r = 0; r < R; ++r)
    for (int j = 0; j < kPanelVectors; ++j) store(c + r * c_stride + j * kLanes, acc[r][j]);
}

typedef uint32_t u32_unaligned __attribute__((aligned(2), may_alias));

#if defined(__AVX512BF16__)
IMPLEX_INLINE vf multiply_pairs(vf acc, uint32_t pair, const uint32_t* b) {
  const __m512i x = _mm512_set1_epi32(static_cast<int>(pair));
  const __m512i y = _mm512_loadu_si512(b);
  return reinterpret_cast<vf>(
      _mm512_dpbf16_ps(reinterpret_cast<__m512>(acc), reinterpret_cast<__m512bh>(x), reinterpret_cast<__m512bh>(y)));
}
#else
IMPLEX_INLINE vf multiply_pairs(vf acc, uint32_t pair, const uint32_t* b) {
  const vu y = *reinterpret_cast<const vu_unaligned*>(b);
  const vf low = reinterpret_cast<vf>(y << 16);
  const vf high = reinterpret_cast<vf>(y & 0xffff0000u);
  acc += splat(scalar_from_bf16(static_cast<uint16_t>(pair & 0xffffu))) * low;
  acc += splat(scalar_from_bf16(static_cast<uint16_t>(pair >> 16))) * high;
  return acc;
}
#endif

// depth: pairs. `odd`: the last pair has only its first half in a.
template <int R>
IMPLEX_INLINE void micro_bf16(const uint16_t* a, int64_t a_stride, const uint32_t* panel, int64_t pairs, bool odd,
                              float* c, int64_t c_stride, bool first) {
  vf acc[R][kPanelVectors];
  for (int r = 0; r < R; ++r)
    for (int j = 0; j < kPanelVectors; ++j) acc[r][j] = first ? vf{} : load(c + r * c_stride + j * kLanes);
  const int64_t whole = odd ? pairs - 1 : pairs;
  for (int64_t k = 0; k < whole; ++k) {
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) {
      const uint32_t x = *reinterpret_cast<const u32_unaligned*>(a + r * a_stride + 2 * k);
      for (int j = 0; j < kPanelVectors; ++j) acc[r][j] = multiply_pairs(acc[r][j], x, panel + k * kPanel + j * kLanes);
    }
  }
  if (odd) {
    for (int r = 0; r < R; ++r) {
      const uint32_t x = a[r * a_stride + 2 * whole];
      for (int j = 0; j < kPanelVectors; ++j)
        acc[r][j] = multiply_pairs(acc[r][j], x, panel + whole * kPanel + j * kLanes);
    }
  }
  for (int r = 0; r < R; ++r)
    for (int j = 0; j < kPanelVectors; ++j) store(c + r * c_stride + j * kLanes, acc[r][j]);
}

template <int R>
struct RowCount {
  static constexpr int count = R;
};

// Calls body with the number of rows of the next tile, kRows at the most, as a type: every row runs the same code.
template <typename F>
IMPLEX_INLINE void for_row_count(int64_t left, const F& body) {
  switch (left) {
    case 1:
      return body(RowCount<1>{});
    case 2:
      return body(RowCount<2>{});
    case 3:
      return body(RowCount<3>{});
    case 4:
      return body(RowCount<4>{});
    case 5:
      return body(RowCount<5>{});
    default:
      return body(RowCount<kRows>{});
  }
}

}  // namespace

// Whole squares of rows by depth are transposed in registers; what is left at the edges goes element by element.
void pack_f32(const float* rows, int64_t row, int64_t count, int64_t depth, float* panels) {
  for (int64_t i = 0; i < count;) {
    const int64_t n = row + i;
    float* to = panels + (n / kPanel) * kPanel * depth + n % kPanel;
    const float* from = rows + i * depth;
    if (n % kLanes != 0 || count - i < kLanes) {
      for (int64_t k = 0; k < depth; ++k) to[k * kPanel] = from[k];
      ++i;
      continue;
    }
    int64_t k = 0;
    for (; k + kLanes <= depth; k += kLanes) {
      vf square[kLanes];
      for (int r = 0; r < kLanes; ++r) square[r] = load(from + r * depth + k);
      transpose_square(square);
      for (int r = 0; r < kLanes; ++r) store(to + (k + r) * kPanel, square[r]);
    }
    for (; k < depth; ++k)
      for (int r = 0; r < kLanes; ++r) to[k * kPanel + r] = from[r * depth + k];
    i += kLanes;
  }
}

void pack_bf16(const float* rows, int64_t row, int64_t count, int64_t depth, uint16_t* panels) {
  const int64_t pairs = (depth + 1) / 2;
  for (int64_t i = 0; i < count;) {
    const int64_t n = row + i;
    uint16_t* to = panels + (n / kPanel) * kPanel * pairs * 2 + (n % kPanel) * 2;
    const float* from = rows + i * depth;
    if (n % kLanes != 0 || count - i < kLanes) {
      for (int64_t k = 0; k < depth; ++k) to[(k / 2) * kPanel * 2 + k % 2] = scalar_to_bf16(from[k]);
      ++i;
      continue;
    }
    int64_t k = 0;
    for (; k + kLanes <= depth; k += kLanes) {
      vf square[kLanes];
      for (int r = 0; r < kLanes; ++r) square[r] = load(from + r * depth + k);
      transpose_square(square);
      for (int r = 0; r < kLanes; r += 2)
        *reinterpret_cast<vu_unaligned*>(to + (k + r) * kPanel) = bf16_pairs(square[r], square[r + 1]);
    }
    for (; k < depth; ++k)
      for (int r = 0; r < kLanes; ++r) to[(k / 2) * kPanel * 2 + 2 * r + k % 2] = scalar_to_bf16(from[r * depth + k]);
    i += kLanes;
  }
}

void unpack_f32(const float* panels, int64_t row, int64_t depth, float* out) {
  const float* from = panels + (row / kPanel) * kPanel * depth + row % kPanel;
  for (int64_t k = 0; k < depth; ++k) out[k] = from[k * kPanel];
}

void unpack_bf16(const uint16_t* panels, int64_t row, int64_t depth, float* out) {
  const int64_t pairs = (depth + 1) / 2;
  const uint16_t* from = panels + (row / kPanel) * kPanel * pairs * 2 + (row % kPanel) * 2;
  for (int64_t k = 0; k < depth; ++k) out[k] = scalar_from_bf16(from[(k / 2) * kPanel * 2 + k % 2]);
}

void pack_depth(const void* in, int32_t in_dtype, int64_t in_stride, int64_t row, int64_t count, int64_t cols,
                int64_t depth, void* panels, int32_t dtype) {
  const int64_t pairs = (depth + 1) / 2;
  const int64_t element = in_dtype == 0 ? 4 : 2;
  for (int64_t r = row; r < row + count;) {
    const char* from = static_cast<const char*>(in) + (r - row) * in_stride * element;
    const char* next = from + in_stride * element;
    const bool pair = r % 2 == 0 && r + 1 < row + count;
    for (int64_t c = 0; c < cols; c += kLanes) {
      const int64_t left = cols - c;
      const int64_t panel = c / kPanel;
      const vf x = get(from, in_dtype, c, left);
      // Columns past the end stay as they are: zero.
      if (dtype == 0) {
        put(static_cast<float*>(panels) + (panel * depth + r) * kPanel + c % kPanel, 0, 0, left, x);
        continue;
      }
      uint16_t* to = static_cast<uint16_t*>(panels) + ((panel * pairs + r / 2) * kPanel + c % kPanel) * 2;
      if (pair && left >= kLanes) {
        *reinterpret_cast<vu_unaligned*>(to) = bf16_pairs(x, get(next, in_dtype, c, left));
        continue;
      }
      const vf y = pair ? get(next, in_dtype, c, left) : vf{};
      for (int64_t j = 0; j < kLanes && j < left; ++j) {
        to[2 * j + r % 2] = scalar_to_bf16(x[j]);
        if (pair) to[2 * j + 1] = scalar_to_bf16(y[j]);
      }
    }
    r += dtype != 0 && pair ? 2 : 1;
  }
}

void transpose(const void* in, int32_t dtype, int64_t in_stride, int64_t rows, int64_t cols, void* out,
               int64_t out_stride) {
  if (dtype == 0) {
    const float* from = static_cast<const float*>(in);
    float* to = static_cast<float*>(out);
    const int64_t whole_rows = rows / kLanes * kLanes;
    const int64_t whole_cols = cols / kLanes * kLanes;
    for (int64_t r = 0; r < whole_rows; r += kLanes) {
      for (int64_t c = 0; c < whole_cols; c += kLanes) {
        vf square[kLanes];
        for (int i = 0; i < kLanes; ++i) square[i] = load(from + (r + i) * in_stride + c);
        transpose_square(square);
        for (int i = 0; i < kLanes; ++i) store(to + (c + i) * out_stride + r, square[i]);
      }
    }
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = r < whole_rows ? whole_cols : 0; c < cols; ++c) to[c * out_stride + r] = from[r * in_stride + c];
    return;
  }
  constexpr int64_t kBlock = 32;
  for (int64_t r0 = 0; r0 < rows; r0 += kBlock) {
    const int64_t r1 = rows - r0 < kBlock ? rows : r0 + kBlock;
    for (int64_t c = 0; c < cols; ++c)
      for (int64_t r = r0; r < r1; ++r)
        static_cast<uint16_t*>(out)[c * out_stride + r] = static_cast<const uint16_t*>(in)[r * in_stride + c];
  }
}

void tile_f32(const TileArgs* t) {
  const float* a = static_cast<const float*>(t->a);
  const float* panels = static_cast<const float*>(t->panels);
  const int64_t width = t->panel_count * kPanel;
  for (int64_t k = 0; k < t->depth; k += kDepthBlock) {
    const int64_t depth = t->depth - k < kDepthBlock ? t->depth - k : kDepthBlock;
    const bool first = k == 0;
    for (int64_t p = 0; p < t->panel_count; ++p) {
      const float* b = panels + (p * t->panel_depth + k) * kPanel;
      for (int64_t m = 0; m < t->m; m += kRows) {
        const float* rows = a + m * t->a_stride + k;
        float* c = t->c + m * width + p * kPanel;
        for_row_count(
            t->m - m, [&](auto r) __attribute__((always_inline)) {
              micro_f32<r.count>(rows, t->a_stride, b, depth, c, width, first);
            });
      }
    }
  }
}

void tile_bf16(const TileArgs* t) {
  const uint16_t* a = static_cast<const uint16_t*>(t->a);
  const uint32_t* panels = static_cast<const uint32_t*>(t->panels);
  const int64_t width = t->panel_count * kPanel;
  const int64_t all_pairs = (t->depth + 1) / 2;
  const int64_t panel_pairs = (t->panel_depth + 1) / 2;
  for (int64_t k = 0; k < all_pairs; k += kDepthBlock) {
    const int64_t pairs = all_pairs - k < kDepthBlock ? all_pairs - k : kDepthBlock;
    const bool first = k == 0;
    const bool odd = t->depth % 2 != 0 && k + pairs == all_pairs;
    for (int64_t p = 0; p < t->panel_count; ++p) {
      const uint32_t* b = panels + (p * panel_pairs + k) * kPanel;
      for (int64_t m = 0; m < t->m; m += kRows) {
        const uint16_t* rows = a + m * t->a_stride + 2 * k;
        float* c = t->c + m * width + p * kPanel;
        for_row_count(
            t->m - m, [&](auto r) __attribute__((always_inline)) {
              micro_bf16<r.count>(rows, t->a_stride, b, pairs, odd, c, width, first);
            });
      }
    }
  }
}

void finish_row(const float* c, int64_t n, const float* bias, const float* residual, void* out, int32_t out_dtype) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t left = n - i;
    const bool whole = left >= kLanes;
    vf x = whole ? load(c + i) : load_tail(c + i, left, 0.0f);
    if (bias) x += whole ? load(bias + i) : load_tail(bias + i, left, 0.0f);
    if (residual) x += whole ? load(residual + i) : load_tail(residual + i, left, 0.0f);
    put(out, out_dtype, i, left, x);
  }
}

void fold_logits(const float* c, int64_t n, float* maximum, float* sum) {
  const float lowest = -3.0e38f;
  vf top = splat(lowest);
  for (int64_t i = 0; i < n; i += kLanes)
    top = max(top, n - i >= kLanes ? load(c + i) : load_tail(c + i, n - i, lowest));
  const float tile = max_lanes(top);
  const float next = tile > *maximum ? tile : *maximum;
  vf total = vf{};
  for (int64_t i = 0; i < n; i += kLanes)
    total += exp((n - i >= kLanes ? load(c + i) : load_tail(c + i, n - i, lowest)) - next);
  const vf rescale = exp(splat(*maximum - next));
  *sum = *sum * rescale[0] + sum_lanes(total);
  *maximum = next;
}

void logit_gradient_row(const float* c, int64_t n, float lse, float grad, int64_t target, void* out,
                        int32_t out_dtype) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t left = n - i;
    const vf z = (left >= kLanes ? load(c + i) : load_tail(c + i, left, lse)) - lse;
    vf x = exp(z) * -grad;
    // 1 - p of a confident target cancels; expm1 keeps its digits.
    if (target >= i && target < i + kLanes) x[target - i] = -grad * __builtin_expm1f(z[target - i]);
    put(out, out_dtype, i, left, x);
  }
}

}  // namespace implex::cpu::IMPLEX_KERNELS
