// The head's tiles with the matrix instructions of sm_80, bf16: 128 rows by a chunk of the vocabulary, 128 columns at a
// time. Eight warps, 32 rows by 64 columns each, so two warps share a row: each keeps its own running sum over the
// chunk's tiles, and the two are merged at the end of the chunk, left before right.
//
// Three stages of 32 deep by cp.async. Rows of a stage are 80 bytes apart, which puts the 8 rows of an ldmatrix into
// different banks (80 mod 128 is an odd multiple of 16). Also makes the gradients of the logits.
// What limits it: mma.sync; on Hopper about 2/3 of what wgmma reaches.
#include "gpu/head.cuh"

namespace implex::cuda {

namespace {

constexpr int kRows = 128;
constexpr int kColumns = 128;
constexpr int kDepth = 32;
constexpr int kStages = 3;
constexpr int kThreads = 256;
constexpr int kStride = kDepth + 8;
constexpr int kStage = (kRows + kColumns) * kStride;
constexpr size_t kBytes = kStages * kStage * sizeof(Bf16) + kRows * sizeof(RowSum);

__device__ inline void copy_stage(const HeadTask& task, Bf16* stage, int64_t row, int64_t column, int64_t k) {
  const Bf16* hidden = static_cast<const Bf16*>(task.hidden);
  const Bf16* weight = static_cast<const Bf16*>(task.weight);
  // 256 rows of 4 pieces of 16 bytes.
#pragma unroll
  for (int i = 0; i < (kRows + kColumns) * (kDepth / 8) / kThreads; ++i) {
    const int at = i * kThreads + static_cast<int>(threadIdx.x);
    const int line = at / (kDepth / 8);
    const int64_t d = k + at % (kDepth / 8) * 8;
    const bool left = line < kRows;
    const int64_t index = left ? row + line : column + line - kRows;
    const bool present = index < (left ? task.rows : task.columns) && d < task.depth;
    const Bf16* from = left ? hidden + index * task.hidden_stride + d : weight + index * task.depth + d;
    copy_16(stage + line * kStride + at % (kDepth / 8) * 8, present ? from : weight, present);
  }
  copy_commit();
}

template <bool kBackward, bool kCapped>
__global__ void __launch_bounds__(kThreads) head_tiles(HeadTask task) {
  IMPLEX_SHARED_MEMORY(shared);
  Bf16* stages = reinterpret_cast<Bf16*>(shared);
  RowSum* halves = reinterpret_cast<RowSum*>(stages + kStages * kStage);
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % kWarp, g = lane / 4, t = lane % 4;
  const int warp_row = thread / kWarp / 2 * 32, warp_column = thread / kWarp % 2 * 64;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kRows;
  const int64_t chunk = blockIdx.y;
  const int64_t chunk_end = (chunk + 1) * kVocabularyChunk;
  const int64_t end = chunk_end < task.columns ? chunk_end : task.columns;
  RowSum sums[4];  // of rows 8 n + g of the warp
#pragma unroll
  for (int n = 0; n < 4; ++n) sums[n] = {kNever, 0.0f};
  for (int64_t column = chunk * kVocabularyChunk; column < end; column += kColumns) {
    float logit[2][8][4];
#pragma unroll
    for (int m = 0; m < 2; ++m)
#pragma unroll
      for (int j = 0; j < 8; ++j)
#pragma unroll
        for (int i = 0; i < 4; ++i) logit[m][j][i] = 0.0f;
    const int steps = static_cast<int>((task.depth + kDepth - 1) / kDepth);
    // Past the end zeros are copied, so that each step commits one group.
    copy_stage(task, stages, row, column, 0);
    copy_stage(task, stages + kStage, row, column, kDepth);
    for (int step = 0; step < steps; ++step) {
      copy_wait<1>();
      __syncthreads();  // this step's stage is there, and the one before has been read
      copy_stage(task, stages + (step + 2) % kStages * kStage, row, column, static_cast<int64_t>(step + 2) * kDepth);
      const Bf16* stage = stages + step % kStages * kStage;
      const Bf16* a_at = stage + warp_row * kStride + left_offset(lane, kStride);
      const Bf16* b_at = stage + (kRows + warp_column) * kStride + right_offset(lane, kStride);
#pragma unroll
      for (int d = 0; d < kDepth; d += 16) {
        const Fragment a0 = load_matrices<false>(a_at + d);
        const Fragment a1 = load_matrices<false>(a_at + 16 * kStride + d);
#pragma unroll
        for (int j = 0; j < 8; j += 2) {
          const Fragment b = load_matrices<false>(b_at + j * 8 * kStride + d);
          multiply_add(logit[0][j], a0, b.x[0], b.x[1]);
          multiply_add(logit[0][j + 1], a0, b.x[2], b.x[3]);
          multiply_add(logit[1][j], a1, b.x[0], b.x[1]);
          multiply_add(logit[1][j + 1], a1, b.x[2], b.x[3]);
        }
      }
    }
    copy_wait<0>();
    __syncthreads();  // the next tile's copies go to stages that have been read
    if constexpr (kCapped) {
#pragma unroll
      for (int m = 0; m < 2; ++m)
#pragma unroll
        for (int j = 0; j < 8; ++j)
#pragma unroll
          for (int i = 0; i < 4; ++i) logit[m][j][i] = logit_of<kCapped>(task.cap, logit[m][j][i]);
    }
    const int64_t first = column + warp_column + 2 * t;
#pragma unroll
    for (int n = 0; n < 4; ++n) {
      const int64_t at = row + warp_row + n * 8 + g;
      const bool present = at < task.rows;
      // Counted from this lane's first column, of which it has those of 8 j and 8 j + 1.
      const int64_t target = present ? task.targets[at] - task.first - first : -1;
      if constexpr (kBackward) {
        if (!present) continue;
        const float lse = task.lse[at], grad = task.grad[at];
        Bf16* to = static_cast<Bf16*>(task.gradients) + at * task.gradient_stride + first;
#pragma unroll
        for (int j = 0; j < 8; ++j) {
          if (first + j * 8 >= task.gradient_stride) continue;
          float value[2];
#pragma unroll
          for (int i = 0; i < 2; ++i)
            value[i] = first + j * 8 + i < task.columns
                           ? product_gradient<kCapped>(task.cap, logit[n / 2][j][n % 2 * 2 + i], lse, grad,
                                                       target == j * 8 + i)
                           : 0.0f;
          *reinterpret_cast<uint32_t*>(to + j * 8) = pack_bf16(value[0], value[1]);
        }
      } else {
#pragma unroll
        for (int j = 0; j < 8; ++j) {
#pragma unroll
          for (int i = 0; i < 2; ++i) {
            float& value = logit[n / 2][j][n % 2 * 2 + i];
            if (first + j * 8 + i >= end)
              value = kNever;
            else if (target == j * 8 + i)
              task.target_logits[at] = value;
          }
        }
        // A tile may have no column for the right half's warps, and kNever less itself is no 0 after a fused
        // multiply-add.
        if (column + warp_column < end)
          fold_row<16, 4>(sums[n], [&](int k) { return logit[n / 2][k / 2][n % 2 * 2 + k % 2]; });
      }
    }
  }
  if constexpr (!kBackward) {
#pragma unroll
    for (int n = 0; n < 4; ++n) sums[n].total = row_total<4>(sums[n].total);
    if (warp_column != 0 && t == 0) {
#pragma unroll
      for (int n = 0; n < 4; ++n) halves[warp_row + n * 8 + g] = sums[n];
    }
    __syncthreads();
    if (warp_column == 0 && t == 0) {
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        const int64_t at = row + warp_row + n * 8 + g;
        if (at >= task.rows) continue;
        const RowSum sum = merge(sums[n], halves[warp_row + n * 8 + g]);
        task.partials[chunk * task.rows + at] = make_float2(sum.top, sum.total);
      }
    }
  }
}

}  // namespace

bool mma_serves(int32_t dtype, const HeadTask& task) {
  return dtype == IX_BF16 && task.depth % 8 == 0 && task.hidden_stride % 8 == 0 && task.gradient_stride % 2 == 0 &&
         reinterpret_cast<uintptr_t>(task.hidden) % 16 == 0 && reinterpret_cast<uintptr_t>(task.weight) % 16 == 0;
}

int32_t head_mma(const Call& call, const HeadTask& task, bool backward) {
  const dim3 grid(blocks_of(task.rows, kRows), blocks_of(task.columns, kVocabularyChunk));
  if (task.cap.cap > 0)
    return call.launch(backward ? head_tiles<true, true> : head_tiles<false, true>, grid, kThreads, kBytes, task);
  return call.launch(backward ? head_tiles<true, false> : head_tiles<false, false>, grid, kThreads, kBytes, task);
}

}  // namespace implex::cuda
