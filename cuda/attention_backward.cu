// attention_backward. With p = exp(s - lse) and D = sum over d of grad · out:
//   dv += pᵀ grad,  ds = p (grad · v - D),  dq = scale ds k,  dk += scale dsᵀ q.
// With a soft cap ds is also multiplied by the cap's slope, 1 - tanh².
//
// Three kernels: D of every row and head; dq, a block of 64 query rows over its keys; dk and dv, a tile of 64 keys of
// one key/value head over all queries that see them, its group's heads and the blocks of rows in order. Each sum is
// made by one warp in one order, so there are no atomics: a prompt's keys take their gradients from its own rows and
// then from each response's.
//
// bf16 with the head sizes of attention.cu: mma.sync, p and ds rounded to bf16 for the second products as in the
// forward pass. Else a warp a row. Floor: 10 E operations a visible (row, key, head), 14 E as done here since both
// kernels make the scores again. What limits it: as attention.cu; a prompt of many responses is few tiles with much
// work.
#include <algorithm>

#include "gpu/attention_tile.cuh"

namespace implex::cuda {

namespace {

constexpr int kPlainWarps = 4;

struct BackwardTask {
  AttentionShape s;
  const float* lse;    // [N, H]
  const float* delta;  // [N, H]
  int64_t q_stride, kv_stride, grad_stride, q_grad_stride, k_grad_stride, v_grad_stride;
};

template <typename T>
__global__ void __launch_bounds__(kPlainWarps* kWarp)
    row_deltas(const T* out, const T* grad, int64_t out_stride, int64_t grad_stride, int64_t count, int32_t heads,
               int32_t head_dim, float* delta) {
  const int64_t item = static_cast<int64_t>(blockIdx.x) * kPlainWarps + threadIdx.x / kWarp;
  if (item >= count * heads) return;
  const int64_t row = item / heads;
  const int64_t at = item % heads * head_dim;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  float sum = 0.0f;
  for (int d = lane; d < head_dim; d += kWarp)
    sum += to_float(out[row * out_stride + at + d]) * to_float(grad[row * grad_stride + at + d]);
  sum = warp_sum(sum);
  if (lane == 0) delta[item] = sum;
}

template <int E>
constexpr size_t kQueryGradBytes = (2 * kQueryRows + 2 * kStepKeys<E>)*kTileStride<E> * sizeof(Bf16);

template <int E, bool kCapped>
__global__ void __launch_bounds__(kAttentionThreads, E <= 96 || (E == 128 && !kCapped) ? 3 : 2)
    query_gradients(BackwardTask b, const Bf16* q, const Bf16* k, const Bf16* v, const Bf16* grad, Bf16* q_grad) {
  constexpr int kKeys = kStepKeys<E>;
  constexpr int kTiles = kKeys / 8;
  IMPLEX_SHARED_MEMORY(shared);
  Bf16* queries = reinterpret_cast<Bf16*>(shared);
  Bf16* grads = queries + kQueryRows * kTileStride<E>;
  Bf16* keys = grads + kQueryRows * kTileStride<E>;
  Bf16* values = keys + kKeys * kTileStride<E>;
  const AttentionShape& s = b.s;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int g = static_cast<int>(threadIdx.x) % kWarp / 4, t = static_cast<int>(threadIdx.x) % 4;
  const int32_t items = *s.block_count * s.heads;
  for (int32_t item = static_cast<int32_t>(blockIdx.x); item < items; item += static_cast<int32_t>(gridDim.x)) {
    const QueryBlock block = s.blocks[item / s.heads];
    const int32_t head = item % s.heads;
    const Span span = s.spans[block.segment];
    const int64_t at = static_cast<int64_t>(head) * E;
    const int64_t kv_at = static_cast<int64_t>(head / s.group) * E;
    copy_tile<E, kQueryRows>(queries, [&](int i) -> const Bf16* {
      return i < block.rows ? q + (block.row + i) * b.q_stride + at : nullptr;
    });
    copy_tile<E, kQueryRows>(grads, [&](int i) -> const Bf16* {
      return i < block.rows ? grad + (block.row + i) * b.grad_stride + at : nullptr;
    });
    copy_commit();
    int32_t position[2];
    float lse[2], delta[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int row = warp * 16 + g + r * 8;
      const bool present = row < block.rows;
      const int64_t statistic = static_cast<int64_t>(block.row + row) * s.heads + head;
      position[r] = present ? position_of_row(s, block.row + row) : -1;
      lse[r] = present ? b.lse[statistic] * kLog2e : 0.0f;
      delta[r] = present ? b.delta[statistic] : 0.0f;
    }
    float sum[E / 8][4];
#pragma unroll
    for (int j = 0; j < E / 8; ++j)
#pragma unroll
      for (int i = 0; i < 4; ++i) sum[j][i] = 0.0f;
    for (int32_t base = first_seen(block.first, s.window) / kKeys * kKeys; base <= block.last; base += kKeys) {
      const auto source = [&](const Bf16* from) {
        return [&, from](int i) -> const Bf16* {
          const int32_t at_position = base + i;
          return at_position <= block.last ? from + device_token_of(span, at_position) * b.kv_stride + kv_at : nullptr;
        };
      };
      copy_tile<E, kKeys>(keys, source(k));
      copy_tile<E, kKeys>(values, source(v));
      copy_commit();
      copy_wait<0>();
      __syncthreads();
      float score[kTiles][4], slope[kTiles][4];
#pragma unroll
      for (int j = 0; j < kTiles; ++j)
#pragma unroll
        for (int i = 0; i < 4; ++i) score[j][i] = slope[j][i] = 0.0f;
      multiply_rows<E, kTiles>(score, queries + warp * 16 * kTileStride<E>, keys);
      multiply_rows<E, kTiles>(slope, grads + warp * 16 * kTileStride<E>, values);
#pragma unroll
      for (int j = 0; j < kTiles; ++j) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          float bend = 1.0f;
          const float weight = exp2_fast(finish_score<kCapped>(s, score[j][i], &bend) - lse[i / 2]);
          score[j][i] = weight * (slope[j][i] - delta[i / 2]);
          if constexpr (kCapped) score[j][i] *= bend;
        }
      }
      if (some_unseen(s, position, base, kKeys)) {
        const int32_t distance[2] = {position[0] - base - 2 * t, position[1] - base - 2 * t};
#pragma unroll
        for (int j = 0; j < kTiles; ++j)
#pragma unroll
          for (int i = 0; i < 4; ++i)
            if (!within(distance[i / 2] - (j * 8 + i % 2), s.window)) score[j][i] = 0.0f;
      }
      multiply_weights<E, kTiles>(sum, score, keys);
      __syncthreads();  // both tiles have been read
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int row = warp * 16 + g + r * 8;
      if (row >= block.rows) continue;
      Bf16* to = q_grad + (block.row + row) * b.q_grad_stride + at + 2 * t;
#pragma unroll
      for (int j = 0; j < E / 8; ++j)
        *reinterpret_cast<uint32_t*>(to + j * 8) = pack_bf16(sum[j][2 * r] * s.scale, sum[j][2 * r + 1] * s.scale);
    }
  }
}

