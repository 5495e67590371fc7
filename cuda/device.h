// The CUDA device's own types behind backend.h's opaque handles, and what its operations share: a call's context, which
// launches kernels and turns every CUDA error into a status, scratch memory, uploads.
#pragma once

#include <memory>
#include <set>
#include <vector>

#include "backend.h"
#include "core/entry_type.h"
#include "gpu/platform.cuh"
#include "gpu/values.cuh"
#include "host/attention_schedule.h"
#include "host/graph_slots.h"
#include "host/messages.h"
#include "host/settings.h"

namespace implex::cuda {

class Products;  // cublaslt.h

// Scratch memory of one device, reused by the next operation: the stream keeps them apart.
class Workspace {
 public:
  enum Slot { kStaging, kPartials, kStatistics, kLogits, kGradients, kSchedule, kDelta, kProduct, kLibrary, kSlots };
  void* data[kSlots] = {};
  size_t bytes[kSlots] = {};
};

// Pinned host memory that copies go through, so that a caller's buffer is free again when `upload` returns. A slot is
// used again when the copy out of it is done.
struct Ring {
  static constexpr int kSlots = 32;
  static constexpr size_t kBytes = size_t{1} << 20;  // of a slot
  char* memory = nullptr;
  cudaEvent_t done[kSlots] = {};
  int next = 0;
};

// Operations that are kept back and launched together: graph.cu.
struct Recorder {
  enum State {
    kNone,
    kCapturing,  // the stream is captured: operations are kept back
    kAtOnce,     // the recording goes on, its operations are done as they come
    kFailed      // the same, but what was kept back before could not be launched
  };
  State state = kNone;
  GraphSlots slots;
  cudaGraphExec_t graphs[GraphSlots::kSlots] = {};
  std::set<const void*> launched;  // kernels
};

}  // namespace implex::cuda

struct ix_device {
  implex::cuda::Settings settings;
  int ordinal = 0;
  int processors = 1;              // streaming multiprocessors
  size_t block_memory = 48 << 10;  // shared memory that a block may have
  bool hopper = false;             // the sm_90a kernels run
  bool lost = false;               // an error after which the CUDA context of the process is of no use
  char card[256] = "";
  cudaStream_t stream = nullptr;
  cudaMemPool_t pool = nullptr;  // none where the driver has no pools: memory is allocated plainly
  size_t memory = SIZE_MAX;      // bytes of the card
  implex::cuda::Workspace workspace;
  implex::cuda::Ring ring;
  implex::cuda::Recorder recorder;
  std::unique_ptr<implex::cuda::Products> products;  // none with own_products
  void* encode_tensor_map = nullptr;                 // the driver's cuTensorMapEncodeTiled, for the sm_90a kernels
  ix_device();
  ~ix_device();
};

struct ix_weight {
  int32_t dtype;
  int64_t rows, cols;  // row-major, without gaps
  void* data;
  bool trainable;  // only to refuse what the CPU's layout cannot do
};

struct ix_batch {
  int32_t tokens = 0;
  std::vector<ix_segment> segments;
  std::vector<implex::cuda::QueryBlock> blocks;  // of all tokens, in order
  std::vector<implex::cuda::KeyTile> tiles;
  void* memory = nullptr;                                    // what follows, one allocation on the device
  const int32_t* segment_of = nullptr;                       // [T]
  const int32_t* positions = nullptr;                        // [T], in the token's own sequence
  const implex::cuda::Span* spans = nullptr;                 // [segments]
  const implex::cuda::QueryBlock* query_blocks = nullptr;    // longest first
  const int32_t* query_block_count = nullptr;                // one number
  const implex::cuda::QueryBlock* ordered_blocks = nullptr;  // in order of rows
  const implex::cuda::KeyTile* key_tiles = nullptr;
};

namespace implex::cuda {

// One call of one operation.
class Call {
 public:
  Call(ix_device* device, ix_status* status, const char* name, int64_t rows = -1, int64_t cols = -1,
       int64_t depth = -1);

  ix_device* const device;
  // IX_OK when the device can be used; otherwise the status is filled.
  int32_t begin();
  int32_t fail(int32_t code, const char* format, ...) const __attribute__((format(printf, 3, 4)));
  int32_t check(cudaError_t error) const;
  int32_t out_of_memory(size_t asked, const char* advice) const;

  int32_t alloc(size_t bytes, void** memory, const char* advice = "") const;
  void release(void* memory) const;
  // At least `bytes` of scratch, aligned to 256. What the slot held is lost when it grows.
  template <typename T>
  int32_t scratch(Workspace::Slot slot, size_t bytes, T** memory) const {
    void* data = nullptr;
    const int32_t code = take(slot, bytes, &data);
    *memory = static_cast<T*>(data);
    return code;
  }
  int32_t upload(void* to, const void* from_host, size_t bytes) const;
  // Before what a captured stream cannot do: what was kept back is launched, and the rest of the recording is done as
  // it comes.
  int32_t at_once() const;

