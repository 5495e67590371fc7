// attention: each query row over its segment's parent and, causally, its own segment, with a running softmax; no
// [T, T] array. q, out [N, H E]; k, v [T, G E]; lse [N, H] f32 or none.
//
// Keys come in blocks aligned to the position in the sequence, whichever segments hold them, and each row's sums run
// over the blocks in order: how a sequence is cut into segments, and which rows share a block, changes no bit. A block
// of keys that a row does not see changes nothing of it. Past its position: the weights are exactly 0 and the factor
// exactly 1. Before its window: the row stays as it began, with a total of 0. Blocks before every row's window are not
// looked at. Scores are masked only in blocks of which some row of the warp does not see some key. With a soft cap (a
// kernel of its own) a score is bent before the softmax.
//
// bf16 with heads of 64, 80, 96, 128, 256: 64 query rows a block, four warps of 16 with mma.sync, keys and values
// through shared memory by cp.async, the copy of the values under the scores and that of the next keys under the
// output. Else: a warp a row. Floor: 4 E operations a visible (row, key, head) over the rate of the matrix units.
// What limits it: mma.sync reaches about 2/3 of the wgmma rate on Hopper, and softmax is not overlapped with products
// within a warp, only between the blocks that share a multiprocessor.
#include <algorithm>

#include "gpu/attention_tile.cuh"

