// An emulated card in the place of cuda/open.cu, and a plain library of products in the place of cuda/cublaslt.cu.
//   IMPLEX_EMULATED_CARD    sm80, or sm90a unless given
//   IMPLEX_EMULATED_POOLS   0: the driver has no pools of memory
#include "open.h"

#include <cstdlib>
#include <cstring>
#include <new>

#include "cublaslt.h"

namespace implex::cuda {

namespace {

float value_at(const void* data, int32_t dtype, int64_t i) {
  return dtype == IX_F32 ? static_cast<const float*>(data)[i]
                         : emulated::bf16_value(static_cast<const uint16_t*>(data)[i]);
}

// Column-major, as cuBLASLt reads the same numbers.
class ReferenceProducts final : public Products {
 public:
  int32_t serves(const Call&, const LibraryProduct& p, bool* answer) override {
    *answer = p.bias == nullptr || p.out_dtype == IX_F32;  // so that the pass that finishes a product is tested too
    return IX_OK;
  }
  int32_t run(const Call& call, const LibraryProduct& p) override {
    if (p.lda < (p.a_transposed ? p.k : p.m) || p.ldb < (p.b_transposed ? p.n : p.k) || p.ldd < p.m ||
        !library_aligned(p))
      return call.fail(IX_INTERNAL, "cuBLASLt would refuse this product");
    emulated::submit([p] { multiply(p); });
    return IX_OK;
  }

 private:
  static void multiply(const LibraryProduct& p) {
    for (int64_t j = 0; j < p.n; ++j) {
      for (int64_t i = 0; i < p.m; ++i) {
        float sum = 0;
        for (int64_t l = 0; l < p.k; ++l)
          sum += value_at(p.a, p.dtype, p.a_transposed ? i * p.lda + l : l * p.lda + i) *
                 value_at(p.b, p.dtype, p.b_transposed ? l * p.ldb + j : j * p.ldb + l);
        if (p.accumulate) sum += p.c[j * p.ldc + i];
        if (p.bias != nullptr) sum += p.bias[i];
        if (p.out_dtype == IX_F32)
          static_cast<float*>(p.d)[j * p.ldd + i] = sum;
        else
          static_cast<uint16_t*>(p.d)[j * p.ldd + i] = emulated::bf16_bits(sum);
      }
    }
  }
};

}  // namespace

int32_t open(ix_device** device, ix_status* status) {
  *device = new (std::nothrow) ix_device;
  if (*device == nullptr) return status->code = IX_OUT_OF_MEMORY;
  ix_device* d = *device;
  d->settings = read_settings(std::getenv);
  static EmulatedPool pool;
  const char* pools = std::getenv("IMPLEX_EMULATED_POOLS");
  if (pools == nullptr || std::strcmp(pools, "0") != 0) d->pool = &pool;
  d->memory = kEmulatedMemory;
  d->processors = 2;
  d->block_memory = 227 << 10;
  const char* card = std::getenv("IMPLEX_EMULATED_CARD");
  d->hopper = (card == nullptr || std::strcmp(card, "sm80") != 0) && d->settings.hopper_allowed;
  std::strcpy(d->card, "an emulated GPU");
  d->ring.memory = static_cast<char*>(std::malloc(Ring::kBytes * Ring::kSlots));
  if (!d->settings.own_products) d->products = std::make_unique<ReferenceProducts>();
  return IX_OK;
}

void close(ix_device* device) {
  destroy_graphs(device);
  for (void* memory : device->workspace.data) std::free(memory);
  std::free(device->ring.memory);
  delete device;
}

int32_t describe(ix_device* device, char* description, size_t description_size, char* kernels, size_t kernels_size,
                 ix_status*) {
  std::snprintf(description, description_size, "%s", device->card);
  std::snprintf(kernels, kernels_size, "%s-emulated", device->hopper ? "sm90a" : "sm80");
  return IX_OK;
}

}  // namespace implex::cuda
