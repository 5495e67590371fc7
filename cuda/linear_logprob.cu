// linear_logprob: logp[i] = ln softmax(hidden[i] · weight^T)[targets[i]], without an [N, V] array.
//
// Two passes. A kernel of tiles keeps logits in registers and leaves, for each row and chunk of kVocabularyChunk
// columns, a maximum and a sum of exponentials, and the target's logit in the chunk that has it. Then a thread a row
// merges the chunks in order, in double. A chunk depends on the vocabulary alone, and within it a row's values are
// folded in one order, so its bits do not depend on the other rows.
//
// The tiles: linear_logprob_hopper.cu (sm_90a: TMA, wgmma), linear_logprob_mma.cu (sm_80: cp.async, mma.sync), and here
// the plain kernel, for f32 and for rows that are not aligned to 16 bytes: full f32 arithmetic, one chain over the
// depth for each logit. Floor: max(2 N D V over the rate of the units, V D (element size) over the bandwidth). A target
// outside the vocabulary gives NaN. A soft cap is put on a tile's products before they are reduced, by kernels of their
// own.
#include <algorithm>

#include "gpu/head.cuh"

namespace implex::cuda {

namespace {

constexpr int kTile = 64;
constexpr int kDepth = 16;
constexpr int kThreads = 256;
constexpr int kMergeThreads = 128;

template <typename T>
__device__ inline void load_slice(const T* from, int64_t stride, int64_t first, int64_t count, int64_t k, int64_t depth,
                                  float (*to)[kTile + 4]) {
#pragma unroll
  for (int i = 0; i < kTile * kDepth / kThreads; ++i) {
    const int at = i * kThreads + static_cast<int>(threadIdx.x);
    const int d = at % kDepth, j = at / kDepth;
    to[d][j] = first + j < count && k + d < depth ? to_float(from[(first + j) * stride + k + d]) : 0.0f;
  }
}

// A block: 64 rows by one chunk, 64 columns at a time; a thread has 4 rows and 4 columns, 16 lanes share a row.
template <typename T, bool kBackward, bool kCapped>
__global__ void __launch_bounds__(kThreads, kCapped ? 2 : 0) head_plain(HeadTask task) {
  __shared__ float a[kDepth][kTile + 4];
  __shared__ float b[kDepth][kTile + 4];
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kTile;
  const int64_t chunk = blockIdx.y;
  const int y = static_cast<int>(threadIdx.x) / 16 * 4;
  const int x = static_cast<int>(threadIdx.x) % 16 * 4;
  const int64_t chunk_end = (chunk + 1) * kVocabularyChunk;
  const int64_t end = chunk_end < task.columns ? chunk_end : task.columns;
  RowSum sums[4];
  int64_t target[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    sums[i] = {kNever, 0.0f};
    target[i] = row + y + i < task.rows ? static_cast<int64_t>(task.targets[row + y + i]) - task.first : -1;
  }
  for (int64_t column = chunk * kVocabularyChunk; column < end; column += kTile) {
    float logit[4][4] = {};
    for (int64_t k = 0; k < task.depth; k += kDepth) {
      load_slice(static_cast<const T*>(task.hidden), task.hidden_stride, row, task.rows, k, task.depth, a);
      load_slice(static_cast<const T*>(task.weight), task.depth, column, task.columns, k, task.depth, b);
      __syncthreads();
#pragma unroll 8
      for (int d = 0; d < kDepth; ++d)
#pragma unroll
        for (int i = 0; i < 4; ++i)
#pragma unroll
          for (int j = 0; j < 4; ++j) logit[i][j] = fmaf(a[d][y + i], b[d][x + j], logit[i][j]);
      __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int64_t at = row + y + i;
      if constexpr (kCapped) {
#pragma unroll
        for (int j = 0; j < 4; ++j) logit[i][j] = logit_of<kCapped>(task.cap, logit[i][j]);
      }
      if constexpr (kBackward) {
        if (at >= task.rows) continue;
        T* to = static_cast<T*>(task.gradients) + at * task.gradient_stride;
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const int64_t c = column + x + j;
          if (c >= task.gradient_stride) continue;
          to[c] = from_float<T>(c < task.columns ? product_gradient<kCapped>(task.cap, logit[i][j], task.lse[at],
                                                                             task.grad[at], c == target[i])
                                                 : 0.0f);
        }
      } else {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const int64_t c = column + x + j;
          if (c == target[i] && c < end) task.target_logits[at] = logit[i][j];
          if (c >= end) logit[i][j] = kNever;
        }
        fold_row<4, 16>(sums[i], [&](int j) { return logit[i][j]; });
      }
    }
  }
  if constexpr (!kBackward) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float total = row_total<16>(sums[i].total);
      if (x == 0 && row + y + i < task.rows)
        task.partials[chunk * task.rows + row + y + i] = make_float2(sums[i].top, total);
    }
  }
}

