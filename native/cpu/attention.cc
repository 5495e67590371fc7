// Ragged attention: cuts the query rows into blocks of one segment each and gives (block, key/value head) pairs to the
// pool.
#include <algorithm>
#include <atomic>
#include <new>
#include <vector>

#include "cpu/device.h"

namespace implex::cpu {

namespace {

struct Block {
  int64_t row;
  int32_t rows;
  int32_t segment;
};

struct Schedule {
  std::vector<Block> blocks;
  std::vector<int32_t> positions;  // of each query row
  double keys = 0;                 // visible keys of all rows
};

bool shapes_agree(const ix_batch* batch, const ix_attention* shape, const ix_mat* q, const int32_t* rows,
                  const ix_mat* k, const ix_mat* v, const ix_mat* out) {
  const int64_t tokens = static_cast<int64_t>(batch->positions.size());
  return shape->window >= 0 && shape->soft_cap >= 0.0f && shape->kv_heads > 0 && shape->heads % shape->kv_heads == 0 &&
         q->cols == static_cast<int64_t>(shape->heads) * shape->head_dim &&
         k->cols == static_cast<int64_t>(shape->kv_heads) * shape->head_dim && k->rows == tokens && v->rows == tokens &&
         v->cols == k->cols && k->stride == v->stride && q->dtype == k->dtype && q->dtype == v->dtype &&
         q->dtype == out->dtype && out->rows == q->rows && out->cols == q->cols &&
         (rows != nullptr || q->rows == tokens);
}

// Cuts the query rows into blocks of one segment and ascending positions. Throws std::bad_alloc.
Schedule schedule_of(const ix_batch* batch, int32_t window, const int32_t* rows, int64_t count) {
  Schedule s;
  s.positions.resize(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) {
    const size_t token = static_cast<size_t>(rows ? rows[i] : i);
    const int32_t segment = batch->segment_of[token];
    const int32_t position = batch->positions[token];
    s.positions[static_cast<size_t>(i)] = position;
    s.keys += window > 0 ? std::min(window, position + 1) : position + 1;
    if (!s.blocks.empty()) {
      Block& last = s.blocks.back();
      if (last.segment == segment && last.rows < kQueryBlock && s.positions[static_cast<size_t>(i - 1)] < position) {
        ++last.rows;
        continue;
      }
    }
    s.blocks.push_back({i, 1, segment});
  }
  return s;
}

AttentionArgs arguments_of(const ix_batch* batch, const ix_attention* shape, const Schedule& schedule,
                           const Block& block, int32_t kv_head, const ix_mat* q, const ix_mat* k, const ix_mat* v,
                           const ix_mat* out, float* lse, float* scratch) {
  const ix_segment& own = batch->segments[static_cast<size_t>(block.segment)];
  const ix_segment parent = own.parent < 0 ? ix_segment{0, 0, -1} : batch->segments[static_cast<size_t>(own.parent)];
  AttentionArgs a = {};
  a.q = row_of(q, block.row);
  a.q_stride = q->stride;
  a.dtype = q->dtype;
  a.positions = &schedule.positions[static_cast<size_t>(block.row)];
  a.rows = block.rows;
  a.k = k->data;
  a.v = v->data;
  a.kv_stride = k->stride;
  a.parent_start = parent.start;
  a.parent_length = parent.length;
  a.own_start = own.start;
  a.head_dim = shape->head_dim;
  a.group = shape->heads / shape->kv_heads;
  a.q_offset = kv_head * a.group * shape->head_dim;
  a.kv_offset = kv_head * shape->head_dim;
  a.scale = shape->scale;
  a.window = shape->window;
  a.soft_cap = shape->soft_cap;
  a.out = mutable_row_of(out, block.row);
  a.out_stride = out->stride;
  a.lse = lse ? lse + block.row * shape->heads : nullptr;
  a.lse_stride = shape->heads;
  a.head = kv_head * a.group;
  a.scratch = scratch;
  return a;
}

}  // namespace

int32_t attention(ix_device* device, const ix_batch* batch, const ix_attention* shape, const ix_mat* q,
                  const int32_t* rows, const ix_mat* k, const ix_mat* v, const ix_mat* out, float* lse,
                  ix_status* status) {
  if (!shapes_agree(batch, shape, q, rows, k, v, out))
    return fail(status, IX_INVALID, "attention: shapes or dtypes disagree");
  Schedule schedule;
  try {
    schedule = schedule_of(batch, shape->window, rows, q->rows);
  } catch (const std::bad_alloc&) {
    return fail(status, IX_OUT_OF_MEMORY, "attention: out of memory scheduling %lld rows",
                static_cast<long long>(q->rows));
  }
  const size_t scratch_size =
      static_cast<size_t>(device->kernels->attention_scratch(shape->head_dim, shape->heads / shape->kv_heads));
  std::atomic<bool> no_memory{false};
  const double cost = schedule.keys * shape->heads * shape->head_dim / 4;
  for_each_task(static_cast<int64_t>(schedule.blocks.size()) * shape->kv_heads, cost, [&](int64_t task) {
    float* scratch = thread_scratch(scratch_size);
    if (scratch == nullptr) {
      no_memory.store(true, std::memory_order_relaxed);
      return;
    }
    const Block& block = schedule.blocks[static_cast<size_t>(task / shape->kv_heads)];
    const AttentionArgs a = arguments_of(batch, shape, schedule, block, static_cast<int32_t>(task % shape->kv_heads), q,
                                         k, v, out, lse, scratch);
    device->kernels->attention(&a);
  });
  if (no_memory.load()) return fail(status, IX_OUT_OF_MEMORY, "attention: out of memory for a block");
  return IX_OK;
}

// One task owns one key/value head of one tree of segments (a prompt and its responses), so its sums over queries have
// a fixed order.
int32_t attention_backward(ix_device* device, const ix_batch* batch, const ix_attention* shape, const ix_mat* q,
                           const int32_t* rows, const ix_mat* k, const ix_mat* v, const ix_mat* out, const float* lse,
                           const ix_mat* grad, const ix_mat* q_grad, const ix_mat* k_grad, const ix_mat* v_grad,
                           ix_status* status) {
  if (!shapes_agree(batch, shape, q, rows, k, v, out) || grad->dtype != out->dtype || grad->rows != out->rows ||
      grad->cols != out->cols || grad->stride != out->stride || q_grad->dtype != q->dtype || q_grad->rows != q->rows ||
      q_grad->stride != q->stride || k_grad->rows != k->rows || v_grad->rows != v->rows || k_grad->cols != k->cols ||
      v_grad->cols != v->cols)
    return fail(status, IX_INVALID, "attention_backward: shapes or dtypes disagree");
  Schedule schedule;
  std::vector<std::vector<int32_t>> trees;  // indices of blocks, by root segment
  std::vector<float> k_sum, v_sum;
  try {
    schedule = schedule_of(batch, shape->window, rows, q->rows);
    trees.resize(batch->segments.size());
    for (size_t i = 0; i < schedule.blocks.size(); ++i) {
      const int32_t segment = schedule.blocks[i].segment;
      const int32_t parent = batch->segments[static_cast<size_t>(segment)].parent;
      trees[static_cast<size_t>(parent < 0 ? segment : parent)].push_back(static_cast<int32_t>(i));
    }
    std::erase_if(trees, [](const auto& tree) { return tree.empty(); });
    k_sum.assign(static_cast<size_t>(k->rows * k->cols), 0.0f);
    v_sum.assign(k_sum.size(), 0.0f);
  } catch (const std::bad_alloc&) {
    return fail(status, IX_OUT_OF_MEMORY, "attention_backward: out of memory for %lld tokens",
                static_cast<long long>(k->rows));
  }
  const size_t scratch_size =
      static_cast<size_t>(device->kernels->attention_backward_scratch(shape->head_dim, shape->heads / shape->kv_heads));
  std::atomic<bool> no_memory{false};
  const double cost = schedule.keys * shape->heads * shape->head_dim;
  for_each_task(static_cast<int64_t>(trees.size()) * shape->kv_heads, cost, [&](int64_t task) {
    float* scratch = thread_scratch(scratch_size);
    if (scratch == nullptr) {
      no_memory.store(true, std::memory_order_relaxed);
      return;
    }
    for (const int32_t index : trees[static_cast<size_t>(task / shape->kv_heads)]) {
      const Block& block = schedule.blocks[static_cast<size_t>(index)];
      AttentionBackwardArgs b = {};
      b.forward = arguments_of(batch, shape, schedule, block, static_cast<int32_t>(task % shape->kv_heads), q, k, v,
                               out, const_cast<float*>(lse), scratch);
      b.grad = row_of(grad, block.row);
      b.q_grad = mutable_row_of(q_grad, block.row);
      b.k_grad = k_sum.data();
      b.v_grad = v_sum.data();
      b.kv_grad_stride = k->cols;
      device->kernels->attention_backward(&b);
    }
  });
  if (no_memory.load()) return fail(status, IX_OUT_OF_MEMORY, "attention_backward: out of memory for a block");
  for_each_row(k->rows, static_cast<double>(k->cols), [&](int64_t row) {
    device->kernels->convert_row(&k_sum[static_cast<size_t>(row * k->cols)], IX_F32, k->cols,
                                 mutable_row_of(k_grad, row), k_grad->dtype);
    device->kernels->convert_row(&v_sum[static_cast<size_t>(row * v->cols)], IX_F32, v->cols,
                                 mutable_row_of(v_grad, row), v_grad->dtype);
  });
  return IX_OK;
}

}  // namespace implex::cpu
