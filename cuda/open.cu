// Opens one GPU: checks that it is there and new enough, makes a stream, a pool of memory, pinned memory for copies and
// a handle for the library of products. Every handle has its own, so that several threads can each work with one.
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <new>

#include "cublaslt.h"
#include "open.h"

namespace implex::cuda {

namespace {

int32_t unavailable(ix_status* status, const char* format, ...) __attribute__((format(printf, 2, 3)));
int32_t unavailable(ix_status* status, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(status->message, sizeof status->message, format, arguments);
  va_end(arguments);
  status->code = IX_UNAVAILABLE;
  return IX_UNAVAILABLE;
}

int32_t unavailable(ix_status* status, const char* doing, cudaError_t error) {
  cudaGetLastError();
  return unavailable(status, "no CUDA device: %s: %s (%s)", doing, cudaGetErrorString(error), cudaGetErrorName(error));
}

// The driver's function by way of the runtime, so that the module does not link the driver's library.
void* driver_function(const char* name) {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
  if (cudaGetDriverEntryPointByVersion(name, &function, 12000, cudaEnableDefault, &found) != cudaSuccess) {
    cudaGetLastError();
    return nullptr;
  }
  return found == cudaDriverEntryPointSuccess ? function : nullptr;
}

int32_t prepare(ix_device* d, ix_status* status) {
  cudaError_t error = cudaStreamCreateWithFlags(&d->stream, cudaStreamNonBlocking);
  if (error != cudaSuccess) return unavailable(status, "creating a stream", error);
  // Virtual GPUs may have no pools.
  int pools = 0;
  error = cudaDeviceGetAttribute(&pools, cudaDevAttrMemoryPoolsSupported, d->ordinal);
  if (error != cudaSuccess) return unavailable(status, "reading the GPU's properties", error);
  if (pools != 0) {
    cudaMemPoolProps properties = {};
    properties.allocType = cudaMemAllocationTypePinned;
    properties.location.type = cudaMemLocationTypeDevice;
    properties.location.id = d->ordinal;
    error = cudaMemPoolCreate(&d->pool, &properties);
    if (error != cudaSuccess) return unavailable(status, "creating a pool of memory", error);
    // Memory that is freed stays in the pool: the next batch wants it back.
    uint64_t keep = UINT64_MAX;
    error = cudaMemPoolSetAttribute(d->pool, cudaMemPoolAttrReleaseThreshold, &keep);
    if (error != cudaSuccess) return unavailable(status, "setting up a pool of memory", error);
  }
  void* pinned = nullptr;
  error = cudaHostAlloc(&pinned, Ring::kBytes * Ring::kSlots, cudaHostAllocDefault);
  if (error != cudaSuccess) return unavailable(status, "allocating pinned memory", error);
  d->ring.memory = static_cast<char*>(pinned);
  for (cudaEvent_t& event : d->ring.done) {
    error = cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
    if (error != cudaSuccess) return unavailable(status, "creating an event", error);
  }
  if (!d->settings.own_products) {
    char reason[400] = "";
    d->products = open_cublaslt(reason, sizeof reason);
    if (d->products == nullptr) return unavailable(status, "%s", reason);
  }
  return IX_OK;
}

}  // namespace

int32_t open(ix_device** device, ix_status* status) {
  *device = nullptr;
  ix_device* d = new (std::nothrow) ix_device;
  if (d == nullptr) {
    status->code = IX_OUT_OF_MEMORY;
    std::snprintf(status->message, sizeof status->message, "out of host memory opening the CUDA device");
    return IX_OUT_OF_MEMORY;
  }
  d->settings = read_settings(std::getenv);
  d->ordinal = d->settings.ordinal;
  int32_t code = IX_OK;
  int count = 0, major = 0, minor = 0, memory = 0;
  cudaDeviceProp properties = {};
  cudaError_t error = cudaSuccess;
  if (d->settings.problem != nullptr)
    code = unavailable(status, "%s", d->settings.problem);
  else if ((error = cudaGetDeviceCount(&count)) != cudaSuccess)
    code = unavailable(status, "looking for GPUs", error);
  else if (d->ordinal >= count)
    code = unavailable(status, "there is no GPU %d: %d can be seen", d->ordinal, count);
  else if ((error = cudaGetDeviceProperties(&properties, d->ordinal)) != cudaSuccess)
    code = unavailable(status, "reading the GPU's properties", error);
  major = properties.major;
  minor = properties.minor;
  if (code == IX_OK) {
    std::snprintf(d->card, sizeof d->card, "%.200s", properties.name);
    if (!card_is_served(major)) {
      old_card_text(status->message, sizeof status->message, d->card, major, minor);
      code = status->code = IX_UNAVAILABLE;
    } else if ((error = cudaSetDevice(d->ordinal)) != cudaSuccess) {
      code = unavailable(status, "choosing the GPU", error);
    } else if ((error = cudaDeviceGetAttribute(&memory, cudaDevAttrMaxSharedMemoryPerBlockOptin, d->ordinal)) !=
               cudaSuccess) {
      code = unavailable(status, "reading the GPU's properties", error);
    }
  }
  if (code == IX_OK) {
    d->processors = properties.multiProcessorCount;
    d->memory = properties.totalGlobalMem;
    d->block_memory = static_cast<size_t>(memory);
    d->encode_tensor_map = major == 9 ? driver_function("cuTensorMapEncodeTiled") : nullptr;
    d->hopper = major == 9 && d->settings.hopper_allowed && d->encode_tensor_map != nullptr;
    code = prepare(d, status);
  }
  if (code != IX_OK) {
    close(d);
    return code;
  }
  *device = d;
  return IX_OK;
}

void close(ix_device* device) {
  if (device == nullptr) return;
  // Errors are of no use to anyone here.
  if (cudaSetDevice(device->ordinal) == cudaSuccess && device->stream != nullptr) {
    cudaStreamSynchronize(device->stream);
    device->products.reset();
    destroy_graphs(device);
    for (void* memory : device->workspace.data)
      if (memory != nullptr) free_memory(device, memory);
    cudaStreamSynchronize(device->stream);
    for (const cudaEvent_t event : device->ring.done)
      if (event != nullptr) cudaEventDestroy(event);
    if (device->ring.memory != nullptr) cudaFreeHost(device->ring.memory);
    if (device->pool != nullptr) cudaMemPoolDestroy(device->pool);
    cudaStreamDestroy(device->stream);
  }
  cudaGetLastError();
  delete device;
}

int32_t describe(ix_device* device, char* description, size_t description_size, char* kernels, size_t kernels_size,
                 ix_status* status) {
  Call call(device, status, "describe");
  int32_t code = call.begin();
  size_t free_bytes = 0, total = 0;
  if (code == IX_OK) code = call.check(cudaMemGetInfo(&free_bytes, &total));
  if (code != IX_OK) return code;
  std::snprintf(description, description_size, "%s, %d multiprocessors, %.0f GiB", device->card, device->processors,
                static_cast<double>(total) / (1 << 30));
  // Bits may differ between any two of these.
  std::snprintf(kernels, kernels_size, "%s-%s", device->hopper ? "sm90a" : "sm80",
                device->settings.own_products ? "own" : "cublaslt");
  return IX_OK;
}

}  // namespace implex::cuda