// logp holds the target's logit.
__global__ void __launch_bounds__(kMergeThreads)
    merge_chunks(const float2* partials, int64_t chunks, int64_t rows, float* logp, float* lse) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kMergeThreads + threadIdx.x;
  if (row >= rows) return;
  float top = partials[row].x;
  for (int64_t i = 1; i < chunks; ++i) top = fmaxf(top, partials[i * rows + row].x);
  double sum = 0;
  for (int64_t i = 0; i < chunks; ++i) {
    const float2 p = partials[i * rows + row];
    sum += static_cast<double>(p.y) * exp(static_cast<double>(p.x) - static_cast<double>(top));
  }
  const double total = static_cast<double>(top) + log(sum);
  logp[row] = static_cast<float>(static_cast<double>(logp[row]) - total);
  if (lse != nullptr) lse[row] = static_cast<float>(total);
}

template <typename T, bool kCapped>
int32_t plain(const Call& call, const HeadTask& task, bool backward) {
  const dim3 grid(blocks_of(task.rows, kTile), blocks_of(task.columns, kVocabularyChunk));
  return call.launch(backward ? head_plain<T, true, kCapped> : head_plain<T, false, kCapped>, grid, kThreads, 0, task);
}

}  // namespace

int32_t head(const Call& call, int32_t dtype, const HeadTask& task, bool backward) {
  if (task.rows == 0 || task.columns == 0) return IX_OK;
  if (hopper_serves(call.device, dtype, task)) return head_hopper(call, task, backward);
  if (mma_serves(dtype, task)) return head_mma(call, task, backward);
  return with_type(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    return task.cap.cap > 0 ? plain<T, true>(call, task, backward) : plain<T, false>(call, task, backward);
  });
}

int32_t linear_logprob(ix_device* device, const ix_mat* hidden, const ix_weight* weight, const int32_t* targets,
                       float soft_cap, float* logp, float* lse, ix_status* status) {
  Call call(device, status, "linear_logprob", hidden->rows, hidden->cols, weight->rows);
  int32_t code = call.begin();
  if (code != IX_OK) return code;
  if (hidden->dtype != weight->dtype || hidden->cols != weight->cols)
    return call.fail(IX_INVALID, "shapes or dtypes disagree with the weight [%lld, %lld]",
                     static_cast<long long>(weight->rows), static_cast<long long>(weight->cols));
  if (!is_soft_cap(soft_cap)) return call.fail(IX_INVALID, "a soft cap of %g", static_cast<double>(soft_cap));
  const int64_t chunks = vocabulary_chunks(weight->rows);
  float2* partials = nullptr;
  if (hidden->rows > 0) code = call.scratch(Workspace::kPartials, partial_bytes(hidden->rows, weight->rows), &partials);
  // NaN, for targets that no chunk has.
  if (code == IX_OK && hidden->rows > 0)
    code = call.check(cudaMemsetAsync(logp, 0xff, static_cast<size_t>(hidden->rows) * sizeof(float), device->stream));
  for (int64_t row = 0; row < hidden->rows && code == IX_OK; row += kForwardRows) {
    HeadTask task = {};
    task.hidden = static_cast<const char*>(hidden->data) +
                  row * hidden->stride * static_cast<int64_t>(element_size(hidden->dtype));
    task.hidden_stride = hidden->stride;
    task.weight = weight->data;
    task.rows = std::min(kForwardRows, hidden->rows - row);
    task.columns = weight->rows;
    task.depth = weight->cols;
    task.targets = targets + row;
    task.cap = soft_cap_of(soft_cap);
    task.partials = partials;
    task.target_logits = logp + row;
    code = head(call, hidden->dtype, task, false);
    if (code == IX_OK)
      code = call.launch(merge_chunks, blocks_of(task.rows, kMergeThreads), kMergeThreads, 0,
                         static_cast<const float2*>(partials), chunks, task.rows, logp + row,
                         lse != nullptr ? lse + row : nullptr);
  }
  return code;
}

}  // namespace implex::cuda
