// Register tiles that attention's forward and backward passes share: a few query rows against one block of keys.
#pragma once

#include "cpu/kernels/simd.h"
#include "cpu/kernels/table.h"

namespace implex::cpu::IMPLEX_KERNELS {
namespace {

constexpr int kKeyVectors = kKeyBlock / kLanes;
// Tiles that fit the registers with what they multiply, 32 of 16 lanes or 16 of fewer. Scores: query rows by vectors of
// keys. Sums over keys or over query rows: rows by two vectors of dimensions.
constexpr int kScoreRows = kLanes == 16 ? 4 : 3;
constexpr int kScoreVectors = 4;
constexpr int kSumRows = kLanes == 16 ? 8 : 4;

IMPLEX_INLINE int32_t padded(int32_t head_dim) { return (head_dim + kLanes - 1) / kLanes * kLanes; }

IMPLEX_INLINE const void* offset_by(const void* data, int32_t dtype, int64_t elements) {
  return static_cast<const char*>(data) + elements * (dtype == IX_F32 ? 4 : 2);
}

// The rows of a block that see keys of [base, base + kKeyBlock): [begin, end). Each of them sees at least one, so that
// no row's running sums ever start with nothing but masked keys.
struct RowRange {
  int32_t begin, end;
};
IMPLEX_INLINE RowRange rows_seeing(const AttentionArgs* a, int64_t base) {
  RowRange r = {0, a->rows};
  while (a->positions[r.begin] < base) ++r.begin;
  if (a->window > 0)
    while (r.end > r.begin && a->positions[r.end - 1] - a->window >= base + kKeyBlock - 1) --r.end;
  return r;
}

// First key of the block of keys with which a block of rows begins.
IMPLEX_INLINE int64_t first_base(const AttentionArgs* a) {
  const int64_t first = a->positions[0] + 1 - static_cast<int64_t>(a->window);
  return a->window > 0 && first > 0 ? first / kKeyBlock * kKeyBlock : 0;
}

// Sets what a row does not see of a block to `value`.
IMPLEX_INLINE void mask_unseen(const AttentionArgs* a, int32_t row, int64_t base, float value, float* of_block) {
  const int64_t position = a->positions[row];
  for (int64_t j = position + 1 - base < 0 ? 0 : position + 1 - base; j < kKeyBlock; ++j) of_block[j] = value;
  if (a->window == 0) return;
  const int64_t hidden = position + 1 - a->window - base;
  for (int64_t j = 0; j < hidden && j < kKeyBlock; ++j) of_block[j] = value;
}

// Token at a position of the sequence: the parent's tokens come first.
IMPLEX_INLINE int64_t token_at(const AttentionArgs* a, int64_t position) {
  return position < a->parent_length ? a->parent_start + position : a->own_start + position - a->parent_length;
}

// The row of k or v at a position, from this head's first element on.
IMPLEX_INLINE const void* row_at(const AttentionArgs* a, const void* matrix, int64_t position) {
  return offset_by(matrix, a->dtype, token_at(a, position) * a->kv_stride + a->kv_offset);
}

// Rows of k or v at positions [base, base + count) as f32: `rows` [kKeyBlock, padded head_dim] and `transposed` [padded
// head_dim, kKeyBlock], either may be null; absent keys and dimensions are zero.
IMPLEX_INLINE void fill_block(const AttentionArgs* a, const void* matrix, int64_t base, int32_t count, float* rows,
                              float* transposed) {
  const int32_t wide = padded(a->head_dim);
  for (int32_t j = 0; j < kKeyBlock; j += kLanes) {
    for (int32_t d = 0; d < wide; d += kLanes) {
      vf square[kLanes];
      for (int32_t i = 0; i < kLanes; ++i)
        square[i] = j + i < count ? get(row_at(a, matrix, base + j + i), a->dtype, d, a->head_dim - d) : vf{};
      if (rows)
        for (int32_t i = 0; i < kLanes; ++i) store(rows + (j + i) * wide + d, square[i]);
      if (transposed) {
        transpose_square(square);
        for (int32_t i = 0; i < kLanes; ++i) store(transposed + (d + i) * kKeyBlock + j, square[i]);
      }
    }
  }
}

// weight[r, j] = query[r] · keys[:, j] for the block's keys; query rows `wide` apart, keys transposed [head_dim,
// kKeyBlock].
template <int R>
IMPLEX_INLINE void scores(const float* query, int32_t wide, int32_t head_dim, const float* keys, float* weight) {
  for (int at = 0; at < kKeyVectors; at += kScoreVectors) {
    vf acc[R][kScoreVectors];
    for (int r = 0; r < R; ++r)
      for (int j = 0; j < kScoreVectors; ++j) acc[r][j] = vf{};
    for (int32_t d = 0; d < head_dim; ++d) {
      vf key[kScoreVectors];
      for (int j = 0; j < kScoreVectors; ++j) key[j] = load(keys + d * kKeyBlock + (at + j) * kLanes);
      for (int r = 0; r < R; ++r) {
        const vf x = splat(query[r * wide + d]);
        for (int j = 0; j < kScoreVectors; ++j) acc[r][j] += x * key[j];
      }
    }
    for (int r = 0; r < R; ++r)
      for (int j = 0; j < kScoreVectors; ++j) store(weight + r * kKeyBlock + (at + j) * kLanes, acc[r][j]);
  }
}

// output[r] += sum over j < count of weight[r, j] * values[j], j ascending, for V vectors of dimensions. Rows times
// vectors are enough independent chains to hide an addition's latency.
template <int R, int V>
IMPLEX_INLINE void accumulate(const float* weight, const float* values, int32_t wide, int32_t count, float* output) {
  vf acc[R][V];
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v) acc[r][v] = load(output + r * wide + v * kLanes);
  for (int32_t j = 0; j < count; ++j) {
    vf value[V];
    for (int v = 0; v < V; ++v) value[v] = load(values + j * wide + v * kLanes);
    for (int r = 0; r < R; ++r) {
      const vf x = splat(weight[r * kKeyBlock + j]);
      for (int v = 0; v < V; ++v) acc[r][v] += x * value[v];
    }
  }
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v) store(output + r * wide + v * kLanes, acc[r][v]);
}

