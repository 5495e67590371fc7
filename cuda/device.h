// The CUDA device's own types behind backend.h's opaque handles, and what its operations share: a call's context, which
// launches kernels and turns every CUDA error into a status, scratch memory, uploads.
#pragma once

#include <memory>
#include <set>
#include <vector>

#include "backend.h"
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
  cudaMemPool_t pool = nullptr;
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

// The operations, one file each.
int32_t embedding(ix_device*, const ix_weight*, const int32_t*, const ix_mat*, ix_status*);
int32_t gather_rows(ix_device*, const ix_mat*, const int32_t*, const ix_mat*, ix_status*);
int32_t norm(ix_device*, const ix_norm*, const ix_mat*, const ix_mat*, ix_status*);
int32_t gemm(ix_device*, const ix_mat*, const ix_weight*, const ix_epilogue*, const ix_mat*, ix_status*);
int32_t rope(ix_device*, const ix_batch*, const ix_rope*, const int32_t*, const ix_mat*, ix_status*);
int32_t attention(ix_device*, const ix_batch*, const ix_attention*, const ix_mat*, const int32_t*, const ix_mat*,
                  const ix_mat*, const ix_mat*, float*, ix_status*);
int32_t glu(ix_device*, int32_t, const ix_mat*, const ix_mat*, const ix_mat*, ix_status*);
int32_t linear_logprob(ix_device*, const ix_mat*, const ix_weight*, const int32_t*, float*, float*, ix_status*);
int32_t linear_reward(ix_device*, const ix_norm*, const ix_mat*, const float*, const int32_t*, const int32_t*, int32_t,
                      float*, ix_status*);
int32_t gemm_backward_input(ix_device*, const ix_mat*, const ix_weight*, const ix_mat*, const ix_mat*, ix_status*);
int32_t gemm_backward_weight(ix_device*, const ix_mat*, const ix_mat*, float*, float*, ix_status*);
int32_t norm_backward(ix_device*, const ix_norm*, const ix_mat*, const ix_mat*, const ix_mat*, int32_t, float*, float*,
                      ix_status*);
int32_t glu_backward(ix_device*, int32_t, const ix_mat*, const ix_mat*, const ix_mat*, const ix_mat*, const ix_mat*,
                     ix_status*);
int32_t attention_backward(ix_device*, const ix_batch*, const ix_attention*, const ix_mat*, const int32_t*,
                           const ix_mat*, const ix_mat*, const ix_mat*, const float*, const ix_mat*, const ix_mat*,
                           const ix_mat*, const ix_mat*, ix_status*);
int32_t embedding_backward(ix_device*, const int32_t*, const ix_mat*, float*, int64_t, ix_status*);
int32_t scatter_rows(ix_device*, const ix_mat*, const int32_t*, const ix_mat*, int32_t, ix_status*);
int32_t linear_logprob_backward(ix_device*, const ix_mat*, const ix_weight*, const int32_t*, const float*, const float*,
                                const ix_mat*, float*, ix_status*);
int32_t linear_reward_backward(ix_device*, const ix_norm*, const ix_mat*, const float*, const float*, const ix_mat*,
                               float*, float*, float*, ix_status*);
int32_t cast(ix_device*, const ix_mat*, const ix_mat*, ix_status*);
int32_t optimizer_step(ix_device*, const ix_optimizer*, int64_t, float*, const float*, float*, float*, ix_status*);
int32_t sum_of_squares(ix_device*, const float*, int64_t, double*, ix_status*);

// memory.cu
int32_t alloc(ix_device*, size_t, void**, ix_status*);
void release(ix_device*, void*);
int32_t upload(ix_device*, void*, const void*, size_t, ix_status*);
int32_t download(ix_device*, void*, const void*, size_t, ix_status*);
int32_t synchronize(ix_device*, ix_status*);
int32_t fill_zero(ix_device*, void*, size_t, ix_status*);
// weight.cu
int32_t weight_create(ix_device*, int32_t, int64_t, int64_t, int32_t, ix_weight**, ix_status*);
int32_t weight_write(ix_device*, ix_weight*, int64_t, int64_t, const float*, ix_status*);
int32_t weight_refresh(ix_device*, ix_weight*, const float*, ix_status*);
void weight_destroy(ix_device*, ix_weight*);
size_t weight_bytes(const ix_weight*);
// batch.cu
int32_t batch_create(ix_device*, const ix_segment*, int32_t, ix_batch**, ix_status*);
void batch_destroy(ix_device*, ix_batch*);
// graph.cu
int32_t record_begin(ix_device*, ix_status*);
int32_t record_end(ix_device*, int32_t, ix_status*);
void destroy_graphs(ix_device*);

}  // namespace implex::cuda
