// What the attention kernels share: shapes, the key/value and query tiles in shared memory, products of tiles.
#pragma once

#include <type_traits>

#include "device.h"
#include "gpu/exponential.cuh"
#include "gpu/mma.cuh"
#include "gpu/reduce.cuh"

namespace implex::cuda {

struct AttentionShape {
  int32_t heads, group, head_dim;  // group: query heads that share one key/value head
  float scale;
  int32_t window;            // of host/attention_schedule.h
  SoftCap cap;               // of scores, after the scale
  const int32_t* positions;  // [T]
  const int32_t* rows;       // [N], or null: row i is token i
  const Span* spans;
  const QueryBlock* blocks;
  const int32_t* block_count;
};

__device__ inline int32_t position_of_row(const AttentionShape& s, int64_t row) {
  return s.positions[s.rows != nullptr ? s.rows[row] : row];
}
__device__ inline int32_t device_token_of(const Span& span, int32_t position) {
  return position < span.before ? span.before_start + position : span.start + position - span.before;
}

// Whether some lane of the warp has a row that does not see some of `keys` keys from `base` on. A lane's two rows
// ascend; one that is not there has the position -1.
__device__ inline bool some_unseen(const AttentionShape& s, const int32_t (&position)[2], int32_t base, int32_t keys) {
  const int32_t last = position[1] < position[0] ? position[0] : position[1];
  const bool all = base + keys - 1 <= position[0] && base > last - s.window;
  return __ballot_sync(kAllLanes, all ? 0 : 1) != 0;
}

// A score in units of ln 2. kCapped: with the soft cap, and *slope is its slope.
template <bool kCapped>
__device__ inline float finish_score(const AttentionShape& s, float product, float* slope = nullptr) {
  if constexpr (kCapped) {
    const float bent = tanh_fast(product * (s.scale * s.cap.inverse));
    if (slope != nullptr) *slope = cap_slope(bent);
    return bent * (s.cap.cap * kLog2e);
  } else {
    return product * (s.scale * kLog2e);
  }
}

constexpr int kAttentionThreads = 128;  // four warps, each with 16 rows of a tile

// Rows of a tile are 16 bytes longer than a head, so that the 8 rows of an ldmatrix lie in different banks for every
// head size served: 2 (E + 8) mod 128 is 16, 48, 80, 16, 16 for E = 64, 80, 96, 128, 256, each an odd multiple of 16.
template <int E>
constexpr int kTileStride = E + 8;

// Keys of a block, aligned to the position in the sequence: part of the numerical contract.
template <int E>
constexpr int kBlockKeys = E > 128 ? 32 : 64;
// Keys of a step of the gradient of queries, and queries of a step of those of keys and values: as many as leave the
// registers room for the sums.
template <int E>
constexpr int kStepKeys = E > 128 ? 16 : 64;
template <int E>
constexpr int kStepQueries = E > 128 ? 16 : 32;

// Copies kRows rows of E values; `source(i)` gives row i's address, or null for zeros. Not waited for.
template <int E, int kRows, typename F>
__device__ inline void copy_tile(Bf16* tile, const F& source) {
  constexpr int kPieces = E / 8;
// Four at a time; for 96 that would spill.
#pragma unroll(E == 96 ? 2 : 4)
  for (int at = static_cast<int>(threadIdx.x); at < kRows * kPieces; at += kAttentionThreads) {
    const int row = at / kPieces;
    const int piece = at - row * kPieces;
    const Bf16* from = source(row);
    // An address is needed even where nothing is read: the tile's own does.
    copy_16(tile + row * kTileStride<E> + piece * 8, from != nullptr ? from + piece * 8 : tile, from != nullptr);
  }
}

// sum[j] += left (16 rows) · right (8 kColumns columns)^T over E, both stored [row or column][E].
template <int E, int kColumns>
__device__ inline void multiply_rows(float (&sum)[kColumns][4], const Bf16* left, const Bf16* right) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const Bf16* a_at = left + left_offset(lane, kTileStride<E>);
  const Bf16* b_at = right + right_offset(lane, kTileStride<E>);
#pragma unroll(E > 128 ? 4 : 8)
  for (int d = 0; d < E; d += 16) {
    const Fragment a = load_matrices<false>(a_at + d);
#pragma unroll
    for (int j = 0; j < kColumns; j += 2) {
      const Fragment b = load_matrices<false>(b_at + j * 8 * kTileStride<E> + d);
      multiply_add(sum[j], a, b.x[0], b.x[1]);
      multiply_add(sum[j + 1], a, b.x[2], b.x[3]);
    }
  }
}

// sum (16 rows x E) += weights (16 rows x 8 kDepth, as a result's fragments) · tile stored [depth][E].
template <int E, int kDepth>
__device__ inline void multiply_weights(float (&sum)[E / 8][4], const float (&weights)[kDepth][4], const Bf16* tile) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const Bf16* b_at = tile + right_transposed_offset(lane, kTileStride<E>);
#pragma unroll
  for (int k = 0; k < kDepth; k += 2) {
    const Fragment a = {{pack_bf16(weights[k][0], weights[k][1]), pack_bf16(weights[k][2], weights[k][3]),
                         pack_bf16(weights[k + 1][0], weights[k + 1][1]),
                         pack_bf16(weights[k + 1][2], weights[k + 1][3])}};
#pragma unroll
    for (int j = 0; j < E / 8; j += 2) {
      const Fragment b = load_matrices<true>(b_at + k * 8 * kTileStride<E> + j * 8);
      multiply_add(sum[j], a, b.x[0], b.x[1]);
      multiply_add(sum[j + 1], a, b.x[2], b.x[3]);
    }
  }
}

// Calls `body` with the head's size as a constant where the matrix kernels have it; false elsewhere.
template <typename F>
bool with_head(int32_t head_dim, const F& body) {
  switch (head_dim) {
    case 64:
      body(std::integral_constant<int, 64>());
      return true;
    case 80:
      body(std::integral_constant<int, 80>());
      return true;
    case 96:
      body(std::integral_constant<int, 96>());
      return true;
    case 128:
      body(std::integral_constant<int, 128>());
      return true;
    case 256:
      body(std::integral_constant<int, 256>());
      return true;
    default:
      return false;
  }
}

// Checks shapes and gives the kernels their shape; `rows` are cut into blocks on the device.
int32_t prepare_attention(const Call& call, const ix_batch* batch, const ix_attention* attention, const ix_mat* q,
                          const int32_t* rows, const ix_mat* k, const ix_mat* v, const ix_mat* out, bool in_order,
                          AttentionShape* shape, int64_t* most_blocks);
// Whether copies of 16 bytes are possible.
inline bool rows_aligned(const ix_mat* m) {
  return m->dtype == IX_BF16 && m->stride % 8 == 0 && reinterpret_cast<uintptr_t>(m->data) % 16 == 0;
}

}  // namespace implex::cuda
