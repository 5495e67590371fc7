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

// A register tile's sums go on from what c holds, but for the first depths.
template <int R>
IMPLEX_INLINE void begin_sums(vf (&acc)[R][kPanelVectors], const float* c, int64_t c_stride, bool first) {
  for (int r = 0; r < R; ++r)
    for (int j = 0; j < kPanelVectors; ++j) acc[r][j] = first ? vf{} : load(c + r * c_stride + j * kLanes);
}

template <int R>
IMPLEX_INLINE void end_sums(const vf (&acc)[R][kPanelVectors], float* c, int64_t c_stride) {
  for (int r = 0; r < R; ++r)
    for (int j = 0; j < kPanelVectors; ++j) store(c + r * c_stride + j * kLanes, acc[r][j]);
}

template <int R>
IMPLEX_INLINE void micro_f32(const float* a, int64_t a_stride, const float* panel, int64_t depth, float* c,
                             int64_t c_stride, bool first) {
  vf acc[R][kPanelVectors];
  begin_sums(acc, c, c_stride, first);
#pragma GCC unroll 2
  for (int64_t k = 0; k < depth; ++k) {
    vf b[kPanelVectors];
    for (int j = 0; j < kPanelVectors; ++j) b[j] = load(panel + k * kPanel + j * kLanes);
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) {
      const vf x = splat(a[r * a_stride + k]);
      for (int j = 0; j < kPanelVectors; ++j) acc[r][j] += x * b[j];
    }
  }
  end_sums(acc, c, c_stride);
}

#if defined(__AVX512BF16__)
typedef uint32_t u32_unaligned __attribute__((aligned(2), may_alias));

// `odd`: the last pair has only its first half in a.
template <int R>
IMPLEX_INLINE void micro_bf16(const uint16_t* a, int64_t a_stride, const uint32_t* panel, int64_t pairs, bool odd,
                              float* c, int64_t c_stride, bool first) {
  vf acc[R][kPanelVectors];
  begin_sums(acc, c, c_stride, first);
  const auto add = [&](int r, uint32_t pair, const uint32_t* b) __attribute__((always_inline)) {
    const __m512i x = _mm512_set1_epi32(static_cast<int>(pair));
    for (int j = 0; j < kPanelVectors; ++j)
      acc[r][j] =
          reinterpret_cast<vf>(_mm512_dpbf16_ps(reinterpret_cast<__m512>(acc[r][j]), reinterpret_cast<__m512bh>(x),
                                                reinterpret_cast<__m512bh>(_mm512_loadu_si512(b + j * kLanes))));
  };
  const int64_t whole = odd ? pairs - 1 : pairs;
  for (int64_t k = 0; k < whole; ++k) {
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r)
      add(r, *reinterpret_cast<const u32_unaligned*>(a + r * a_stride + 2 * k), panel + k * kPanel);
  }
  if (odd)
    for (int r = 0; r < R; ++r) add(r, a[r * a_stride + 2 * whole], panel + whole * kPanel);
  end_sums(acc, c, c_stride);
}
#else
// Without instructions for bf16: a is f32 (widened once for all panels, zero after an odd depth), and of the panel's
// pairs one half after the other is widened in registers. The two halves' sums together are more than 16 registers
// hold, and compilers that see both at once spill; hence the macro.
#if defined(__x86_64__)
#define IMPLEX_KEEP_IN_REGISTER(x) asm("" : "+v"(x))
#elif defined(__aarch64__)
#define IMPLEX_KEEP_IN_REGISTER(x) asm("" : "+w"(x))
#else
#define IMPLEX_KEEP_IN_REGISTER(x) (void)(x)
#endif

template <int R>
IMPLEX_INLINE void micro_bf16(const float* a, int64_t a_stride, const uint32_t* panel, int64_t pairs, float* c,
                              int64_t c_stride, bool first) {
  vf acc[R][kPanelVectors];
  begin_sums(acc, c, c_stride, first);
  for (int64_t k = 0; k < pairs; ++k) {
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      vf b[kPanelVectors];
      for (int j = 0; j < kPanelVectors; ++j) b[j] = half_of(load_bits(panel + k * kPanel + j * kLanes), half);
#pragma GCC unroll 6
      for (int r = 0; r < R; ++r) {
        const vf x = splat(a[r * a_stride + 2 * k + half]);
        for (int j = 0; j < kPanelVectors; ++j) {
          acc[r][j] += x * b[j];
          IMPLEX_KEEP_IN_REGISTER(acc[r][j]);
        }
      }
    }
  }
  end_sums(acc, c, c_stride);
}
#endif

// Where a slice of a panel is asked for before it is needed: the first-level cache if two fit there, else the second.
constexpr int kPrefetchTo = kDepthBlock * kPanel * 4 <= 16384 ? 3 : 2;

