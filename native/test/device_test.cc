// Device objects: buffers, weights and the arena; errors of the CPU device's table.
#include "core/device.h"

#include <cstddef>
#include <cstring>
#include <memory>

#include "core/arena.h"
#include "cpu/device.h"
#include "support.h"

using namespace implex;
using namespace implex::test;

TEST(device_buffers) {
  Device device(implex_cpu_backend());
  CHECK(device.name() == "cpu" && !device.description().empty() && !device.kernel_set().empty(),
        "a device describes itself");
  DeviceBuffer empty;
  CHECK(empty.data() == nullptr && empty.bytes() == 0, "an empty buffer");
  const std::vector<float> values = {1, 2, 3};
  DeviceBuffer buffer = DeviceBuffer::of(device, values);
  CHECK(reinterpret_cast<uintptr_t>(buffer.data()) % 256 == 0, "alignment of 256");
  DeviceBuffer moved = std::move(buffer);
  std::vector<float> back(3);
  device.call(&ix_backend::download, back.data(), moved.data(), moved.bytes());
  CHECK(back == values, "values come back");
  moved = DeviceBuffer::of(device, std::vector<float>());
  CHECK(moved.bytes() == 0, "a buffer of nothing");
  CHECK_ERROR(ErrorCode::kOutOfMemory, DeviceBuffer(device, SIZE_MAX), "allocate");
  CHECK_ERROR(ErrorCode::kOutOfMemory, DeviceBuffer(device, size_t{1} << 60), "memory");
}

// Designated initializers leave out what they do not name.
TEST(device_tables_are_complete) {
  const auto complete = [](const auto& table, size_t first) {
    for (size_t at = first; at < sizeof table; at += sizeof(void*)) {
      void* entry = nullptr;
      std::memcpy(&entry, reinterpret_cast<const char*>(&table) + at, sizeof entry);
      if (entry == nullptr) return false;
    }
    return true;
  };
  CHECK(complete(*implex_cpu_backend(), offsetof(ix_backend, open)), "the CPU's operations");
  for (const cpu::KernelTable* kernels : cpu::available_kernels())
    CHECK(complete(*kernels, offsetof(cpu::KernelTable, pack_f32)), "%s kernels", kernels->name);
  cpu::KernelTable holed = *cpu::available_kernels()[0];
  holed.add_row = nullptr;
  CHECK(!complete(holed, offsetof(cpu::KernelTable, pack_f32)), "a hole shows");
}

TEST(device_weights) {
  Device device(implex_cpu_backend());
  CHECK_ERROR(ErrorCode::kInternal, DeviceWeight(device, DType::kF16, 2, 2, false), "dtype");
  CHECK_ERROR(ErrorCode::kInternal, DeviceWeight(device, DType::kF32, 0, 2, false), "shape");
  CHECK_ERROR(ErrorCode::kInternal, DeviceWeight(device, DType::kF32, 2, -1, false), "shape");
  CHECK_ERROR(ErrorCode::kOutOfMemory, DeviceWeight(device, DType::kF32, int64_t{1} << 24, int64_t{1} << 24, false),
              "memory");
  DeviceWeight weight(device, DType::kBf16, 5, 3, false);
  CHECK(weight && weight.rows() == 5 && weight.bytes() >= 5 * 3 * 2, "its size");
  const float row[3] = {1, 2, 3};
  weight.write(4, 1, row);
  CHECK_ERROR(ErrorCode::kInternal, (weight.write(5, 1, row), 0), "out of range");
  CHECK_ERROR(ErrorCode::kInternal, (weight.write(-1, 1, row), 0), "out of range");
  DeviceWeight other = std::move(weight);
  CHECK(other && !DeviceWeight(), "moved");
}

TEST(arena_plans) {
  Device device(implex_cpu_backend());
  Arena arena(device);
  Arena::Plan measure(nullptr);
  CHECK(measure.take(1) == nullptr && measure.used() == 256, "a piece is a multiple of 256 bytes");
  CHECK(measure.take(0) == nullptr && measure.used() == 256, "nothing takes nothing");
  const ix_mat m = measure.matrix(DType::kBf16, 3, 100);
  CHECK(m.data == nullptr && m.rows == 3 && m.cols == 100 && m.stride == 100 && m.dtype == IX_BF16 &&
            measure.used() == 256 + 768,
        "a matrix");

  arena.reserve(measure.used());
  const size_t size = arena.bytes();
  Arena::Plan plan(&arena);
  char* first = static_cast<char*>(plan.take(1));
  char* second = static_cast<char*>(plan.matrix(DType::kBf16, 3, 100).data);
  CHECK(second == first + 256, "pieces follow each other");
  first[0] = 1;
  second[767] = 2;
  CHECK_ERROR(ErrorCode::kInternal, plan.take(1), "too small");
  arena.reserve(10);
  CHECK(arena.bytes() == size, "an arena does not shrink");
  arena.reserve(size + 1);
  CHECK(arena.bytes() == size + 1, "an arena grows");
  CHECK_ERROR(ErrorCode::kOutOfMemory, (arena.reserve(size_t{1} << 60), 0), "memory");
  arena.reserve(512);  // usable after a failure
  Arena::Plan again(&arena);
  static_cast<char*>(again.take(512))[511] = 1;
}