namespace implex::cuda {

namespace {

template <int E>
constexpr size_t kForwardBytes = (kQueryRows + 2 * kBlockKeys<E>)*kTileStride<E> * sizeof(Bf16);

template <int E, bool kCapped>
__global__ void __launch_bounds__(kAttentionThreads, E <= 96    ? 4
                                                     : E <= 128 ? 3
                                                                : 2)
    attend(AttentionShape s, const Bf16* q, int64_t q_stride, const Bf16* k, const Bf16* v, int64_t kv_stride,
           Bf16* out, int64_t out_stride, float* lse) {
  constexpr int kKeys = kBlockKeys<E>;
  constexpr int kTiles = kKeys / 8;
  IMPLEX_SHARED_MEMORY(shared);
  Bf16* queries = reinterpret_cast<Bf16*>(shared);
  Bf16* keys = queries + kQueryRows * kTileStride<E>;
  Bf16* values = keys + kKeys * kTileStride<E>;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int g = static_cast<int>(threadIdx.x) % kWarp / 4, t = static_cast<int>(threadIdx.x) % 4;
  const int32_t items = *s.block_count * s.heads;
  for (int32_t item = static_cast<int32_t>(blockIdx.x); item < items; item += static_cast<int32_t>(gridDim.x)) {
    const QueryBlock block = s.blocks[item / s.heads];
    const int32_t head = item % s.heads;
    const Span span = s.spans[block.segment];
    const Bf16* q_head = q + block.row * q_stride + static_cast<int64_t>(head) * E;
    const Bf16* k_head = k + static_cast<int64_t>(head / s.group) * E;
    const Bf16* v_head = v + static_cast<int64_t>(head / s.group) * E;
    const auto copy_block = [&](Bf16* tile, const Bf16* from, int32_t base) {
      copy_tile<E, kKeys>(tile, [&](int i) -> const Bf16* {
        const int32_t position = base + i;
        return position <= block.last ? from + device_token_of(span, position) * kv_stride : nullptr;
      });
      copy_commit();
    };
    copy_tile<E, kQueryRows>(queries,
                             [&](int i) -> const Bf16* { return i < block.rows ? q_head + i * q_stride : nullptr; });
    const int32_t first = first_seen(block.first, s.window) / kKeys * kKeys;
    copy_block(keys, k_head, first);  // one group with the queries

    int32_t position[2];
    float top[2], total[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int row = warp * 16 + g + r * 8;
      position[r] = row < block.rows ? position_of_row(s, block.row + row) : -1;
      top[r] = kNever;
      total[r] = 0.0f;
    }
    float sum[E / 8][4];
#pragma unroll
    for (int j = 0; j < E / 8; ++j)
#pragma unroll
      for (int i = 0; i < 4; ++i) sum[j][i] = 0.0f;

    for (int32_t base = first; base <= block.last; base += kKeys) {
      copy_block(values, v_head, base);
      copy_wait<1>();  // queries and keys
      __syncthreads();
      float score[kTiles][4];
#pragma unroll
      for (int j = 0; j < kTiles; ++j)
#pragma unroll
        for (int i = 0; i < 4; ++i) score[j][i] = 0.0f;
      multiply_rows<E, kTiles>(score, queries + warp * 16 * kTileStride<E>, keys);
      __syncthreads();                         // the keys have been read
      copy_block(keys, k_head, base + kKeys);  // zeros past the end; a group in any case
#pragma unroll
      for (int j = 0; j < kTiles; ++j)
#pragma unroll
        for (int i = 0; i < 4; ++i) score[j][i] = finish_score<kCapped>(s, score[j][i]);
      if (some_unseen(s, position, base, kKeys)) {
        const int32_t distance[2] = {position[0] - base - 2 * t, position[1] - base - 2 * t};
#pragma unroll
        for (int j = 0; j < kTiles; ++j)
#pragma unroll
          for (int i = 0; i < 4; ++i)
            if (!within(distance[i / 2] - (j * 8 + i % 2), s.window)) score[j][i] = kNever;
      }
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        float most = kNever;
#pragma unroll
        for (int j = 0; j < kTiles; ++j)
#pragma unroll
          for (int i = 0; i < 2; ++i) most = fmaxf(most, score[j][2 * r + i]);
        most = fmaxf(most, __shfl_xor_sync(kAllLanes, most, 1));
        most = fmaxf(most, __shfl_xor_sync(kAllLanes, most, 2));
        const float next = fmaxf(top[r], most);
        // From kNever itself all weights would be 1: a row that has seen nothing yet gets none.
        const float shift = next == kNever ? 0.0f : next;
        const float rescale = exp2_fast(top[r] - shift);
        top[r] = next;
        float weights = 0.0f;
#pragma unroll
        for (int j = 0; j < kTiles; ++j) {
#pragma unroll
          for (int i = 0; i < 2; ++i) {
            score[j][2 * r + i] = exp2_fast(score[j][2 * r + i] - shift);
            weights += score[j][2 * r + i];
          }
        }
        total[r] = total[r] * rescale + weights;  // of this lane's columns
#pragma unroll
        for (int j = 0; j < E / 8; ++j) {
          sum[j][2 * r] *= rescale;
          sum[j][2 * r + 1] *= rescale;
        }
      }
      copy_wait<1>();  // values
      __syncthreads();
      multiply_weights<E, kTiles>(sum, score, values);
      __syncthreads();  // the values have been read
    }
    copy_wait<0>();
    __syncthreads();  // nothing of this item is under way when the next one's tiles are copied
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      total[r] += __shfl_xor_sync(kAllLanes, total[r], 1);
      total[r] += __shfl_xor_sync(kAllLanes, total[r], 2);
      const int row = warp * 16 + g + r * 8;
      if (row >= block.rows) continue;
      const float scale_out = 1.0f / total[r];
      Bf16* to = out + (block.row + row) * out_stride + static_cast<int64_t>(head) * E + 2 * t;
#pragma unroll
      for (int j = 0; j < E / 8; ++j)
        *reinterpret_cast<uint32_t*>(to + j * 8) = pack_bf16(sum[j][2 * r] * scale_out, sum[j][2 * r + 1] * scale_out);
      if (lse != nullptr && t == 0)
        lse[static_cast<int64_t>(block.row + row) * s.heads + head] = top[r] * kLn2 + logf(total[r]);
    }
  }
}

// The same for any head size and dtype: a warp a row and head, a lane a key of each block of 32, f32 throughout.
constexpr int kPlainWarps = 4;

