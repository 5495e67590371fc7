// The module's only export: the CUDA device's table of operations. Each operation has a file of its own.
#include "cublaslt.h"
#include "open.h"

ix_device::ix_device() = default;
ix_device::~ix_device() = default;

namespace implex::cuda {

namespace {

const ix_backend kBackend = {
    IMPLEX_BACKEND_VERSION,
    sizeof(ix_backend),
    "cuda",
    open,
    close,
    describe,
    alloc,
    release,
    upload,
    download,
    synchronize,
    weight_create,
    weight_write,
    weight_refresh,
    weight_destroy,
    weight_bytes,
    batch_create,
    batch_destroy,
    record_begin,
    record_end,
    embedding,
    gather_rows,
    norm,
    gemm,
    rope,
    attention,
    glu,
    linear_logprob,
    linear_reward,
    gemm_backward_input,
    gemm_backward_weight,
    norm_backward,
    glu_backward,
    attention_backward,
    embedding_backward,
    scatter_rows,
    linear_logprob_backward,
    linear_reward_backward,
    cast,
    fill_zero,
    optimizer_step,
    sum_of_squares,
};

}  // namespace

}  // namespace implex::cuda

extern "C" __attribute__((visibility("default"))) const ix_backend* implex_backend(void) {
  return &implex::cuda::kBackend;
}