__device__ inline bool block_sees(const AttentionShape& s, const QueryBlock& block, const KeyTile& tile) {
  return sees(block, s.spans[block.segment].parent, tile, s.window);
}

template <int E>
constexpr size_t kKeyGradBytes = (2 * kKeyRows + 2 * kStepQueries<E>)*kTileStride<E> * sizeof(Bf16) +
                                 kStepQueries<E>*(2 * sizeof(float) + sizeof(int32_t));

// kKeyPart, kValuePart: which sums this launch makes. Both for heads up to 128; for 256 both would not fit in
// registers, so each has a launch of its own.
template <int E, bool kKeyPart, bool kValuePart, bool kCapped>
__global__ void __launch_bounds__(kAttentionThreads, E == 64 && !kCapped ? 3 : 2)
    key_gradients(BackwardTask b, const KeyTile* tiles, const Bf16* q, const Bf16* k, const Bf16* v, const Bf16* grad,
                  Bf16* k_grad, Bf16* v_grad) {
  constexpr int kQueries = kStepQueries<E>;
  constexpr int kTiles = kQueries / 8;
  IMPLEX_SHARED_MEMORY(shared);
  Bf16* keys = reinterpret_cast<Bf16*>(shared);
  Bf16* values = keys + kKeyRows * kTileStride<E>;
  Bf16* queries = values + kKeyRows * kTileStride<E>;
  Bf16* grads = queries + kQueries * kTileStride<E>;
  float* lse = reinterpret_cast<float*>(grads + kQueries * kTileStride<E>);
  float* delta = lse + kQueries;
  int32_t* positions = reinterpret_cast<int32_t*>(delta + kQueries);
  const AttentionShape& s = b.s;
  const int thread = static_cast<int>(threadIdx.x);
  const int warp = thread / kWarp;
  const int g = thread % kWarp / 4, t = thread % 4;
  const KeyTile tile = tiles[blockIdx.x];
  const int32_t kv_head = static_cast<int32_t>(blockIdx.y);
  const int64_t kv_at = static_cast<int64_t>(kv_head) * E;
  copy_tile<E, kKeyRows>(keys, [&](int i) -> const Bf16* {
    return i < tile.tokens ? k + (tile.token + i) * b.kv_stride + kv_at : nullptr;
  });
  copy_tile<E, kKeyRows>(values, [&](int i) -> const Bf16* {
    return i < tile.tokens ? v + (tile.token + i) * b.kv_stride + kv_at : nullptr;
  });
  copy_commit();
  constexpr int kKeySums = kKeyPart ? E / 8 : 1;
  constexpr int kValueSums = kValuePart ? E / 8 : 1;
  float key_sum[kKeySums][4], value_sum[kValueSums][4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int j = 0; j < kKeySums; ++j) key_sum[j][i] = 0.0f;
#pragma unroll
    for (int j = 0; j < kValueSums; ++j) value_sum[j][i] = 0.0f;
  }
  const int32_t key_position[2] = {tile.position + warp * 16 + g, tile.position + warp * 16 + g + 8};
  const int32_t blocks = *s.block_count;
  for (int32_t member = 0; member < s.group; ++member) {
    const int32_t head = kv_head * s.group + member;
    const int64_t at = static_cast<int64_t>(head) * E;
    // A lane looks at each of 32 blocks, every warp at the same: the threads go through those that see the tile
    // together.
    unsigned seeing = 0;
    for (int32_t n = 0; n < blocks; ++n) {
      if (n % kWarp == 0) {
        const int32_t mine = n + thread % kWarp;
        seeing = __ballot_sync(kAllLanes, mine < blocks && block_sees(s, s.blocks[mine], tile) ? 1 : 0);
      }
      if ((seeing >> n % kWarp & 1) == 0) continue;
      const QueryBlock block = s.blocks[n];
      for (int32_t first = 0; first < block.rows; first += kQueries) {
        copy_tile<E, kQueries>(queries, [&](int i) -> const Bf16* {
          return first + i < block.rows ? q + (block.row + first + i) * b.q_stride + at : nullptr;
        });
        copy_tile<E, kQueries>(grads, [&](int i) -> const Bf16* {
          return first + i < block.rows ? grad + (block.row + first + i) * b.grad_stride + at : nullptr;
        });
        copy_commit();
        if (thread < kQueries) {
          const bool present = first + thread < block.rows;
          const int64_t row = block.row + first + thread;
          positions[thread] = present ? position_of_row(s, row) : -1;
          lse[thread] = present ? b.lse[row * s.heads + head] * kLog2e : 0.0f;
          delta[thread] = present ? b.delta[row * s.heads + head] : 0.0f;
        }
        copy_wait<0>();
        __syncthreads();
        float weight[kTiles][4];  // transposed: 16 keys of the warp x queries
#pragma unroll
        for (int j = 0; j < kTiles; ++j)
#pragma unroll
          for (int i = 0; i < 4; ++i) weight[j][i] = 0.0f;
        multiply_rows<E, kTiles>(weight, keys + warp * 16 * kTileStride<E>, queries);
        float bend[kCapped ? kTiles : 1][4];
#pragma unroll
        for (int j = 0; j < kTiles; ++j) {
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const int query = j * 8 + 2 * t + i % 2;
            const bool seen = within(positions[query] - key_position[i / 2], s.window);
            const float score = finish_score<kCapped>(s, weight[j][i], &bend[kCapped ? j : 0][i]);
            weight[j][i] = seen ? exp2_fast(score - lse[query]) : 0.0f;
          }
        }
        if constexpr (kValuePart) multiply_weights<E, kTiles>(value_sum, weight, grads);
        if constexpr (kKeyPart) {
          float slope[kTiles][4];
#pragma unroll
          for (int j = 0; j < kTiles; ++j)
#pragma unroll
            for (int i = 0; i < 4; ++i) slope[j][i] = 0.0f;
          multiply_rows<E, kTiles>(slope, values + warp * 16 * kTileStride<E>, grads);
#pragma unroll
          for (int j = 0; j < kTiles; ++j) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
              weight[j][i] *= slope[j][i] - delta[j * 8 + 2 * t + i % 2];
              if constexpr (kCapped) weight[j][i] *= bend[j][i];
            }
          }
          multiply_weights<E, kTiles>(key_sum, weight, queries);
        }
        __syncthreads();  // the step's tiles have been read
      }
    }
  }
  copy_wait<0>();  // a tile that nothing sees still has its copies under way
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int row = warp * 16 + g + r * 8;
    if (row >= tile.tokens) continue;
    const int64_t token = tile.token + row;
    if constexpr (kKeyPart) {
      Bf16* to = k_grad + token * b.k_grad_stride + kv_at + 2 * t;
#pragma unroll
      for (int j = 0; j < E / 8; ++j)
        *reinterpret_cast<uint32_t*>(to + j * 8) =
            pack_bf16(key_sum[j][2 * r] * s.scale, key_sum[j][2 * r + 1] * s.scale);
    }
    if constexpr (kValuePart) {
      Bf16* to = v_grad + token * b.v_grad_stride + kv_at + 2 * t;
#pragma unroll
      for (int j = 0; j < E / 8; ++j)
        *reinterpret_cast<uint32_t*>(to + j * 8) = pack_bf16(value_sum[j][2 * r], value_sum[j][2 * r + 1]);
    }
  }
}