template <int R>
IMPLEX_INLINE void accumulate_rows(const float* weight, const float* values, int32_t wide, int32_t count,
                                   float* output) {
  int32_t d = 0;
  for (; d + 2 * kLanes <= wide; d += 2 * kLanes) accumulate<R, 2>(weight, values + d, wide, count, output + d);
  for (; d < wide; d += kLanes) accumulate<R, 1>(weight, values + d, wide, count, output + d);
}

// The same for any number of rows: whole tiles, then what is left in one.
IMPLEX_INLINE void all_scores(int32_t rows, const float* query, int32_t wide, int32_t head_dim, const float* keys,
                              float* weight) {
  for (int32_t r = 0; r < rows; r += kScoreRows)
    for_row_count<kScoreRows>(
        rows - r, [&](auto tile) __attribute__((always_inline)) {
          scores<tile.count>(query + r * wide, wide, head_dim, keys, weight + r * kKeyBlock);
        });
}

IMPLEX_INLINE void all_accumulate(int32_t rows, const float* weight, const float* values, int32_t wide, int32_t count,
                                  float* output) {
  for (int32_t r = 0; r < rows; r += kSumRows)
    for_row_count<kSumRows>(
        rows - r, [&](auto tile) __attribute__((always_inline)) {
          accumulate_rows<tile.count>(weight + r * kKeyBlock, values, wide, count, output + r * wide);
        });
}

}  // namespace
}  // namespace implex::cpu::IMPLEX_KERNELS
