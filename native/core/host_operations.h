// Single operations on arrays in host memory: each call uploads its operands, runs, and downloads the result. Blocking.
// The public `kernels` of lib/kernels.ts are these.
#pragma once

#include <cstdint>
#include <vector>

#include "core/device.h"

namespace implex::host {

// A matrix on a device: memory and its description.
class DeviceMatrix {
 public:
  DeviceMatrix(Device& device, DType dtype, int64_t rows, int64_t cols)
      : device_(device),
        buffer_(device, static_cast<size_t>(rows * cols) * dtype_size(dtype)),
        mat_{buffer_.data(), static_cast<int32_t>(dtype), rows, cols, cols} {}
  DeviceMatrix(Device& device, DType dtype, int64_t rows, int64_t cols, const std::vector<float>& values)
      : DeviceMatrix(device, dtype, rows, cols) {
    write(values);
  }

  // Rounded to the matrix's dtype.
  void write(const std::vector<float>& values);
  std::vector<float> read() const { return read_rows(0, mat_.rows); }
  std::vector<float> read_rows(int64_t row, int64_t count) const;

  const ix_mat* mat() const { return &mat_; }
  template <typename T>
  T* as() const {
    return buffer_.as<T>();
  }

 private:
  Device& device_;
  DeviceBuffer buffer_;
  ix_mat mat_;
};

// out[M, N] = a[M, K] · b[N, K]^T + bias. `bias` is empty or [N].
std::vector<float> gemm(Device& device, DType dtype, int64_t k, const std::vector<float>& a,
                        const std::vector<float>& b, const std::vector<float>& bias);

// ln softmax(hidden[i] · weight^T)[targets[i]]; hidden [N, D], weight [V, D], targets [N] >= 0.
std::vector<float> linear_logprob(Device& device, DType dtype, const std::vector<float>& hidden,
                                  const std::vector<float>& weight, const std::vector<int32_t>& targets);

struct FinalNorm {
  int32_t kind = IX_NORM_RMS;
  std::vector<float> gamma;  // [D]; empty: no norm
  std::vector<float> beta;   // [D] or empty
  float eps = 0;
};

// Mean over rows [first[k], first[k] + count[k]) of head · norm(hidden[i]); hidden [N, D], head [D].
std::vector<float> linear_reward(Device& device, DType dtype, const FinalNorm& norm, const std::vector<float>& hidden,
                                 const std::vector<float>& head, const std::vector<int32_t>& first,
                                 const std::vector<int32_t>& count);

}  // namespace implex::host
