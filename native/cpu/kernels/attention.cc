// Attention of a few query rows over their parent and own segment with a running softmax: no [T, T] array.
//
// Keys come in blocks of kKeyBlock that are aligned to the position in the sequence, not to where a segment starts. A
// block may thus take its first keys from the parent and its last from the own segment, and a sequence gives the same
// bits however it is split in two. Within a block each score is one chain of multiply-adds over the head's dimensions,
// and each output element one chain over the keys.
#include "cpu/kernels/attention_tiles.h"
#include "cpu/kernels/entries.h"
#include "cpu/kernels/simd.h"

namespace implex::cpu::IMPLEX_KERNELS {
namespace {

constexpr float kMasked = -3.0e38f;

struct Layout {
  float* keys;    // [padded, kKeyBlock], transposed
  float* values;  // [kKeyBlock, padded]
  float* query;   // [rows, head_dim], scaled
  float* weight;  // [kQueryBlock, kKeyBlock]
  float* output;  // [group, kQueryBlock, padded]
  float* top;     // [group, kQueryBlock]
  float* total;   // [group, kQueryBlock]
};

IMPLEX_INLINE Layout layout(float* scratch, int32_t head_dim, int32_t group) {
  const int64_t wide = padded(head_dim);
  Layout l;
  l.keys = scratch;
  l.values = l.keys + wide * kKeyBlock;
  l.query = l.values + wide * kKeyBlock;
  l.weight = l.query + wide * kQueryBlock * group;
  l.output = l.weight + kQueryBlock * kKeyBlock;
  l.top = l.output + wide * kQueryBlock * group;
  l.total = l.top + kQueryBlock * group;
  return l;
}

}  // namespace

int64_t attention_scratch(int32_t head_dim, int32_t group) {
  const int64_t wide = padded(head_dim);
  return wide * kKeyBlock * 2 + kQueryBlock * kKeyBlock + static_cast<int64_t>(group) * kQueryBlock * (2 * wide + 2);
}

void attention(const AttentionArgs* a) {
  const int32_t wide = padded(a->head_dim);
  const Layout l = layout(a->scratch, a->head_dim, a->group);
  for (int32_t g = 0; g < a->group; ++g) {
    for (int32_t r = 0; r < a->rows; ++r) {
      const int32_t slot = g * kQueryBlock + r;
      const int64_t at = r * a->q_stride + a->q_offset + g * a->head_dim;
      for (int32_t d = 0; d < wide; d += kLanes) {
        store(l.query + slot * wide + d, get(offset_by(a->q, a->dtype, at), a->dtype, d, a->head_dim - d) * a->scale);
        store(l.output + slot * wide + d, vf{});
      }
      l.top[slot] = kMasked;
      l.total[slot] = 0.0f;
    }
  }
  const int64_t last = a->positions[a->rows - 1];
  for (int64_t base = first_base(a); base <= last; base += kKeyBlock) {
    const int64_t present = last + 1 - base;
    const int32_t count = present < kKeyBlock ? static_cast<int32_t>(present) : kKeyBlock;
    const auto [begin, end] = rows_seeing(a, base);
    if (begin == end) continue;  // rows far apart, with a window between
    fill_block(a, a->k, base, count, nullptr, l.keys);
    fill_block(a, a->v, base, count, l.values, nullptr);
    for (int32_t g = 0; g < a->group; ++g) {
      const int32_t slot = g * kQueryBlock + begin;
      const int32_t rows = end - begin;
      all_scores(rows, l.query + slot * wide, wide, a->head_dim, l.keys, l.weight);
      for (int32_t r = 0; r < rows; ++r) {
        float* weight = l.weight + r * kKeyBlock;
        if (a->soft_cap > 0.0f) {
          for (int j = 0; j < kKeyVectors; ++j)
            store(weight + j * kLanes, soft_cap(load(weight + j * kLanes), a->soft_cap));
        }
        mask_unseen(a, begin + r, base, kMasked, weight);
        vf top = splat(kMasked);
        for (int j = 0; j < kKeyVectors; ++j) top = max(top, load(weight + j * kLanes));
        const float block_top = max_lanes(top);
        const float old = l.top[slot + r];
        const float next = block_top > old ? block_top : old;
        vf total = vf{};
        for (int j = 0; j < kKeyVectors; ++j) {
          const vf p = exp(load(weight + j * kLanes) - next);
          store(weight + j * kLanes, p);
          total += p;
        }
        const vf rescale = exp(splat(old - next));
        l.total[slot + r] = l.total[slot + r] * rescale[0] + sum_lanes(total);
        l.top[slot + r] = next;
        float* output = l.output + (slot + r) * wide;
        for (int32_t d = 0; d < wide; d += kLanes) store(output + d, load(output + d) * rescale);
      }
      all_accumulate(rows, l.weight, l.values, wide, count, l.output + slot * wide);
    }
  }
  for (int32_t g = 0; g < a->group; ++g) {
    for (int32_t r = 0; r < a->rows; ++r) {
      const int32_t slot = g * kQueryBlock + r;
      const float scale = 1.0f / l.total[slot];
      const int64_t at = r * a->out_stride + a->q_offset + g * a->head_dim;
      if (a->lse) a->lse[r * a->lse_stride + a->head + g] = l.top[slot] + __builtin_logf(l.total[slot]);
      void* out = const_cast<void*>(offset_by(a->out, a->dtype, at));
      for (int32_t d = 0; d < a->head_dim; d += kLanes)
        put(out, a->dtype, d, a->head_dim - d, load(l.output + slot * wide + d) * scale);
    }
  }
}

}  // namespace implex::cpu::IMPLEX_KERNELS