template <typename T>
__global__ void __launch_bounds__(kPlainWarps* kWarp)
    attend_plain(AttentionShape s, int64_t count, const int32_t* segment_of, const T* q, int64_t q_stride, const T* k,
                 const T* v, int64_t kv_stride, T* out, int64_t out_stride, float* lse) {
  IMPLEX_SHARED_MEMORY(shared);
  const int E = s.head_dim;
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  float* query = reinterpret_cast<float*>(shared) + warp * 2 * E;  // the warp's own: no barriers of the block
  float* sum = query + E;
  const int64_t item = static_cast<int64_t>(blockIdx.x) * kPlainWarps + warp;
  if (item >= count * s.heads) return;
  const int64_t row = item / s.heads;
  const int32_t head = static_cast<int32_t>(item % s.heads);
  const int64_t token = s.rows != nullptr ? s.rows[row] : row;
  const int32_t position = s.positions[token];
  const int32_t first = first_seen(position, s.window);
  const Span span = s.spans[segment_of[token]];
  const int64_t kv_at = static_cast<int64_t>(head / s.group) * E;
  for (int d = lane; d < E; d += kWarp) {
    query[d] = to_float(q[row * q_stride + static_cast<int64_t>(head) * E + d]) * s.scale;
    sum[d] = 0.0f;
  }
  __syncwarp();
  float top = kNever, total = 0.0f;
  for (int32_t base = first / kWarp * kWarp; base <= position; base += kWarp) {
    const bool seen = within(position - (base + lane), s.window);
    float score = kNever;
    if (seen) {
      const T* key = k + device_token_of(span, base + lane) * kv_stride + kv_at;
      score = 0.0f;
      for (int d = 0; d < E; ++d) score = fmaf(query[d], to_float(key[d]), score);
      if (s.cap.cap > 0) score = s.cap.cap * tanh_fast(score * s.cap.inverse);
    }
    const float next = fmaxf(top, warp_max(score));
    const float rescale = expf(top - next);
    const float weight = seen ? expf(score - next) : 0.0f;
    total = total * rescale + warp_sum(weight);
    top = next;
    for (int d = lane; d < E; d += kWarp) sum[d] *= rescale;
    for (int j = base < first ? first - base : 0; j < kWarp && base + j <= position; ++j) {
      const float w = __shfl_sync(kAllLanes, weight, j);
      const T* value = v + device_token_of(span, base + j) * kv_stride + kv_at;
      for (int d = lane; d < E; d += kWarp) sum[d] = fmaf(w, to_float(value[d]), sum[d]);
    }
  }
  const float scale_out = 1.0f / total;
  T* to = out + row * out_stride + static_cast<int64_t>(head) * E;
  for (int d = lane; d < E; d += kWarp) to[d] = from_float<T>(sum[d] * scale_out);
  if (lse != nullptr && lane == 0) lse[row * s.heads + head] = top + logf(total);
}

}  // namespace

int32_t attention(ix_device* device, const ix_batch* batch, const ix_attention* attention, const ix_mat* q,
                  const int32_t* rows, const ix_mat* k, const ix_mat* v, const ix_mat* out, float* lse,
                  ix_status* status) {
  Call call(device, status, "attention", q->rows, q->cols, k->rows);
  int32_t code = call.begin();
  if (code != IX_OK) return code;
  AttentionShape shape;
  int64_t most_blocks = 0;
  code = prepare_attention(call, batch, attention, q, rows, k, v, out, false, &shape, &most_blocks);
  if (code != IX_OK || q->rows == 0) return code;
  bool served = false;
  if (rows_aligned(q) && rows_aligned(k) && rows_aligned(v) && out->stride % 2 == 0) {
    with_head(attention->head_dim, [&](auto head) {
      constexpr int E = decltype(head)::value;
      if (kForwardBytes < E >> device->block_memory) return;
      served = true;
      const int64_t most = std::min<int64_t>(most_blocks * attention->heads, int64_t{8} * device->processors);
      code = call.launch(shape.cap.cap > 0 ? attend<E, true> : attend<E, false>, static_cast<unsigned>(most),
                         kAttentionThreads, kForwardBytes<E>, shape, static_cast<const Bf16*>(q->data), q->stride,
                         static_cast<const Bf16*>(k->data), static_cast<const Bf16*>(v->data), k->stride,
                         static_cast<Bf16*>(out->data), out->stride, lse);
    });
  }
  if (served) return code;
  const size_t shared = static_cast<size_t>(kPlainWarps) * 2 * static_cast<size_t>(attention->head_dim) * sizeof(float);
  if (shared > device->block_memory) return call.fail(IX_INVALID, "a head of %d is too large", attention->head_dim);
  return with_type(q->dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    return call.launch(attend_plain<T>, blocks_of(q->rows * attention->heads, kPlainWarps), kPlainWarps * kWarp, shared,
                       shape, q->rows, batch->segment_of, static_cast<const T*>(q->data), q->stride,
                       static_cast<const T*>(k->data), static_cast<const T*>(v->data), k->stride,
                       static_cast<T*>(out->data), out->stride, lse);
  });
}

}  // namespace implex::cuda
