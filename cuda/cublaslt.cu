// cuBLASLt, loaded at run time: the module has no link dependency on it, and a machine without it gets a reason.
//
// An algorithm is asked for once per ProductKey, at kTypicalRows rows, without split-K or any reduction across blocks,
// must also be able at kOtherRows, and then serves every number of rows. So a row of a product is always made by the
// same tiles in the same order over the depth. f32 products use CUBLAS_COMPUTE_32F_PEDANTIC: no TF32.
#include <cublasLt.h>
#include <dlfcn.h>

#include <cstdio>
#include <map>
#include <new>

#include "cublaslt.h"

namespace implex::cuda {

namespace {

constexpr size_t kWorkspaceBytes = size_t{32} << 20;  // what the library's guide asks for on Hopper

// The functions that are used, with the types of the header.
struct Api {
  void* module = nullptr;
  decltype(&cublasLtCreate) create;
  decltype(&cublasLtDestroy) destroy;
  decltype(&cublasLtGetVersion) version;
  decltype(&cublasLtGetStatusString) status_string;
  decltype(&cublasLtMatmul) matmul;
  decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic;
  decltype(&cublasLtMatmulAlgoCheck) check;
  decltype(&cublasLtMatmulAlgoConfigGetAttribute) algorithm_get;
  decltype(&cublasLtMatmulDescCreate) description_create;
  decltype(&cublasLtMatmulDescDestroy) description_destroy;
  decltype(&cublasLtMatmulDescSetAttribute) description_set;
  decltype(&cublasLtMatrixLayoutCreate) layout_create;
  decltype(&cublasLtMatrixLayoutDestroy) layout_destroy;
  decltype(&cublasLtMatmulPreferenceCreate) preference_create;
  decltype(&cublasLtMatmulPreferenceDestroy) preference_destroy;
  decltype(&cublasLtMatmulPreferenceSetAttribute) preference_set;
};

// The name of a function that is missing, or null.
const char* load(Api* api) {
  const char* missing = nullptr;
  const auto take = [&](auto& function, const char* name) {
    function = reinterpret_cast<std::decay_t<decltype(function)>>(dlsym(api->module, name));
    if (function == nullptr && missing == nullptr) missing = name;
  };
  take(api->create, "cublasLtCreate");
  take(api->destroy, "cublasLtDestroy");
  take(api->version, "cublasLtGetVersion");
  take(api->status_string, "cublasLtGetStatusString");
  take(api->matmul, "cublasLtMatmul");
  take(api->heuristic, "cublasLtMatmulAlgoGetHeuristic");
  take(api->check, "cublasLtMatmulAlgoCheck");
  take(api->algorithm_get, "cublasLtMatmulAlgoConfigGetAttribute");
  take(api->description_create, "cublasLtMatmulDescCreate");
  take(api->description_destroy, "cublasLtMatmulDescDestroy");
  take(api->description_set, "cublasLtMatmulDescSetAttribute");
  take(api->layout_create, "cublasLtMatrixLayoutCreate");
  take(api->layout_destroy, "cublasLtMatrixLayoutDestroy");
  take(api->preference_create, "cublasLtMatmulPreferenceCreate");
  take(api->preference_destroy, "cublasLtMatmulPreferenceDestroy");
  take(api->preference_set, "cublasLtMatmulPreferenceSetAttribute");
  return missing;
}

cudaDataType_t type_of(int32_t dtype) { return dtype == IX_BF16 ? CUDA_R_16BF : CUDA_R_32F; }

// Descriptions of one product at one size; freed with it.
class Description {
 public:
  explicit Description(const Api& api) : api_(api) {}
  ~Description() {
    if (operation != nullptr) api_.description_destroy(operation);
    for (const cublasLtMatrixLayout_t layout : {a, b, c, d})
      if (layout != nullptr) api_.layout_destroy(layout);
  }
  Description(const Description&) = delete;
  Description& operator=(const Description&) = delete;

