// Operations on host arrays.
#include "core/host_operations.h"

namespace implex::host {

void DeviceMatrix::write(const std::vector<float>& values) {
  if (static_cast<DType>(mat_.dtype) == DType::kF32) {
    device_.call(&ix_backend::upload, buffer_.data(), values.data(), buffer_.bytes());
    return;
  }
  std::vector<uint16_t> rounded(values.size());
  for (size_t i = 0; i < values.size(); ++i) rounded[i] = f32_to_bf16(values[i]);
  device_.call(&ix_backend::upload, buffer_.data(), rounded.data(), buffer_.bytes());
}

std::vector<float> DeviceMatrix::read_rows(int64_t row, int64_t count) const {
  std::vector<float> values(static_cast<size_t>(count * mat_.cols));
  const auto dtype = static_cast<DType>(mat_.dtype);
  const size_t bytes = values.size() * dtype_size(dtype);
  const void* from =
      static_cast<const char*>(buffer_.data()) + static_cast<size_t>(row * mat_.cols) * dtype_size(dtype);
  if (dtype == DType::kF32) {
    device_.call(&ix_backend::download, values.data(), from, bytes);
    return values;
  }
  std::vector<uint16_t> bits(values.size());
  device_.call(&ix_backend::download, bits.data(), from, bytes);
  for (size_t i = 0; i < bits.size(); ++i) values[i] = bf16_to_f32(bits[i]);
  return values;
}

namespace {

DeviceWeight weight_of(Device& device, DType dtype, int64_t rows, int64_t cols, const std::vector<float>& values) {
  DeviceWeight weight(device, dtype, rows, cols, false);
  weight.write(0, rows, values.data());
  return weight;
}

}  // namespace

std::vector<float> gemm(Device& device, DType dtype, int64_t k, const std::vector<float>& a,
                        const std::vector<float>& b, const std::vector<float>& bias) {
  const int64_t m = static_cast<int64_t>(a.size()) / k;
  const int64_t n = static_cast<int64_t>(b.size()) / k;
  const DeviceMatrix in(device, dtype, m, k, a);
  const DeviceWeight weight = weight_of(device, dtype, n, k, b);
  const DeviceMatrix out(device, DType::kF32, m, n);
  const DeviceBuffer added = bias.empty() ? DeviceBuffer() : DeviceBuffer::of(device, bias);
  const ix_epilogue epilogue = {added.as<float>(), nullptr};
  device.call(&ix_backend::gemm, in.mat(), weight.get(), &epilogue, out.mat());
  return out.read();
}

std::vector<float> linear_logprob(Device& device, DType dtype, const std::vector<float>& hidden,
                                  const std::vector<float>& weight, const std::vector<int32_t>& targets) {
  const auto rows = static_cast<int64_t>(targets.size());
  const int64_t width = static_cast<int64_t>(hidden.size()) / rows;
  const DeviceMatrix in(device, dtype, rows, width, hidden);
  const DeviceWeight table = weight_of(device, dtype, static_cast<int64_t>(weight.size()) / width, width, weight);
  const DeviceBuffer ids = DeviceBuffer::of(device, targets);
  const DeviceMatrix out(device, DType::kF32, 1, rows);
  device.call(&ix_backend::linear_logprob, in.mat(), table.get(), ids.as<int32_t>(), 0.0f, out.as<float>(), nullptr);
  return out.read();
}

std::vector<float> linear_reward(Device& device, DType dtype, const FinalNorm& norm, const std::vector<float>& hidden,
                                 const std::vector<float>& head, const std::vector<int32_t>& first,
                                 const std::vector<int32_t>& count) {
  const auto width = static_cast<int64_t>(head.size());
  const auto groups = static_cast<int64_t>(first.size());
  if (norm.gamma.empty()) {
    const std::vector<float> rewards = gemm(device, dtype, width, hidden, head, {});
    std::vector<float> means;
    for (size_t g = 0; g < first.size(); ++g) {
      double sum = 0;
      for (int32_t i = 0; i < count[g]; ++i) sum += static_cast<double>(rewards[static_cast<size_t>(first[g] + i)]);
      means.push_back(static_cast<float>(sum / count[g]));
    }
    return means;
  }
  const DeviceMatrix in(device, dtype, static_cast<int64_t>(hidden.size()) / width, width, hidden);
  const DeviceBuffer gamma = DeviceBuffer::of(device, norm.gamma);
  const DeviceBuffer beta = norm.beta.empty() ? DeviceBuffer() : DeviceBuffer::of(device, norm.beta);
  const DeviceBuffer direction = DeviceBuffer::of(device, head);
  const ix_norm table = {norm.kind, gamma.as<float>(), beta.as<float>(), norm.eps};
  const DeviceMatrix out(device, DType::kF32, 1, groups);
  device.call(&ix_backend::linear_reward, &table, in.mat(), direction.as<float>(), first.data(), count.data(),
              static_cast<int32_t>(groups), out.as<float>());
  return out.read();
}

}  // namespace implex::host
