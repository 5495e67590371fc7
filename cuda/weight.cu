// Weights: row-major [rows, cols] in their own dtype. Every product takes them as they lie, either way round, so a
// trainable weight needs nothing more.
#include <algorithm>
#include <new>

#include "device.h"

namespace implex::cuda {

namespace {

constexpr int kThreads = 256;

// to[i] = from[i], rounded. Floor: 6 bytes an element over the memory's bandwidth.
__global__ void __launch_bounds__(kThreads) convert(const float* from, Bf16* to, int64_t count) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads * 4;
  for (int64_t i = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * 4; i < count; i += step)
    put_four<false>(to, i, count, get_four<false>(from, i, count));
}

int32_t convert_into(const Call& call, const float* from, ix_weight* weight, int64_t first, int64_t count) {
  const unsigned blocks = std::min(blocks_of(count, kThreads * 4), 8u * static_cast<unsigned>(call.device->processors));
  return call.launch(convert, blocks, kThreads, 0, from, static_cast<Bf16*>(weight->data) + first, count);
}

}  // namespace

int32_t weight_create(ix_device* device, int32_t dtype, int64_t rows, int64_t cols, int32_t trainable,
                      ix_weight** weight, ix_status* status) {
  *weight = nullptr;
  Call call(device, status, "weight_create", rows, cols);
  int32_t code = call.begin();
  if (code != IX_OK) return code;
  if (rows <= 0 || cols <= 0 || !is_float(dtype)) return call.fail(IX_INVALID, "bad shape or dtype %d", dtype);
  ix_weight* w = new (std::nothrow) ix_weight{dtype, rows, cols, nullptr, trainable != 0};
  if (w == nullptr) return call.fail(IX_OUT_OF_MEMORY, "out of host memory");
  code = call.alloc(static_cast<size_t>(rows * cols) * element_size(dtype), &w->data,
                    "the model does not fit; bf16 takes half of f32");
  if (code != IX_OK) {
    delete w;
    return code;
  }
  *weight = w;
  return IX_OK;
}

int32_t weight_write(ix_device* device, ix_weight* weight, int64_t row, int64_t count, const float* from_host,
                     ix_status* status) {
  Call call(device, status, "weight_write", count, weight->cols);
  int32_t code = call.begin();
  if (code != IX_OK) return code;
  if (row < 0 || count < 0 || row + count > weight->rows)
    return call.fail(IX_INVALID, "rows from %lld are out of range of %lld", static_cast<long long>(row),
                     static_cast<long long>(weight->rows));
  const int64_t first = row * weight->cols;
  const int64_t values = count * weight->cols;
  if (weight->dtype == IX_F32)
    return call.upload(static_cast<float*>(weight->data) + first, from_host,
                       static_cast<size_t>(values) * sizeof(float));
  // In pieces, each converted before the next overwrites it: the stream keeps the order.
  constexpr int64_t kPiece = int64_t{4} << 20;
  float* staging = nullptr;
  code = call.scratch(Workspace::kStaging, static_cast<size_t>(std::min(values, kPiece)) * sizeof(float), &staging);
  for (int64_t at = 0; at < values && code == IX_OK; at += kPiece) {
    const int64_t piece = std::min(kPiece, values - at);
    code = call.upload(staging, from_host + at, static_cast<size_t>(piece) * sizeof(float));
    if (code == IX_OK) code = convert_into(call, staging, weight, first + at, piece);
  }
  return code;
}

int32_t weight_refresh(ix_device* device, ix_weight* weight, const float* from, ix_status* status) {
  Call call(device, status, "weight_refresh", weight->rows, weight->cols);
  const int32_t code = call.begin();
  if (code != IX_OK) return code;
  const int64_t values = weight->rows * weight->cols;
  if (weight->dtype == IX_BF16) return convert_into(call, from, weight, 0, values);
  return call.check(cudaMemcpyAsync(weight->data, from, static_cast<size_t>(values) * sizeof(float),
                                    cudaMemcpyDeviceToDevice, device->stream));
}

void weight_destroy(ix_device* device, ix_weight* weight) {
  if (weight == nullptr) return;
  release(device, weight->data);
  delete weight;
}

size_t weight_bytes(const ix_weight* weight) {
  return static_cast<size_t>(weight->rows * weight->cols) * element_size(weight->dtype);
}

}  // namespace implex::cuda