__device__ inline float cap_score(const AttentionShape& s, float score, float* slope) {
  const float bent = tanh_fast(score * s.cap.inverse);
  *slope = cap_slope(bent);
  return s.cap.cap * bent;
}

// Any head size and dtype: a warp a row and head, a lane a key.
template <typename T>
__global__ void __launch_bounds__(kPlainWarps* kWarp)
    query_gradients_plain(BackwardTask b, int64_t count, const int32_t* segment_of, const T* q, const T* k, const T* v,
                          const T* grad, T* q_grad) {
  IMPLEX_SHARED_MEMORY(shared);
  const AttentionShape& s = b.s;
  const int E = s.head_dim;
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  float* query = reinterpret_cast<float*>(shared) + warp * 3 * E;
  float* upstream = query + E;
  float* sum = upstream + E;
  const int64_t item = static_cast<int64_t>(blockIdx.x) * kPlainWarps + warp;
  if (item >= count * s.heads) return;
  const int64_t row = item / s.heads;
  const int32_t head = static_cast<int32_t>(item % s.heads);
  const int64_t token = s.rows != nullptr ? s.rows[row] : row;
  const int32_t position = s.positions[token];
  const int32_t first = first_seen(position, s.window);
  const Span span = s.spans[segment_of[token]];
  const int64_t at = static_cast<int64_t>(head) * E;
  const int64_t kv_at = static_cast<int64_t>(head / s.group) * E;
  for (int d = lane; d < E; d += kWarp) {
    query[d] = to_float(q[row * b.q_stride + at + d]) * s.scale;
    upstream[d] = to_float(grad[row * b.grad_stride + at + d]);
    sum[d] = 0.0f;
  }
  __syncwarp();
  const float lse = b.lse[item], delta = b.delta[item];
  for (int32_t base = first / kWarp * kWarp; base <= position; base += kWarp) {
    float slope = 0.0f;
    if (within(position - (base + lane), s.window)) {
      const int64_t from = device_token_of(span, base + lane) * b.kv_stride + kv_at;
      float score = 0.0f, through = 0.0f;
      for (int d = 0; d < E; ++d) {
        score = fmaf(query[d], to_float(k[from + d]), score);
        through = fmaf(upstream[d], to_float(v[from + d]), through);
      }
      float bend = 1.0f;
      if (s.cap.cap > 0) score = cap_score(s, score, &bend);
      slope = expf(score - lse) * (through - delta) * bend;
    }
    for (int j = base < first ? first - base : 0; j < kWarp && base + j <= position; ++j) {
      const float w = __shfl_sync(kAllLanes, slope, j);
      const T* key = k + device_token_of(span, base + j) * b.kv_stride + kv_at;
      for (int d = lane; d < E; d += kWarp) sum[d] = fmaf(w, to_float(key[d]), sum[d]);
    }
  }
  for (int d = lane; d < E; d += kWarp) q_grad[row * b.q_grad_stride + at + d] = from_float<T>(sum[d] * s.scale);
}

