// The CPU device's table: handles for devices, weights and batches. The operations have files of their own.
#include "cpu/device.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>

#include "cpu/memory.h"

namespace implex::cpu {

int32_t fail(ix_status* status, int32_t code, const char* format, ...) {
  status->code = code;
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(status->message, sizeof status->message, format, arguments);
  va_end(arguments);
  return code;
}

namespace {

// A setting that cannot be had is an error: what would run instead is not what was asked for.
int32_t check_environment(ix_status* status) {
  const char* kernels = std::getenv("IMPLEX_KERNELS");
  if (kernels != nullptr && *kernels != '\0' && std::strcmp(kernels, selected_kernels()->name) != 0) {
    char names[128] = "";
    size_t end = 0;
    for (const KernelTable* set : available_kernels())
      end +=
          static_cast<size_t>(std::snprintf(names + end, sizeof names - end, "%s%s", end == 0 ? "" : ", ", set->name));
    return fail(status, IX_UNAVAILABLE,
                "IMPLEX_KERNELS is \"%.40s\", but this build has for this processor: %s. Set one of these, or none",
                kernels, names);
  }
  if (ThreadPool::requested_size() < 0)
    return fail(status, IX_UNAVAILABLE,
                "IMPLEX_THREADS is \"%.40s\"; it must be a whole number from 1 to 1024, or unset",
                std::getenv("IMPLEX_THREADS"));
  return IX_OK;
}

int32_t open(ix_device** device, ix_status* status) {
  *device = nullptr;
  if (const int32_t code = check_environment(status); code != IX_OK) return code;
  *device = new (std::nothrow) ix_device;
  if (*device == nullptr) return fail(status, IX_OUT_OF_MEMORY, "out of memory opening the CPU device");
  (*device)->kernels = selected_kernels();
  return IX_OK;
}

void close(ix_device* device) { delete device; }

int32_t describe(ix_device* device, char* description, size_t description_size, char* kernels, size_t kernels_size,
                 ix_status*) {
  std::snprintf(description, description_size, "CPU, %d threads", ThreadPool::instance().size());
  std::snprintf(kernels, kernels_size, "%s", device->kernels->name);
  return IX_OK;
}

int32_t synchronize(ix_device*, ix_status*) { return IX_OK; }

int32_t fill_zero(ix_device*, void* memory, size_t bytes, ix_status*) {
  if (bytes != 0) std::memset(memory, 0, bytes);
  return IX_OK;
}

int32_t weight_create(ix_device* device, int32_t dtype, int64_t rows, int64_t cols, int32_t trainable,
                      ix_weight** weight, ix_status* status) {
  *weight = nullptr;
  if (rows <= 0 || cols <= 0 || (dtype != IX_F32 && dtype != IX_BF16))
    return fail(status, IX_INVALID, "weight_create: bad shape [%lld, %lld] or dtype %d", static_cast<long long>(rows),
                static_cast<long long>(cols), dtype);
  ix_weight* w = new (std::nothrow) ix_weight;
  if (w == nullptr) return fail(status, IX_OUT_OF_MEMORY, "out of memory creating a weight");
  w->dtype = dtype;
  w->rows = rows;
  w->cols = cols;
  w->panel = device->kernels->panel;
  w->panel_bytes = depth_bytes(dtype, w->panel, cols);
  const size_t direct = static_cast<size_t>(w->panel_bytes * w->panel_count());
  int32_t code = alloc(device, direct, &w->panels, status);
  w->bytes = direct;
  if (code == IX_OK) std::memset(w->panels, 0, direct);  // columns and halves of pairs that no row fills stay zero
  if (code == IX_OK && trainable != 0) {
    w->transposed_panel_bytes = depth_bytes(dtype, w->panel, rows);
    const size_t transposed = static_cast<size_t>(w->transposed_panel_bytes * ((cols + w->panel - 1) / w->panel));
    code = alloc(device, transposed, &w->transposed, status);
    w->bytes += transposed;
    if (code == IX_OK) std::memset(w->transposed, 0, transposed);
  }
  if (code != IX_OK) {
    release(device, w->panels);
    delete w;
    return code;
  }
  *weight = w;
  return IX_OK;
}

void pack(ix_device* device, ix_weight* weight, int64_t row, int64_t count, const float* from) {
  if (weight->dtype == IX_F32) {
    device->kernels->pack_f32(from, row, count, weight->cols, static_cast<float*>(weight->panels));
  } else {
    device->kernels->pack_bf16(from, row, count, weight->cols, static_cast<uint16_t*>(weight->panels));
  }
  if (weight->transposed)
    device->kernels->pack_depth(from, IX_F32, weight->cols, row, count, weight->cols, weight->rows, weight->transposed,
                                weight->dtype);
}

int32_t weight_write(ix_device* device, ix_weight* weight, int64_t row, int64_t count, const float* from,
                     ix_status* status) {
  if (row < 0 || count < 0 || row + count > weight->rows)
    return fail(status, IX_INVALID, "weight_write: rows out of range");
  pack(device, weight, row, count, from);
  return IX_OK;
}

int32_t weight_refresh(ix_device* device, ix_weight* weight, const float* from, ix_status*) {
  // Blocks of whole pairs of rows: two threads must not meet in one bf16 pair.
  constexpr int64_t kBlock = 64;
  for_each_task((weight->rows + kBlock - 1) / kBlock, static_cast<double>(weight->rows * weight->cols),
                [&](int64_t task) {
                  const int64_t row = task * kBlock;
                  const int64_t count = weight->rows - row < kBlock ? weight->rows - row : kBlock;
                  pack(device, weight, row, count, from + row * weight->cols);
                });
  return IX_OK;
}

void weight_destroy(ix_device* device, ix_weight* weight) {
  if (weight == nullptr) return;
  release(device, weight->panels);
  release(device, weight->transposed);
  delete weight;
}

size_t weight_bytes(const ix_weight* weight) { return weight->bytes; }

int32_t batch_create(ix_device*, const ix_segment* segments, int32_t count, ix_batch** batch, ix_status* status) {
  *batch = nullptr;
  try {
    auto* b = new ix_batch;
    *batch = b;
    b->segments.assign(segments, segments + count);
    for (int32_t s = 0; s < count; ++s) {
      const ix_segment& segment = segments[s];
      const int32_t base = segment.parent < 0 ? 0 : segments[segment.parent].length;
      for (int32_t i = 0; i < segment.length; ++i) {
        b->segment_of.push_back(s);
        b->positions.push_back(base + i);
      }
    }
  } catch (const std::bad_alloc&) {
    delete *batch;
    *batch = nullptr;
    return fail(status, IX_OUT_OF_MEMORY, "out of memory describing a batch of %d segments", count);
  }
  return IX_OK;
}

void batch_destroy(ix_device*, ix_batch* batch) { delete batch; }

// Operations are done when they return: there is nothing to keep back.
int32_t record_begin(ix_device*, ix_status*) { return IX_OK; }
int32_t record_end(ix_device*, int32_t, ix_status*) { return IX_OK; }

const ix_backend kBackend = {
    .version = IMPLEX_BACKEND_VERSION,
    .size = sizeof(ix_backend),
    .name = "cpu",
    .open = open,
    .close = close,
    .describe = describe,
    .alloc = alloc,
    .release = release,
    .upload = copy,
    .download = copy,
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
}  // namespace implex::cpu

extern "C" const ix_backend* implex_cpu_backend(void) { return &implex::cpu::kBackend; }