  cublasStatus_t make(const LibraryProduct& p, int64_t n, int64_t k) {
    const cublasComputeType_t compute = p.dtype == IX_BF16 ? CUBLAS_COMPUTE_32F : CUBLAS_COMPUTE_32F_PEDANTIC;
    cublasStatus_t s = api_.description_create(&operation, compute, CUDA_R_32F);
    const cublasOperation_t op_a = p.a_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasOperation_t op_b = p.b_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    set(s, CUBLASLT_MATMUL_DESC_TRANSA, op_a);
    set(s, CUBLASLT_MATMUL_DESC_TRANSB, op_b);
    if (p.bias != nullptr) {
      const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
      const int32_t bias_type = CUDA_R_32F;
      const void* bias = p.bias;
      set(s, CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue);
      set(s, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, bias_type);
      set(s, CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
    }
    const auto layout = [&](cublasLtMatrixLayout_t* to, int32_t dtype, int64_t rows, int64_t cols, int64_t ld) {
      if (s == CUBLAS_STATUS_SUCCESS)
        s = api_.layout_create(to, type_of(dtype), static_cast<uint64_t>(rows), static_cast<uint64_t>(cols), ld);
    };
    layout(&a, p.dtype, p.a_transposed ? k : p.m, p.a_transposed ? p.m : k, p.lda);
    layout(&b, p.dtype, p.b_transposed ? n : k, p.b_transposed ? k : n, p.ldb);
    layout(&c, p.out_dtype, p.m, n, p.accumulate ? p.ldc : p.ldd);
    layout(&d, p.out_dtype, p.m, n, p.ldd);
    return s;
  }

  cublasLtMatmulDesc_t operation = nullptr;
  cublasLtMatrixLayout_t a = nullptr, b = nullptr, c = nullptr, d = nullptr;

 private:
  template <typename T>
  void set(cublasStatus_t& s, cublasLtMatmulDescAttributes_t attribute, const T& value) const {
    if (s == CUBLAS_STATUS_SUCCESS) s = api_.description_set(operation, attribute, &value, sizeof value);
  }
  const Api& api_;
};

class CublasLt final : public Products {
 public:
  explicit CublasLt(const Api& api) : api_(api) {}
  // The library stays loaded: other handles of the process may use it.
  ~CublasLt() override {
    if (handle_ != nullptr) api_.destroy(handle_);
  }

  cublasStatus_t start() { return api_.create(&handle_); }
  const char* text(cublasStatus_t status) const { return api_.status_string(status); }

  int32_t serves(const Call& call, const LibraryProduct& p, bool* answer) override {
    const Plan* plan = nullptr;
    const int32_t code = plan_of(call, p, &plan);
    *answer = code == IX_OK && plan->found;
    return code;
  }

  int32_t run(const Call& call, const LibraryProduct& p) override {
    const Plan* plan = nullptr;
    int32_t code = plan_of(call, p, &plan);
    if (code != IX_OK) return code;
    if (!plan->found) return call.fail(IX_INTERNAL, "cuBLASLt has no algorithm for this product");
    void* workspace = nullptr;
    code = call.scratch(Workspace::kLibrary, kWorkspaceBytes, &workspace);
    if (code != IX_OK) return code;
    Description description(api_);
    cublasStatus_t s = description.make(p, p.n, p.k);
    const float one = 1.0f;
    const float beta = p.accumulate ? 1.0f : 0.0f;
    const void* c = p.accumulate ? static_cast<const void*>(p.c) : p.d;
    if (s == CUBLAS_STATUS_SUCCESS)
      s = api_.matmul(handle_, description.operation, &one, p.a, description.a, p.b, description.b, &beta, c,
                      description.c, p.d, description.d, &plan->algorithm, workspace, kWorkspaceBytes,
                      call.device->stream);
    if (s == CUBLAS_STATUS_SUCCESS) return IX_OK;
    code = call.check(cudaGetLastError());
    return code != IX_OK ? code
                         : call.fail(IX_INTERNAL, "cuBLASLt: %s; IMPLEX_CUDA_PRODUCTS=own does without", text(s));
  }

 private:
  struct Plan {
    bool found = false;
    cublasLtMatmulAlgo_t algorithm = {};
  };

  int32_t plan_of(const Call& call, const LibraryProduct& p, const Plan** plan) {
    try {
      const auto [at, fresh] = plans_.try_emplace(key_of(p));
      *plan = &at->second;
      if (!fresh) return IX_OK;
      // So that the product's first run, for which the library may load code, is outside of a capture too.
      const int32_t code = call.at_once();
      if (code != IX_OK) {
        plans_.erase(at);
        return code;
      }
      const cublasStatus_t s = choose(p, &at->second);
      // "Not supported" is an answer, not an error.
      if (s == CUBLAS_STATUS_SUCCESS || s == CUBLAS_STATUS_NOT_SUPPORTED || s == CUBLAS_STATUS_INVALID_VALUE)
        return IX_OK;
      plans_.erase(at);
      return call.fail(IX_INTERNAL, "cuBLASLt, choosing an algorithm: %s", text(s));
    } catch (const std::bad_alloc&) {
      return call.fail(IX_OUT_OF_MEMORY, "out of host memory");
    }
  }