// A warp a token and key/value head, over every row that sees it in order.
template <typename T>
__global__ void __launch_bounds__(kPlainWarps* kWarp, 1)
    key_gradients_plain(BackwardTask b, int64_t tokens, int32_t kv_heads, const int32_t* segment_of, const T* q,
                        const T* k, const T* v, const T* grad, T* k_grad, T* v_grad) {
  IMPLEX_SHARED_MEMORY(shared);
  const AttentionShape& s = b.s;
  const int E = s.head_dim;
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  float* key_sum = reinterpret_cast<float*>(shared) + warp * 2 * E;
  float* value_sum = key_sum + E;
  const int64_t item = static_cast<int64_t>(blockIdx.x) * kPlainWarps + warp;
  if (item >= tokens * kv_heads) return;
  const int64_t token = item / kv_heads;
  const int32_t kv_head = static_cast<int32_t>(item % kv_heads);
  const int64_t kv_at = static_cast<int64_t>(kv_head) * E;
  const T* key = k + token * b.kv_stride + kv_at;
  const T* value = v + token * b.kv_stride + kv_at;
  const KeyTile tile = {static_cast<int32_t>(token), 1, segment_of[token], s.positions[token]};
  for (int d = lane; d < E; d += kWarp) key_sum[d] = value_sum[d] = 0.0f;
  const int32_t blocks = *s.block_count;
  for (int32_t head = kv_head * s.group; head < (kv_head + 1) * s.group; ++head) {
    const int64_t at = static_cast<int64_t>(head) * E;
    for (int32_t n = 0; n < blocks; ++n) {
      const QueryBlock block = s.blocks[n];
      if (!block_sees(s, block, tile)) continue;
      for (int32_t i = 0; i < block.rows; ++i) {
        const int64_t row = block.row + i;
        if (!within(position_of_row(s, row) - tile.position, s.window)) continue;
        const T* query = q + row * b.q_stride + at;
        const T* upstream = grad + row * b.grad_stride + at;
        float score = 0.0f, through = 0.0f;
#pragma unroll 1
        for (int d = lane; d < E; d += kWarp) {
          score = fmaf(to_float(query[d]), to_float(key[d]), score);
          through = fmaf(to_float(upstream[d]), to_float(value[d]), through);
        }
        score = warp_sum(score) * s.scale;
        through = warp_sum(through);
        float bend = 1.0f;
        if (s.cap.cap > 0) score = cap_score(s, score, &bend);
        const float weight = expf(score - b.lse[row * s.heads + head]);
        const float slope = weight * (through - b.delta[row * s.heads + head]) * bend * s.scale;
#pragma unroll 1
        for (int d = lane; d < E; d += kWarp) {
          value_sum[d] = fmaf(weight, to_float(upstream[d]), value_sum[d]);
          key_sum[d] = fmaf(slope, to_float(query[d]), key_sum[d]);
        }
      }
    }
  }
  for (int d = lane; d < E; d += kWarp) {
    k_grad[token * b.k_grad_stride + kv_at + d] = from_float<T>(key_sum[d]);
    v_grad[token * b.v_grad_stride + kv_at + d] = from_float<T>(value_sum[d]);
  }
}