// Calls micro(rows, first row, slice of the panel, c, stride of c) for every register tile of the rows [row, end) and
// the steps [k, k + steps). A step is what a panel keeps in 4 bytes a column: one depth of f32, a pair of bf16. Each
// tile asks for its share of the slice that comes next, so that none waits for the weight.
template <typename F>
IMPLEX_INLINE void for_each_register_tile(const TileArgs* t, int64_t row, int64_t end, int64_t k, int64_t steps,
                                          int64_t panel_steps, const F& micro) {
  const uint32_t* panels = static_cast<const uint32_t*>(t->panels);
  const int64_t width = t->panel_count * kPanel;
  const int64_t share = (steps * kPanel * kRows + end - row - 1) / (end - row);
  for (int64_t p = 0; p < t->panel_count; ++p) {
    const uint32_t* b = panels + (p * panel_steps + k) * kPanel;
    const uint32_t* next = p + 1 < t->panel_count ? b + panel_steps * kPanel : panels + (k + steps) * kPanel;
    for (int64_t m = row; m < end; m += kRows) {
      for (int64_t i = 0; i < share; i += 16) __builtin_prefetch(next + i, 0, kPrefetchTo);
      next += share;
      float* c = t->c + m * width + p * kPanel;
      for_row_count<kRows>(
          end - m, [&](auto rows) __attribute__((always_inline)) { micro(rows, m, b, c, width); });
    }
  }
}

IMPLEX_INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

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
  const int64_t element = in_dtype == IX_F32 ? 4 : 2;
  for (int64_t r = row; r < row + count;) {
    const char* from = static_cast<const char*>(in) + (r - row) * in_stride * element;
    const char* next = from + in_stride * element;
    const bool pair = r % 2 == 0 && r + 1 < row + count;
    for (int64_t c = 0; c < cols; c += kLanes) {
      const int64_t left = cols - c;
      const int64_t panel = c / kPanel;
      const vf x = get(from, in_dtype, c, left);
      // Columns past the end stay as they are: zero.
      if (dtype == IX_F32) {
        put(static_cast<float*>(panels) + (panel * depth + r) * kPanel + c % kPanel, IX_F32, 0, left, x);
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
    r += dtype != IX_F32 && pair ? 2 : 1;
  }
}

void transpose(const void* in, int32_t dtype, int64_t in_stride, int64_t rows, int64_t cols, void* out,
               int64_t out_stride) {
  if (dtype == IX_F32) {
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
  for (int64_t k = 0; k < t->depth; k += kDepthBlock) {
    const int64_t steps = least(t->depth - k, kDepthBlock);
    for_each_register_tile(
        t, 0, t->m, k, steps, t->panel_depth,
        [&](auto rows, int64_t m, const uint32_t* b, float* c, int64_t width) __attribute__((always_inline)) {
          micro_f32<rows.count>(a + m * t->a_stride + k, t->a_stride, reinterpret_cast<const float*>(b), steps, c,
                                width, k == 0);
        });
  }
}

#if defined(__AVX512BF16__)
void tile_bf16(const TileArgs* t) {
  const uint16_t* a = static_cast<const uint16_t*>(t->a);
  const int64_t pairs = (t->depth + 1) / 2;
  for (int64_t k = 0; k < pairs; k += kDepthBlock) {
    const int64_t steps = least(pairs - k, kDepthBlock);
    for_each_register_tile(
        t, 0, t->m, k, steps, (t->panel_depth + 1) / 2,
        [&](auto rows, int64_t m, const uint32_t* b, float* c, int64_t width) __attribute__((always_inline)) {
          micro_bf16<rows.count>(a + m * t->a_stride + 2 * k, t->a_stride, b, steps,
                                 t->depth % 2 != 0 && k + steps == pairs, c, width, k == 0);
        });
  }
}
#else
void tile_bf16(const TileArgs* t) {
  constexpr int64_t kPairs = kDepthBlock / 2;
  constexpr int64_t kWidened = 8 * kRows;  // rows: 48 KiB of stack
  float widened[kWidened * 2 * kPairs];
  const int64_t pairs = (t->depth + 1) / 2;
  for (int64_t k = 0; k < pairs; k += kPairs) {
    const int64_t steps = least(pairs - k, kPairs);
    const int64_t depth = least(t->depth - 2 * k, 2 * kPairs);
    for (int64_t row = 0; row < t->m; row += kWidened) {
      const int64_t end = least(t->m, row + kWidened);
      for (int64_t r = row; r < end; ++r) {
        const uint16_t* from = static_cast<const uint16_t*>(t->a) + r * t->a_stride + 2 * k;
        float* to = widened + (r - row) * 2 * kPairs;
        for (int64_t i = 0; i < 2 * steps; i += kLanes)
          put(to, IX_F32, i, 2 * steps - i, get(from, IX_BF16, i, depth - i));
      }
      for_each_register_tile(
          t, row, end, k, steps, (t->panel_depth + 1) / 2,
          [&](auto rows, int64_t m, const uint32_t* b, float* c, int64_t width) __attribute__((always_inline)) {
            micro_bf16<rows.count>(widened + (m - row) * 2 * kPairs, 2 * kPairs, b, steps, c, width, k == 0);
          });
    }
  }
}
#endif

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

}  // namespace implex::cpu::IMPLEX_KERNELS