  cublasStatus_t choose(const LibraryProduct& p, Plan* plan) {
    cublasLtMatmulPreference_t preference = nullptr;
    cublasStatus_t s = api_.preference_create(&preference);
    if (s != CUBLAS_STATUS_SUCCESS) return s;
    const auto set = [&](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value) {
      if (s == CUBLAS_STATUS_SUCCESS) s = api_.preference_set(preference, attribute, &value, sizeof value);
    };
    const uint64_t workspace = kWorkspaceBytes;
    const uint32_t no_reduction = CUBLASLT_REDUCTION_SCHEME_NONE;
    const uint32_t alignment = 16;
    set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, workspace);
    set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, no_reduction);
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment);
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment);
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment);
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment);
    constexpr int kMost = 16;
    cublasLtMatmulHeuristicResult_t results[kMost] = {};
    int count = 0;
    Description typical(api_);
    if (s == CUBLAS_STATUS_SUCCESS) s = typical.make(p, size_n(p, kTypicalRows), size_k(p, kTypicalRows));
    if (s == CUBLAS_STATUS_SUCCESS)
      s = api_.heuristic(handle_, typical.operation, typical.a, typical.b, typical.c, typical.d, preference, kMost,
                         results, &count);
    for (int i = 0; s == CUBLAS_STATUS_SUCCESS && i < count && !plan->found; ++i) {
      if (results[i].state != CUBLAS_STATUS_SUCCESS || !single_pass(results[i].algo)) continue;
      if (!able(p, results[i].algo)) continue;
      plan->algorithm = results[i].algo;
      plan->found = true;
    }
    api_.preference_destroy(preference);
    return s;
  }

  static int64_t size_n(const LibraryProduct& p, int64_t rows) { return p.depth_varies ? p.n : rows; }
  static int64_t size_k(const LibraryProduct& p, int64_t rows) { return p.depth_varies ? rows : p.k; }

  // Neither split-K nor a reduction across blocks.
  bool single_pass(const cublasLtMatmulAlgo_t& algorithm) const {
    int32_t splits = 0;
    uint32_t scheme = 0;
    size_t written = 0;
    if (api_.algorithm_get(&algorithm, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &splits, sizeof splits, &written) !=
            CUBLAS_STATUS_SUCCESS ||
        api_.algorithm_get(&algorithm, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, &scheme, sizeof scheme, &written) !=
            CUBLAS_STATUS_SUCCESS)
      return false;
    return splits <= 1 && scheme == CUBLASLT_REDUCTION_SCHEME_NONE;
  }

  bool able(const LibraryProduct& p, const cublasLtMatmulAlgo_t& algorithm) const {
    for (const int64_t rows : kOtherRows) {
      Description description(api_);
      cublasLtMatmulHeuristicResult_t result = {};
      if (description.make(p, size_n(p, rows), size_k(p, rows)) != CUBLAS_STATUS_SUCCESS ||
          api_.check(handle_, description.operation, description.a, description.b, description.c, description.d,
                     &algorithm, &result) != CUBLAS_STATUS_SUCCESS ||
          result.workspaceSize > kWorkspaceBytes)
        return false;
    }
    return true;
  }

  Api api_;
  cublasLtHandle_t handle_ = nullptr;
  std::map<ProductKey, Plan> plans_;
};

}  // namespace

std::unique_ptr<Products> open_cublaslt(char* text, size_t size) {
  char name[64];
  std::snprintf(name, sizeof name, "libcublasLt.so.%d", CUBLAS_VER_MAJOR);
  Api api = {};
  api.module = dlopen(name, RTLD_NOW | RTLD_LOCAL);
  if (api.module == nullptr) {
    const char* reason = dlerror();
    std::snprintf(text, size,
                  "the CUDA device needs %s (cuBLAS %d, part of the CUDA toolkit and of the package nvidia-cublas), "
                  "which cannot be loaded: %s; put its folder on LD_LIBRARY_PATH, or set IMPLEX_CUDA_PRODUCTS=own to "
                  "do without, slowly",
                  name, CUBLAS_VER_MAJOR, reason != nullptr ? reason : "no reason given");
    return nullptr;
  }
  if (const char* missing = load(&api)) {
    std::snprintf(text, size, "%s has no function %s", name, missing);
    return nullptr;
  }
  if (api.version() / 10000 != CUBLAS_VER_MAJOR) {
    std::snprintf(text, size, "%s says it is version %zu; the module was built for %d", name, api.version(),
                  CUBLAS_VER_MAJOR);
    return nullptr;
  }
  std::unique_ptr<CublasLt> library(new (std::nothrow) CublasLt(api));
  if (library == nullptr) {
    std::snprintf(text, size, "out of host memory");
    return nullptr;
  }
  const cublasStatus_t s = library->start();
  if (s != CUBLAS_STATUS_SUCCESS) {
    std::snprintf(text, size, "cuBLASLt cannot start: %s", library->text(s));
    return nullptr;
  }
  return library;
}

}  // namespace implex::cuda