struct Matrices {
  const ix_mat *q, *k, *v, *grad, *q_grad, *k_grad, *v_grad;
};

template <int E, bool kCapped>
int32_t with_matrix_kernels(const Call& call, const ix_batch* batch, const BackwardTask& b, const Matrices& m,
                            int64_t most_blocks, int32_t kv_heads) {
  const Bf16* q = static_cast<const Bf16*>(m.q->data);
  const Bf16* k = static_cast<const Bf16*>(m.k->data);
  const Bf16* v = static_cast<const Bf16*>(m.v->data);
  const Bf16* grad = static_cast<const Bf16*>(m.grad->data);
  Bf16* k_grad = static_cast<Bf16*>(m.k_grad->data);
  Bf16* v_grad = static_cast<Bf16*>(m.v_grad->data);
  const int64_t most = std::min<int64_t>(most_blocks * b.s.heads, int64_t{8} * call.device->processors);
  int32_t code = call.launch(query_gradients<E, kCapped>, static_cast<unsigned>(most), kAttentionThreads,
                             kQueryGradBytes<E>, b, q, k, v, grad, static_cast<Bf16*>(m.q_grad->data));
  const dim3 grid(static_cast<unsigned>(batch->tiles.size()), static_cast<unsigned>(kv_heads));
  if constexpr (E <= 128) {
    if (code == IX_OK)
      code = call.launch(key_gradients<E, true, true, kCapped>, grid, kAttentionThreads, kKeyGradBytes<E>, b,
                         batch->key_tiles, q, k, v, grad, k_grad, v_grad);
  } else {
    if (code == IX_OK)
      code = call.launch(key_gradients<E, true, false, kCapped>, grid, kAttentionThreads, kKeyGradBytes<E>, b,
                         batch->key_tiles, q, k, v, grad, k_grad, v_grad);
    if (code == IX_OK)
      code = call.launch(key_gradients<E, false, true, kCapped>, grid, kAttentionThreads, kKeyGradBytes<E>, b,
                         batch->key_tiles, q, k, v, grad, k_grad, v_grad);
  }
  return code;
}

}  // namespace

