// The head's tiles on sm_90a, bf16: 128 rows by a chunk of the vocabulary, 256 columns at a time. One warpgroup copies
// (TMA into four stages of 64 deep), two multiply: 64 rows by 256 columns each with wgmma.m64n256k16, the f32 sums in
// registers, where the log-sum-exp or the gradients of the logits are made from them; no logit is ever stored.
//
// Clusters. Two blocks of a cluster take neighbouring tiles of rows and the same columns: each copies half of the
// weight tile and gives it to both (multicast), so the second-level cache is read for 128 + 128 rows instead of 128 +
// 256 a block. With a single tile of rows there is nothing to share, and clusters are of one. Bits are the same.
//
// Barriers, for each stage: `full` has one arrival, the block's own producer, which announces the stage's bytes: its
// hidden tile and both halves of the weight tile, of which the other block of the cluster sends one. Bytes that come
// before the announcement only make the count negative for a while: the phase cannot end without the arrival, and none
// can come for the next phase, since the other producer waits for its `empty`, to which this block's consumers arrive
// only after this phase. `empty` has an arrival from each of the 8 multiplying warps of each block of the cluster: a
// block's copy writes into all of them. A warp arrives when its products that read the stage have completed, which is
// after the wait that leaves one group (the next stage's) under way. Parities: layout.h, RingPosition.
//
// Order of memory: shared memory is written by the copy engine and read by wgmma, both in the async proxy, and the full
// barrier orders them; nothing is written by ordinary stores but the barriers, which the init fence and the cluster's
// barrier publish. At the end the cluster's barrier keeps a block's memory alive until the others have arrived at it.
//
// Work: (chunk, pair of row tiles), chunk by chunk, in turn over a fixed grid. All of a chunk's rows run together, so
// the weight streams from memory once. Floor: max(2 N D V / rate, V D 2 / bandwidth). What limits it: both warpgroups
// make exponentials at the end of a tile (1 / 16 a clock and quarter: some 5 % of the tile's products at D = 2048),
// which overlaps only as far as the two drift apart, at most the four stages.
#include <algorithm>
#include <type_traits>

#include "gpu/head.cuh"
#include "gpu/hopper.cuh"

