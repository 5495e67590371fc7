// Memory of the emulated GPU, where the driver has pools and where it has none: sizes that no card has are refused
// without asking the driver, and the device computes as before.
#include <limits>

#include "support.h"

using namespace implex;
using namespace implex::test;

namespace {

void check_memory() {
  TableDevice gpu(emulated_backend());
  for (const size_t bytes : {size_t{5} << 30, size_t{1} << 50, std::numeric_limits<size_t>::max() - 100}) {
    void* memory = &gpu;
    CHECK(gpu.attempt(&ix_backend::alloc, bytes, &memory) == IX_OUT_OF_MEMORY && memory == nullptr, "%zu bytes", bytes);
    CHECK(gpu.message.find("memory") != std::string::npos, "a message that says why: %s", gpu.message.c_str());
  }
  Matrix in(IX_F32, 3, 20), out(IX_BF16, 3, 20);
  for (int64_t i = 0; i < 60; ++i) in.set(i / 20, i % 20, static_cast<double>(i));
  void* memory = nullptr;
  gpu.call(&ix_backend::alloc, size_t{1000}, &memory);
  gpu.call(&ix_backend::upload, memory, static_cast<const void*>(in.bytes().data()), in.bytes().size());
  const ix_mat from = {memory, IX_F32, 3, 20, 20}, to = out.view();
  gpu.call(&ix_backend::cast, &from, &to);
  gpu.table()->release(gpu.handle(), memory);
  for (int64_t i = 0; i < 60; ++i) CHECK(out(i / 20, i % 20) == static_cast<double>(i), "element %d", int(i));
  // Scratch that grows is given back and taken anew.
  for (const int64_t rows : {10, 3000}) {
    Matrix grad = Matrix(IX_F32, rows, 8);
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < 8; ++c) grad.set(r, c, 1);
    std::vector<float> bias(8), weight(64);
    const ix_mat g = grad.view();
    gpu.call(&ix_backend::gemm_backward_weight, &g, &g, weight.data(), bias.data());
    CHECK(bias[7] == static_cast<float>(rows), "%g of %d rows", static_cast<double>(bias[7]), int(rows));
  }
}

}  // namespace

TEST(gpu_memory) { check_memory(); }

TEST(gpu_memory_without_pools) {
  const Setting none("IMPLEX_EMULATED_POOLS", "0");
  check_memory();
}