  // kernel<<<grid, block, shared>>>(arguments...). A grid without blocks is no launch.
  template <typename... Parameters, typename... Arguments>
  int32_t launch(void (*kernel)(Parameters...), dim3 grid, int block, size_t shared, Arguments... arguments) const {
    return launch_clusters(kernel, 1, grid, block, shared, arguments...);
  }
  // The same with `cluster` neighbouring blocks of a row of the grid on one cluster.
  template <typename... Parameters, typename... Arguments>
  int32_t launch_clusters(void (*kernel)(Parameters...), int cluster, dim3 grid, int block, size_t shared,
                          Arguments... arguments) const {
    if (grid.x == 0 || grid.y == 0 || grid.z == 0) return IX_OK;
    int32_t code = note_launch(reinterpret_cast<const void*>(kernel));
    if (code != IX_OK) return code;
#if defined(IMPLEX_EMULATED)
    emulated::submit([=] {
      emulated::run(grid, dim3(static_cast<unsigned>(block)), cluster, shared, [&] { kernel(arguments...); });
    });
    return IX_OK;
#else
    if (shared > size_t{48} << 10) {
      code = check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                        cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared)));
      if (code != IX_OK) return code;
    }
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = dim3(static_cast<unsigned>(block));
    config.dynamicSmemBytes = shared;
    config.stream = device->stream;
    cudaLaunchAttribute attribute = {};
    if (cluster > 1) {
      attribute.id = cudaLaunchAttributeClusterDimension;
      attribute.val.clusterDim.x = static_cast<unsigned>(cluster);
      attribute.val.clusterDim.y = 1;
      attribute.val.clusterDim.z = 1;
      config.attrs = &attribute;
      config.numAttrs = 1;
    }
    return check(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...));
#endif
  }

 private:
  int32_t take(Workspace::Slot slot, size_t bytes, void** memory) const;
  int32_t note_launch(const void* kernel) const;

  ix_status* status_;
  const char* name_;
  int64_t rows_, cols_, depth_;
};

inline size_t element_size(int32_t dtype) { return dtype == IX_BF16 ? 2 : 4; }
inline bool is_float(int32_t dtype) { return dtype == IX_F32 || dtype == IX_BF16; }
inline unsigned blocks_of(int64_t count, int64_t each) { return static_cast<unsigned>((count + each - 1) / each); }

// A product of matrices by strides, whichever way round they lie: out[i, j] = sum over k of a[i, k] b[j, k], plus
// bias[j], plus residual[i, j].
struct ProductTask {
  int64_t rows, cols, depth;
  const void* a;
  int64_t a_row, a_depth;  // elements between neighbours
  const void* b;
  int64_t b_col, b_depth;
  int32_t dtype;      // of a and b
  const float* bias;  // [cols] or null
  const float* residual;
  int64_t residual_stride;
  void* out;
  int32_t out_dtype;
  int64_t out_stride;
};
// By cuBLASLt where it can, else by the plain kernel: which, is decided by everything but `rows`, or for the gradient
// of a weight (`rows_fixed`) by everything but `depth`.
int32_t product(const Call& call, const ProductTask& task, bool rows_fixed);
int32_t plain_product(const Call& call, const ProductTask& task);

// out[c] += sum over rows of in[., c], by blocks of kSumRows rows whose sums are added in order, then blocks of those.
constexpr int kSumRows = 64;
// The sums of `in` f32 [rows, cols], which is overwritten.
int32_t add_column_sums(const Call& call, float* in, int64_t rows, int64_t cols, float* out);
// The same for a matrix of either dtype; uses the slot kPartials.
int32_t add_column_sums_of(const Call& call, const ix_mat* in, float* out);

// The operations; backend.h has their signatures.
EntryType<&ix_backend::alloc> alloc;
EntryType<&ix_backend::release> release;
EntryType<&ix_backend::upload> upload;
EntryType<&ix_backend::download> download;
EntryType<&ix_backend::synchronize> synchronize;
EntryType<&ix_backend::weight_create> weight_create;
EntryType<&ix_backend::weight_write> weight_write;
EntryType<&ix_backend::weight_refresh> weight_refresh;
EntryType<&ix_backend::weight_destroy> weight_destroy;
EntryType<&ix_backend::weight_bytes> weight_bytes;
EntryType<&ix_backend::batch_create> batch_create;
EntryType<&ix_backend::batch_destroy> batch_destroy;
EntryType<&ix_backend::record_begin> record_begin;
EntryType<&ix_backend::record_end> record_end;
EntryType<&ix_backend::embedding> embedding;
EntryType<&ix_backend::gather_rows> gather_rows;
EntryType<&ix_backend::norm> norm;
EntryType<&ix_backend::gemm> gemm;
EntryType<&ix_backend::rope> rope;
EntryType<&ix_backend::attention> attention;
EntryType<&ix_backend::glu> glu;
EntryType<&ix_backend::linear_logprob> linear_logprob;
EntryType<&ix_backend::linear_reward> linear_reward;
EntryType<&ix_backend::scaled_add> scaled_add;
EntryType<&ix_backend::top_experts> top_experts;
EntryType<&ix_backend::combine_experts> combine_experts;
EntryType<&ix_backend::gemm_backward_input> gemm_backward_input;
EntryType<&ix_backend::gemm_backward_weight> gemm_backward_weight;
EntryType<&ix_backend::norm_backward> norm_backward;
EntryType<&ix_backend::glu_backward> glu_backward;
EntryType<&ix_backend::attention_backward> attention_backward;
EntryType<&ix_backend::embedding_backward> embedding_backward;
EntryType<&ix_backend::scatter_rows> scatter_rows;
EntryType<&ix_backend::linear_logprob_backward> linear_logprob_backward;
EntryType<&ix_backend::linear_reward_backward> linear_reward_backward;
EntryType<&ix_backend::top_experts_backward> top_experts_backward;
EntryType<&ix_backend::combine_experts_backward> combine_experts_backward;
EntryType<&ix_backend::cast> cast;
EntryType<&ix_backend::fill_zero> fill_zero;
EntryType<&ix_backend::optimizer_step> optimizer_step;
EntryType<&ix_backend::sum_of_squares> sum_of_squares;
// call.cu
cudaError_t free_memory(const ix_device* device, void* memory);
// graph.cu
void destroy_graphs(ix_device*);

}  // namespace implex::cuda