int32_t attention_backward(ix_device* device, const ix_batch* batch, const ix_attention* attention, const ix_mat* q,
                           const int32_t* rows, const ix_mat* k, const ix_mat* v, const ix_mat* out, const float* lse,
                           const ix_mat* grad, const ix_mat* q_grad, const ix_mat* k_grad, const ix_mat* v_grad,
                           ix_status* status) {
  Call call(device, status, "attention_backward", q->rows, q->cols, k->rows);
  int32_t code = call.begin();
  if (code != IX_OK) return code;
  BackwardTask b = {};
  int64_t most_blocks = 0;
  code = prepare_attention(call, batch, attention, q, rows, k, v, out, true, &b.s, &most_blocks);
  if (code != IX_OK) return code;
  const auto same = [](const ix_mat* x, const ix_mat* y) {
    return x->dtype == y->dtype && x->rows == y->rows && x->cols == y->cols;
  };
  if (!same(grad, out) || !same(q_grad, q) || !same(k_grad, k) || !same(v_grad, v))
    return call.fail(IX_INVALID, "shapes or dtypes disagree");
  if (q->rows == 0) {  // nothing sees the keys
    for (const ix_mat* m : {k_grad, v_grad}) {
      const size_t size = element_size(m->dtype);
      if (m->rows > 0 && code == IX_OK)
        code = call.check(cudaMemset2DAsync(m->data, static_cast<size_t>(m->stride) * size, 0,
                                            static_cast<size_t>(m->cols) * size, static_cast<size_t>(m->rows),
                                            device->stream));
    }
    return code;
  }
  float* delta = nullptr;
  code = call.scratch(Workspace::kDelta, static_cast<size_t>(q->rows * attention->heads) * sizeof(float), &delta);
  if (code != IX_OK) return code;
  code = with_type(q->dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    return call.launch(row_deltas<T>, blocks_of(q->rows * attention->heads, kPlainWarps), kPlainWarps * kWarp, 0,
                       static_cast<const T*>(out->data), static_cast<const T*>(grad->data), out->stride, grad->stride,
                       q->rows, attention->heads, attention->head_dim, delta);
  });
  if (code != IX_OK) return code;
  b.lse = lse;
  b.delta = delta;
  b.q_stride = q->stride;
  b.kv_stride = k->stride;
  b.grad_stride = grad->stride;
  b.q_grad_stride = q_grad->stride;
  b.k_grad_stride = k_grad->stride;
  b.v_grad_stride = v_grad->stride;
  const Matrices matrices = {q, k, v, grad, q_grad, k_grad, v_grad};
  bool served = false;
  if (rows_aligned(q) && rows_aligned(k) && rows_aligned(v) && rows_aligned(grad) && q_grad->stride % 2 == 0 &&
      k_grad->stride % 2 == 0 && v_grad->stride % 2 == 0) {
    with_head(attention->head_dim, [&](auto head) {
      constexpr int E = decltype(head)::value;
      if (std::max(kQueryGradBytes<E>, kKeyGradBytes<E>) > device->block_memory) return;
      served = true;
      const auto kernels = b.s.cap.cap > 0 ? with_matrix_kernels<E, true> : with_matrix_kernels<E, false>;
      code = kernels(call, batch, b, matrices, most_blocks, attention->kv_heads);
    });
  }
  if (served) return code;
  const size_t shared = static_cast<size_t>(kPlainWarps) * 3 * static_cast<size_t>(attention->head_dim) * sizeof(float);
  if (shared > device->block_memory) return call.fail(IX_INVALID, "a head of %d is too large", attention->head_dim);
  return with_type(q->dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const int32_t result = call.launch(
        query_gradients_plain<T>, blocks_of(q->rows * attention->heads, kPlainWarps), kPlainWarps * kWarp, shared, b,
        q->rows, batch->segment_of, static_cast<const T*>(q->data), static_cast<const T*>(k->data),
        static_cast<const T*>(v->data), static_cast<const T*>(grad->data), static_cast<T*>(q_grad->data));
    if (result != IX_OK) return result;
    return call.launch(key_gradients_plain<T>, blocks_of(k->rows * attention->kv_heads, kPlainWarps),
                       kPlainWarps * kWarp, shared, b, k->rows, attention->kv_heads, batch->segment_of,
                       static_cast<const T*>(q->data), static_cast<const T*>(k->data), static_cast<const T*>(v->data),
                       static_cast<const T*>(grad->data), static_cast<T*>(k_grad->data), static_cast<T*>(v_grad->data));
  });
}

}  // namespace implex::cuda