namespace implex::cuda {

namespace {

struct Maps {
  CUtensorMap hidden, weight;
};

#if defined(IMPLEX_HOPPER_CODE)

struct Shared {
  unsigned char* stages;
  uint64_t* full;
  uint64_t* empty;
};

__device__ inline Shared shared_layout(unsigned char* memory) {
  // Aligned by hand; the same offset in every block, as multicast and remote arrivals need.
  const uint32_t past = shared_address(memory) % kSwizzleAtom;
  unsigned char* stages = memory + (past == 0 ? 0 : kSwizzleAtom - past);
  uint64_t* full = reinterpret_cast<uint64_t*>(stages + kHeadStages * kStageBytes);
  return {stages, full, full + kHeadStages};
}

// The thread that copies: the same walk over items, tiles and stages as the warps that multiply.
template <int kCluster>
__device__ inline void produce(const HeadTask& task, const Maps& maps, const Shared& s, int64_t items,
                               int64_t row_groups, uint32_t rank) {
  const int32_t steps = static_cast<int32_t>((task.depth + kHeadDepth - 1) / kHeadDepth);
  RingPosition at;
  for (int64_t item = blockIdx.x / kCluster; item < items; item += gridDim.x / kCluster) {
    const int64_t chunk = item / row_groups;
    const int32_t row = static_cast<int32_t>((item % row_groups * kCluster + rank) * kHeadRows);
    const int64_t chunk_end = (chunk + 1) * kVocabularyChunk;
    const int64_t end = chunk_end < task.columns ? chunk_end : task.columns;
    for (int64_t column = chunk * kVocabularyChunk; column < end; column += kHeadColumns) {
      for (int32_t step = 0; step < steps; ++step) {
        barrier_wait(&s.empty[at.stage], at.parity ^ 1);
        uint64_t* full = &s.full[at.stage];
        unsigned char* hidden = s.stages + at.stage * kStageBytes;
        unsigned char* weight = hidden + kHiddenBytes;
        barrier_arrive_expect(full, kStageBytes);
        copy_box(hidden, &maps.hidden, step * kHeadDepth, row, full);
        if constexpr (kCluster == 1) {
#pragma unroll
          for (int half = 0; half < 2; ++half)
            copy_box(weight + half * kBoxBytes, &maps.weight, step * kHeadDepth,
                     static_cast<int32_t>(column) + half * kHeadBox, full);
        } else {
          copy_box_to(weight + rank * kBoxBytes, &maps.weight, step * kHeadDepth,
                      static_cast<int32_t>(column) + static_cast<int32_t>(rank) * kHeadBox, full, 3);
        }
        at.next();
      }
    }
  }
}

// The sums of one tile. On return every stage that it used has been given back.
template <int kCluster>
__device__ inline void multiply_tile(float (&sum)[128], const Shared& s, int32_t steps, int warpgroup, int lane,
                                     RingPosition& at) {
  const auto give_back = [&](int stage) {
    if (lane < kCluster) barrier_arrive_at(&s.empty[stage], static_cast<uint32_t>(lane));
  };
  int before = 0;
  for (int32_t step = 0; step < steps; ++step) {
    barrier_wait(&s.full[at.stage], at.parity);
    const uint32_t stage = shared_address(s.stages) + static_cast<uint32_t>(at.stage) * kStageBytes;
    const uint64_t a = matrix_descriptor(stage + static_cast<uint32_t>(warpgroup) * (kHiddenBytes / 2));
    const uint64_t b = matrix_descriptor(stage + kHiddenBytes);
    products_fence();
#pragma unroll
    for (int k = 0; k < kHeadDepth / 16; ++k)
      multiply_warpgroup(sum, a + descriptor_step(k), b + descriptor_step(k), step != 0 || k != 0);
    products_commit();
    if (step > 0) {
      products_wait<1>();
      give_back(before);
    }
    before = at.stage;
    at.next();
  }
  products_wait<0>();
  hold(sum);
  give_back(before);
}

// Puts the cap on a tile's products, one half after the other: all at once the compiler interleaves so many that it
// spills registers, and a loop over the halves must move them, since a register has no index.
__device__ inline void cap_tile(const SoftCap& cap, float (&sum)[128]) {
#pragma unroll 1
  for (int half = 0; half < 2; ++half) {
    float done[64];
#pragma unroll
    for (int i = 0; i < 64; ++i) done[i] = logit_of<true>(cap, sum[i]);
#pragma unroll
    for (int i = 0; i < 64; ++i) {
      sum[i] = sum[64 + i];
      sum[64 + i] = done[i];
    }
  }
}

// Where a thread's values of a finished tile are.
struct TilePlace {
  int64_t row;     // the first of its two, 8 apart
  int64_t column;  // first of the tile
  int32_t left;    // columns of the tile that are of the chunk
  int32_t t;       // the thread has columns 8 j + 2 t and the next
};

// Its row R * 8 further down. The row is a constant, and so is every index into the sums: a variable one would move
// them to memory.
template <int R, bool kBackward, bool kCapped>
__device__ inline void finish_row(const HeadTask& task, float (&sum)[128], const TilePlace& at, RowSum& total) {
  constexpr int kPairs = kHeadColumns / 8;
  const int64_t row = at.row + R * 8;
  const bool present = row < task.rows;
  // Counted from this thread's first column: 8 j or 8 j + 1 where it has the target.
  const int64_t target = present ? static_cast<int64_t>(task.targets[row]) - task.first - at.column - 2 * at.t : -1;
  const int32_t left = at.left - 2 * at.t;
  if constexpr (kBackward) {
    if (!present) return;
    const float lse = task.lse[row], grad = task.grad[row];
    const int64_t first = at.column + 2 * at.t;
    Bf16* to = static_cast<Bf16*>(task.gradients) + row * task.gradient_stride + first;
    const int32_t room = static_cast<int32_t>(task.gradient_stride - first);
#pragma unroll
    for (int j = 0; j < kPairs; ++j) {
      float value[2];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const float below = sum[j * 4 + R * 2 + i] - lse;
        value[i] = j * 8 + i < left ? -grad * exp2_fast(below * kLog2e) : 0.0f;
        if constexpr (kCapped) value[i] *= logit_slope<kCapped>(task.cap, sum[j * 4 + R * 2 + i]);
      }
      if (j * 8 < room) *reinterpret_cast<uint32_t*>(to + j * 8) = pack_bf16(value[0], value[1]);
    }
    // The target's own is written over: p - 1 would cancel.
    if (target >= 0 && target < left && target % 8 < 2) {
      float logit = 0.0f;
#pragma unroll
      for (int j = 0; j < kPairs; ++j)
#pragma unroll
        for (int i = 0; i < 2; ++i)
          if (target == j * 8 + i) logit = sum[j * 4 + R * 2 + i];
      to[target] = from_float<Bf16>(product_gradient<kCapped>(task.cap, logit, lse, grad, true));
    }
  } else {
    if (target >= 0 && target < left && target % 8 < 2) {
      float logit = 0.0f;
#pragma unroll
      for (int j = 0; j < kPairs; ++j)
#pragma unroll
        for (int i = 0; i < 2; ++i)
          if (target == j * 8 + i) logit = sum[j * 4 + R * 2 + i];
      task.target_logits[row] = logit;
    }
    if (at.left < kHeadColumns) {
#pragma unroll
      for (int j = 0; j < kPairs; ++j)
#pragma unroll
        for (int i = 0; i < 2; ++i)
          if (j * 8 + i >= left) sum[j * 4 + R * 2 + i] = kNever;
    }
    fold_row<2 * kPairs, 4>(total, [&](int k) { return sum[k / 2 * 4 + R * 2 + k % 2]; });
  }
}

template <int kCluster, bool kBackward, bool kCapped>
__device__ inline void consume(const HeadTask& task, const Shared& s, int64_t items, int64_t row_groups, uint32_t rank,
                               int warpgroup) {
  const int32_t steps = static_cast<int32_t>((task.depth + kHeadDepth - 1) / kHeadDepth);
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int row_in_tile = accumulator_row(static_cast<int>(threadIdx.x) % 128, 0) + warpgroup * 64;
  const int t = lane % 4;
  RingPosition at;
  for (int64_t item = blockIdx.x / kCluster; item < items; item += gridDim.x / kCluster) {
    const int64_t chunk = item / row_groups;
    const int64_t row = (item % row_groups * kCluster + rank) * kHeadRows + row_in_tile;
    const int64_t chunk_end = (chunk + 1) * kVocabularyChunk;
    const int64_t end = chunk_end < task.columns ? chunk_end : task.columns;
    RowSum first = {kNever, 0.0f}, second = {kNever, 0.0f};
    for (int64_t column = chunk * kVocabularyChunk; column < end; column += kHeadColumns) {
      float sum[128];
      multiply_tile<kCluster>(sum, s, steps, warpgroup, lane, at);
      const TilePlace place = {row, column, static_cast<int32_t>(end - column), t};
      if constexpr (kCapped) cap_tile(task.cap, sum);
      finish_row<0, kBackward, kCapped>(task, sum, place, first);
      finish_row<1, kBackward, kCapped>(task, sum, place, second);
    }
    if constexpr (!kBackward) {
      first.total = row_total<4>(first.total);
      second.total = row_total<4>(second.total);
      float2* to = task.partials + chunk * task.rows + row;
      if (t == 0 && row < task.rows) to[0] = make_float2(first.top, first.total);
      if (t == 0 && row + 8 < task.rows) to[8] = make_float2(second.top, second.total);
    }
  }
}

#endif

template <int kCluster, bool kBackward, bool kCapped>
__global__ void __launch_bounds__(kHeadThreads, 1)
    head_warpgroups(const __grid_constant__ HeadTask task, const __grid_constant__ Maps maps) {
#if defined(IMPLEX_HOPPER_CODE)
  IMPLEX_SHARED_MEMORY(memory);
  const Shared s = shared_layout(memory);
  const uint32_t rank = kCluster == 1 ? 0 : cluster_rank();
  const int64_t row_groups = (task.rows + kCluster * kHeadRows - 1) / (kCluster * kHeadRows);
  const int64_t items = (task.columns + kVocabularyChunk - 1) / kVocabularyChunk * row_groups;
  if (threadIdx.x == 0) {
    prefetch_map(&maps.hidden);
    prefetch_map(&maps.weight);
    for (int i = 0; i < kHeadStages; ++i) {
      barrier_init(&s.full[i], 1);
      barrier_init(&s.empty[i], 8 * kCluster);
    }
    barrier_init_fence();
  }
  cluster_sync();  // a cluster of one is its block
  const int warpgroup = static_cast<int>(threadIdx.x) / 128;
  if (warpgroup == 0) {
    give_registers<kProducerRegisters>();
    if (threadIdx.x == 0) produce<kCluster>(task, maps, s, items, row_groups, rank);
  } else {
    take_registers<kConsumerRegisters>();
    consume<kCluster, kBackward, kCapped>(task, s, items, row_groups, rank, warpgroup - 1);
  }
  // The warp of the producer comes together again before the barrier, which its lanes reach as one.
  __syncwarp();
  cluster_sync();
#endif
}

// A matrix of bf16 [rows, cols] with boxes of kHeadBox rows of kHeadDepth.
int32_t make_map(const Call& call, const void* data, int64_t rows, int64_t cols, int64_t stride, CUtensorMap* map) {
#if defined(IMPLEX_EMULATED)
  (void)call;
  *map = {static_cast<const uint16_t*>(data), rows, cols, stride, kHeadBox};
  return IX_OK;
#else
  const auto encode = reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(call.device->encode_tensor_map);
  const cuuint64_t sizes[2] = {static_cast<cuuint64_t>(cols), static_cast<cuuint64_t>(rows)};
  const cuuint64_t strides[1] = {static_cast<cuuint64_t>(stride) * 2};  // bytes, of all dimensions but the first
  const cuuint32_t box[2] = {kHeadDepth, kHeadBox};
  const cuuint32_t steps[2] = {1, 1};
  const CUresult result = encode(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, const_cast<void*>(data), sizes, strides, box,
                                 steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                 CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result == CUDA_SUCCESS) return IX_OK;
  return call.fail(IX_INTERNAL, "cuTensorMapEncodeTiled of [%lld, %lld] with rows of %lld: error %d",
                   static_cast<long long>(rows), static_cast<long long>(cols), static_cast<long long>(stride),
                   static_cast<int>(result));
#endif
}
static_assert(kHeadBox == kHeadRows, "one map's box serves hidden rows and half of a weight tile");

template <int kCluster, bool kBackward, bool kCapped>
int32_t launch(const Call& call, const HeadTask& task) {
  Maps maps;
  int32_t code = make_map(call, task.hidden, task.rows, task.depth, task.hidden_stride, &maps.hidden);
  if (code == IX_OK) code = make_map(call, task.weight, task.columns, task.depth, task.depth, &maps.weight);
  if (code != IX_OK) return code;
  const int64_t row_groups = (task.rows + kCluster * kHeadRows - 1) / (kCluster * kHeadRows);
  const int64_t items = vocabulary_chunks(task.columns) * row_groups;
  const int64_t clusters = std::min<int64_t>(items, std::max(1, call.device->processors / kCluster));
  return call.launch_clusters(head_warpgroups<kCluster, kBackward, kCapped>, kCluster,
                              dim3(static_cast<unsigned>(clusters * kCluster)), kHeadThreads, kHeadSharedBytes, task,
                              maps);
}

}  // namespace

bool hopper_serves(const ix_device* device, int32_t dtype, const HeadTask& task) {
  return device->hopper && mma_serves(dtype, task) && task.depth <= INT32_MAX && task.columns <= INT32_MAX - 1024;
}

int32_t head_hopper(const Call& call, const HeadTask& task, bool backward) {
  const bool capped = task.cap.cap > 0;
  const auto with = [&](auto cluster) {
    constexpr int kCluster = decltype(cluster)::value;
    if (backward) return capped ? launch<kCluster, true, true>(call, task) : launch<kCluster, true, false>(call, task);
    return capped ? launch<kCluster, false, true>(call, task) : launch<kCluster, false, false>(call, task);
  };
  return task.rows > kHeadRows ? with(std::integral_constant<int, 2>()) : with(std::integral_constant<int, 1>());
}

}  // namespace implex::cuda
