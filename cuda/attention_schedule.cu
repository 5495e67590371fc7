// Attention's pieces of work for rows that only the device knows (the last layer's, read-outs' rows): cuts them into
// blocks as host/attention_schedule.h does, without asking the host. Also the check of shapes.
//
// One block of threads walks over the rows; a few microseconds, once a pass.
#include "gpu/attention_tile.cuh"

namespace implex::cuda {

namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;

// Inclusive scans over the block, each with a carry from the chunk before.
__device__ inline int32_t scan_max(int32_t x, int32_t* scratch) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
#pragma unroll
  for (int step = 1; step < kWarp; step *= 2) {
    const int32_t other = __shfl_up_sync(kAllLanes, x, step);
    if (lane >= step && other > x) x = other;
  }
  __syncthreads();
  if (lane == kWarp - 1) scratch[warp] = x;
  __syncthreads();
#pragma unroll
  for (int w = 0; w < kWarps; ++w)
    if (w < warp && scratch[w] > x) x = scratch[w];
  return x;
}

__device__ inline int32_t scan_sum(int32_t x, int32_t* scratch, int32_t* total) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
#pragma unroll
  for (int step = 1; step < kWarp; step *= 2) {
    const int32_t other = __shfl_up_sync(kAllLanes, x, step);
    if (lane >= step) x += other;
  }
  __syncthreads();
  if (lane == kWarp - 1) scratch[warp] = x;
  __syncthreads();
  *total = 0;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) {
    if (w < warp) x += scratch[w];
    *total += scratch[w];
  }
  return x;
}

// A run is rows of one segment with ascending positions; a block begins with a run and every kQueryRows rows of it.
__global__ void __launch_bounds__(kThreads)
    cut_rows(const int32_t* rows, int32_t count, const int32_t* segment_of, const int32_t* positions,
             QueryBlock* blocks, int32_t* block_count) {
  __shared__ int32_t scratch[kWarps];
  __shared__ int32_t last_start;
  const int32_t thread = static_cast<int32_t>(threadIdx.x);
  int32_t carried_start = 0, carried_blocks = 0;
  for (int32_t base = 0; base < count; base += kThreads) {
    const int32_t i = base + thread;
    int32_t start = -1;
    if (i < count) {
      const int32_t token = rows[i];
      const int32_t before = i > 0 ? rows[i - 1] : 0;
      if (i == 0 || segment_of[before] != segment_of[token] || positions[before] >= positions[token]) start = i;
    }
    start = scan_max(start, scratch);
    if (start < 0) start = carried_start;
    const bool begins = i < count && (i - start) % kQueryRows == 0;
    int32_t total;
    const int32_t before = carried_blocks + scan_sum(begins ? 1 : 0, scratch, &total) - 1;
    if (begins) blocks[before] = {i, 0, segment_of[rows[i]], positions[rows[i]], 0};
    carried_blocks += total;
    if (thread == kThreads - 1) last_start = start;
    __syncthreads();
    carried_start = last_start;
    __syncthreads();
  }
  for (int32_t b = thread; b < carried_blocks; b += kThreads) {
    const int32_t end = b + 1 < carried_blocks ? blocks[b + 1].row : count;
    blocks[b].rows = end - blocks[b].row;
    blocks[b].last = positions[rows[end - 1]];
  }
  if (thread == 0) *block_count = carried_blocks;
}

}  // namespace

int32_t prepare_attention(const Call& call, const ix_batch* batch, const ix_attention* attention, const ix_mat* q,
                          const int32_t* rows, const ix_mat* k, const ix_mat* v, const ix_mat* out, bool in_order,
                          AttentionShape* shape, int64_t* most_blocks) {
  if (attention->kv_heads <= 0 || attention->heads <= 0 || attention->head_dim <= 0 ||
      attention->heads % attention->kv_heads != 0 ||
      q->cols != static_cast<int64_t>(attention->heads) * attention->head_dim ||
      k->cols != static_cast<int64_t>(attention->kv_heads) * attention->head_dim || k->rows != batch->tokens ||
      v->rows != batch->tokens || v->cols != k->cols || k->stride != v->stride || !is_float(q->dtype) ||
      q->dtype != k->dtype || q->dtype != v->dtype || q->dtype != out->dtype || out->rows != q->rows ||
      out->cols != q->cols || (rows == nullptr && q->rows != batch->tokens))
    return call.fail(IX_INVALID, "shapes or dtypes disagree");
  if (attention->window < 0 || !is_soft_cap(attention->soft_cap))
    return call.fail(IX_INVALID, "a window of %d or a soft cap of %g", attention->window,
                     static_cast<double>(attention->soft_cap));
  *shape = {attention->heads,
            attention->heads / attention->kv_heads,
            attention->head_dim,
            attention->scale,
            window_of(*attention),
            soft_cap_of(attention->soft_cap),
            batch->positions,
            rows,
            batch->spans,
            in_order ? batch->ordered_blocks : batch->query_blocks,
            batch->query_block_count};
  *most_blocks = static_cast<int64_t>(batch->blocks.size());
  if (rows == nullptr || q->rows == 0) return IX_OK;
  // At worst every row is a block of its own.
  *most_blocks = q->rows;
  char* memory = nullptr;
  const int32_t code =
      call.scratch(Workspace::kSchedule, 256 + static_cast<size_t>(q->rows) * sizeof(QueryBlock), &memory);
  if (code != IX_OK) return code;
  int32_t* count = reinterpret_cast<int32_t*>(memory);
  QueryBlock* blocks = reinterpret_cast<QueryBlock*>(memory + 256);
  shape->blocks = blocks;
  shape->block_count = count;
  return call.launch(cut_rows, 1, kThreads, 0, rows, static_cast<int32_t>(q->rows), batch->segment_of, batch->positions,
                     blocks, count);
}

}  // namespace implex::cuda
