// Backward of attention for one block of query rows: the weights are recomputed from the saved ln sum exp, one block of
// keys at a time.
//
// With p = exp(s - lse), D = sum over d of grad · out:  dv += pᵀ grad,  ds = p (grad · v - D),  dq = scale ds k,  dk +=
// scale dsᵀ q. The caller runs all blocks that touch one key/value head of one tree of segments in a fixed order on one
// thread.
#include "cpu/kernels/attention_tiles.h"
#include "cpu/kernels/entries.h"
#include "cpu/kernels/simd.h"

namespace implex::cpu::IMPLEX_KERNELS {
namespace {

struct Layout {
  float* keys;             // [kKeyBlock, wide]
  float* keys_transposed;  // [wide, kKeyBlock]
  float* values_transposed;
  float* query;   // [group, kQueryBlock, wide], scaled
  float* grad;    // [group, kQueryBlock, wide]
  float* q_grad;  // [group, kQueryBlock, wide]
  float* weight;  // [kQueryBlock, kKeyBlock]: p
  float* dscore;  // [kQueryBlock, kKeyBlock]: grad · v, then ds
  float* delta;   // [group, kQueryBlock]
};

IMPLEX_INLINE Layout layout(float* scratch, int32_t head_dim, int32_t group) {
  const int64_t wide = padded(head_dim);
  const int64_t queries = static_cast<int64_t>(group) * kQueryBlock;
  Layout l;
  l.keys = scratch;
  l.keys_transposed = l.keys + wide * kKeyBlock;
  l.values_transposed = l.keys_transposed + wide * kKeyBlock;
  l.query = l.values_transposed + wide * kKeyBlock;
  l.grad = l.query + wide * queries;
  l.q_grad = l.grad + wide * queries;
  l.weight = l.q_grad + wide * queries;
  l.dscore = l.weight + kQueryBlock * kKeyBlock;
  l.delta = l.dscore + kQueryBlock * kKeyBlock;
  return l;
}

// to[j] += sum over r of weight[r, j] * rows[r] for J keys of a block and V vectors of dimensions, r ascending. Keys
// times vectors are enough independent chains to hide an addition's latency.
template <int J, int V>
IMPLEX_INLINE void add_tile(const AttentionArgs* a, int64_t base, int32_t j, int32_t d, int32_t begin, int32_t end,
                            const float* weight, const float* rows, float* to, int64_t to_stride) {
  const int32_t wide = padded(a->head_dim);
  float* out[J];
  vf acc[J][V];
  for (int i = 0; i < J; ++i) {
    out[i] = to + token_at(a, base + j + i) * to_stride + a->kv_offset;
    for (int v = 0; v < V; ++v) acc[i][v] = get(out[i], IX_F32, d + v * kLanes, a->head_dim - d - v * kLanes);
  }
  for (int32_t r = begin; r < end; ++r) {
    vf row[V];
    for (int v = 0; v < V; ++v) row[v] = load(rows + r * wide + d + v * kLanes);
    for (int i = 0; i < J; ++i) {
      const vf x = splat(weight[r * kKeyBlock + j + i]);
      for (int v = 0; v < V; ++v) acc[i][v] += x * row[v];
    }
  }
  for (int i = 0; i < J; ++i)
    for (int v = 0; v < V; ++v) put(out[i], IX_F32, d + v * kLanes, a->head_dim - d - v * kLanes, acc[i][v]);
}

template <int J>
IMPLEX_INLINE void add_keys(const AttentionArgs* a, int64_t base, int32_t j, int32_t begin, int32_t end,
                            const float* weight, const float* rows, float* to, int64_t to_stride) {
  int32_t d = 0;
  for (; d + kLanes < a->head_dim; d += 2 * kLanes)
    add_tile<J, 2>(a, base, j, d, begin, end, weight, rows, to, to_stride);
  if (d < a->head_dim) add_tile<J, 1>(a, base, j, d, begin, end, weight, rows, to, to_stride);
}

// The same for the tokens of one block of keys.
void add_to_tokens(const AttentionArgs* a, int64_t base, int32_t count, int32_t begin, int32_t end, const float* weight,
                   const float* rows, float* to, int64_t to_stride) {
  for (int32_t j = 0; j < count; j += kSumRows)
    for_row_count<kSumRows>(
        count - j, [&](auto keys) __attribute__((always_inline)) {
          add_keys<keys.count>(a, base, j, begin, end, weight, rows, to, to_stride);
        });
}

}  // namespace

int64_t attention_backward_scratch(int32_t head_dim, int32_t group) {
  const int64_t wide = padded(head_dim);
  return wide * 3 * kKeyBlock + 2 * kQueryBlock * kKeyBlock +
         static_cast<int64_t>(group) * kQueryBlock * (3 * wide + 1);
}

void attention_backward(const AttentionBackwardArgs* b) {
  const AttentionArgs* a = &b->forward;
  const int32_t wide = padded(a->head_dim);
  const Layout l = layout(a->scratch, a->head_dim, a->group);
  for (int32_t g = 0; g < a->group; ++g) {
    const int64_t offset = a->q_offset + g * a->head_dim;
    for (int32_t r = 0; r < a->rows; ++r) {
      const int32_t slot = g * kQueryBlock + r;
      const void* query = offset_by(a->q, a->dtype, r * a->q_stride + offset);
      const void* grad = offset_by(b->grad, a->dtype, r * a->out_stride + offset);
      const void* out = offset_by(a->out, a->dtype, r * a->out_stride + offset);
      vf delta = vf{};
      for (int32_t d = 0; d < wide; d += kLanes) {
        const int64_t left = a->head_dim - d;
        const vf upstream = get(grad, a->dtype, d, left);
        store(l.query + slot * wide + d, get(query, a->dtype, d, left) * a->scale);
        store(l.grad + slot * wide + d, upstream);
        store(l.q_grad + slot * wide + d, vf{});
        delta += upstream * get(out, a->dtype, d, left);
      }
      l.delta[slot] = sum_lanes(delta);
    }
  }
  const int64_t last = a->positions[a->rows - 1];
  for (int64_t base = first_base(a); base <= last; base += kKeyBlock) {
    const int64_t present = last + 1 - base;
    const int32_t count = present < kKeyBlock ? static_cast<int32_t>(present) : kKeyBlock;
    const auto [begin, end] = rows_seeing(a, base);
    if (begin == end) continue;
    fill_block(a, a->k, base, count, l.keys, l.keys_transposed);
    fill_block(a, a->v, base, count, nullptr, l.values_transposed);
    const int32_t rows = end - begin;
    float* weights = l.weight + begin * kKeyBlock;
    float* dscores = l.dscore + begin * kKeyBlock;
    for (int32_t g = 0; g < a->group; ++g) {
      const float* query = l.query + g * kQueryBlock * wide;
      const float* grad = l.grad + g * kQueryBlock * wide;
      all_scores(rows, query + begin * wide, wide, a->head_dim, l.keys_transposed, weights);
      all_scores(rows, grad + begin * wide, wide, a->head_dim, l.values_transposed, dscores);
      for (int32_t r = begin; r < end; ++r) {
        float* weight = l.weight + r * kKeyBlock;
        float* dscore = l.dscore + r * kKeyBlock;
        const float lse = a->lse[r * a->lse_stride + a->head + g];
        const float delta = l.delta[g * kQueryBlock + r];
        for (int j = 0; j < kKeyVectors; ++j) {
          vf score = load(weight + j * kLanes);
          if (a->soft_cap > 0.0f) score = soft_cap(score, a->soft_cap);
          const vf p = exp(score - lse);
          vf ds = p * (load(dscore + j * kLanes) - delta);
          if (a->soft_cap > 0.0f) ds *= soft_cap_slope(score, a->soft_cap);
          store(weight + j * kLanes, p);
          store(dscore + j * kLanes, ds);
        }
        mask_unseen(a, r, base, 0.0f, weight);
        mask_unseen(a, r, base, 0.0f, dscore);
      }
      all_accumulate(rows, dscores, l.keys, wide, count, l.q_grad + (g * kQueryBlock + begin) * wide);
      add_to_tokens(a, base, count, begin, end, l.weight, grad, b->v_grad, b->kv_grad_stride);
      add_to_tokens(a, base, count, begin, end, l.dscore, query, b->k_grad, b->kv_grad_stride);
    }
  }
  for (int32_t g = 0; g < a->group; ++g) {
    const int64_t offset = a->q_offset + g * a->head_dim;
    for (int32_t r = 0; r < a->rows; ++r) {
      void* out = const_cast<void*>(offset_by(b->q_grad, a->dtype, r * a->q_stride + offset));
      const float* q_grad = l.q_grad + (g * kQueryBlock + r) * wide;
      for (int32_t d = 0; d < a->head_dim; d += kLanes)
        put(out, a->dtype, d, a->head_dim - d, load(q_grad + d) * a->scale);
    }
  }
}

}  // namespace implex::cpu::IMPLEX_KERNELS
