// The module's only export: the CUDA device's table of operations. Each operation has a file of its own.
#include "cublaslt.h"
#include "open.h"

ix_device::ix_device() = default;
ix_device::~ix_device() = default;

namespace implex::cuda {

namespace {

const ix_backend kBackend = {
    .version = IMPLEX_BACKEND_VERSION,
    .size = sizeof(ix_backend),
    .name = "cuda",
    .open = open,
    .close = close,
    .describe = describe,
    .alloc = alloc,
    .release = release,
    .upload = upload,
    .download = download,
    .synchronize = synchronize,
    .weight_create = weight_create,
    .weight_write = weight_write,
    .weight_refresh = weight_refresh,
    .weight_destroy = weight_destroy,
    .weight_bytes = weight_bytes,
    .batch_create = batch_create,
    .batch_destroy = batch_destroy,
    .record_begin = record_begin,
    .record_end = record_end,
    .embedding = embedding,
    .gather_rows = gather_rows,
    .norm = norm,
    .gemm = gemm,
    .rope = rope,
    .attention = attention,
    .glu = glu,
    .linear_logprob = linear_logprob,
    .linear_reward = linear_reward,
    .scaled_add = scaled_add,
    .top_experts = top_experts,
    .combine_experts = combine_experts,
    .gemm_backward_input = gemm_backward_input,
    .gemm_backward_weight = gemm_backward_weight,
    .norm_backward = norm_backward,
    .glu_backward = glu_backward,
    .attention_backward = attention_backward,
    .embedding_backward = embedding_backward,
    .scatter_rows = scatter_rows,
    .linear_logprob_backward = linear_logprob_backward,
    .linear_reward_backward = linear_reward_backward,
    .top_experts_backward = top_experts_backward,
    .combine_experts_backward = combine_experts_backward,
    .cast = cast,
    .fill_zero = fill_zero,
    .optimizer_step = optimizer_step,
    .sum_of_squares = sum_of_squares,
};

}  // namespace

}  // namespace implex::cuda

extern "C" __attribute__((visibility("default"))) const ix_backend* implex_backend(void) {
  return &implex::cuda::kBackend;
}
