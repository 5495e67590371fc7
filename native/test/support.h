// What the native tests share: reproducible random numbers, matrices and weights on a CPU device with a chosen kernel
// set, hashes, temporary files, and running this program again under other settings.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "backend.h"
#include "core/dtype.h"
#include "cpu/device.h"
#include "harness.h"

namespace implex::test {

constexpr double kU = 1.0 / (1 << 24);     // unit roundoff of f32
constexpr double kUBf16 = 1.0 / (1 << 8);  // of bf16

// splitmix64.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t next() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  int64_t below(int64_t n) { return static_cast<int64_t>(next() % static_cast<uint64_t>(n)); }
  double uniform(double low, double high) {
    return low + (high - low) * static_cast<double>(next() >> 11) / 9007199254740992.0;
  }
  template <typename T>
  void shuffle(std::vector<T>& values) {
    for (size_t i = values.size(); i > 1; --i)
      std::swap(values[i - 1], values[static_cast<size_t>(below(static_cast<int64_t>(i)))]);
  }

 private:
  uint64_t state_;
};

inline const char* dtype_text(int32_t dtype) { return dtype == IX_F32 ? "f32" : "bf16"; }
inline float rounded(double value, int32_t dtype) {
  const float f = static_cast<float>(value);
  return dtype == IX_BF16 ? bf16_to_f32(f32_to_bf16(f)) : f;
}

// Row-major [rows, cols]; exactly as much memory as the rows need, so that a sanitizer sees any access past them. The
// gap between rows holds a pattern: see intact().
class Matrix {
 public:
  Matrix(int32_t dtype, int64_t rows, int64_t cols, int64_t gap = 0)
      : dtype_(dtype), rows_(rows), cols_(cols), stride_(cols + gap) {
    storage_.assign(static_cast<size_t>(rows == 0 ? 0 : (rows - 1) * stride_ + cols) * size(), static_cast<char>(0x5a));
  }

  // A uniform sample of [-scale, scale], rounded to the dtype.
  static Matrix random(Random& random, int32_t dtype, int64_t rows, int64_t cols, double scale = 1, int64_t gap = 0) {
    Matrix m(dtype, rows, cols, gap);
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < cols; ++c) m.set(r, c, random.uniform(-scale, scale));
    return m;
  }

  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }
  int64_t stride() const { return stride_; }
  int32_t dtype() const { return dtype_; }
  // Everything, the gaps included.
  const std::vector<char>& bytes() const { return storage_; }
  std::vector<char>& bytes() { return storage_; }
  double operator()(int64_t row, int64_t col) const {
    const char* at = address(row, col);
    if (dtype_ == IX_BF16) {
      uint16_t bits;
      std::memcpy(&bits, at, sizeof bits);
      return static_cast<double>(bf16_to_f32(bits));
    }
    float value;
    std::memcpy(&value, at, sizeof value);
    return static_cast<double>(value);
  }
  void set(int64_t row, int64_t col, double value) {
    const float f = static_cast<float>(value);
    const uint16_t bits = f32_to_bf16(f);
    if (dtype_ == IX_BF16)
      std::memcpy(storage_.data() + (address(row, col) - storage_.data()), &bits, sizeof bits);
    else
      std::memcpy(storage_.data() + (address(row, col) - storage_.data()), &f, sizeof f);
  }

  // Rows [first, first + count) as the operations see them.
  ix_mat view(int64_t first, int64_t count) {
    return {storage_.data() + first * stride_ * static_cast<int64_t>(size()), dtype_, count, cols_, stride_};
  }
  ix_mat view() { return view(0, rows_); }

  std::string row_bits(int64_t row) const { return std::string(address(row, 0), static_cast<size_t>(cols_) * size()); }
  bool same_row(int64_t row, const Matrix& other, int64_t other_row) const {
    return std::memcmp(address(row, 0), other.address(other_row, 0), static_cast<size_t>(cols_) * size()) == 0;
  }
  // Whether nothing wrote between the rows.
  bool intact() const {
    for (int64_t r = 0; r + 1 < rows_; ++r)
      for (const char* p = address(r, cols_); p < address(r + 1, 0); ++p)
        if (*p != static_cast<char>(0x5a)) return false;
    return true;
  }

 private:
  size_t size() const { return dtype_ == IX_BF16 ? 2 : 4; }
  const char* address(int64_t row, int64_t col) const {
    return storage_.data() + (row * stride_ + col) * static_cast<int64_t>(size());
  }

  int32_t dtype_;
  int64_t rows_, cols_, stride_;
  std::vector<char> storage_;
};

// The CPU device with one kernel set.
class KernelDevice {
 public:
  explicit KernelDevice(const cpu::KernelTable* kernels) { device_.kernels = kernels; }
  ix_device* get() { return &device_; }
  const cpu::KernelTable& kernels() const { return *device_.kernels; }

  // Calls an operation and gives its code.
  template <typename Op, typename... Arguments>
  int32_t attempt(Op ix_backend::*operation, Arguments... arguments) {
    ix_status status = {};
    const int32_t code = (implex_cpu_backend()->*operation)(&device_, arguments..., &status);
    if (code != IX_OK)
      CHECK(code == status.code && status.message[0] != '\0', "a failed operation must fill the status");
    message_ = status.message;
    return code;
  }
  template <typename Op, typename... Arguments>
  void call(Op ix_backend::*operation, Arguments... arguments) {
    CHECK(attempt(operation, arguments...) == IX_OK, "%s", message_.c_str());
  }

 private:
  ix_device device_;
  std::string message_;
};

// Runs `body(device)` for every kernel set that this processor has; failures name the set.
template <typename F>
void for_each_kernels(const F& body) {
  for (const cpu::KernelTable* kernels : cpu::available_kernels()) {
    KernelDevice device(kernels);
    try {
      body(device);
    } catch (const Failure& failure) {
      throw Failure{std::string("[") + kernels->name + "] " + failure.message};
    }
  }
}

class Weight {
 public:
  Weight(KernelDevice& device, int32_t dtype, const Matrix& values, bool trainable = false) : device_(device) {
    device.call(&ix_backend::weight_create, dtype, values.rows(), values.cols(), trainable ? 1 : 0, &weight_);
    // In uneven blocks, as a reader delivers them.
    for (int64_t row = 0; row < values.rows();) {
      const int64_t count = std::min<int64_t>(values.rows() - row, 1 + row % 7);
      std::vector<float> block;
      for (int64_t i = 0; i < count * values.cols(); ++i)
        block.push_back(static_cast<float>(values(row + i / values.cols(), i % values.cols())));
      device.call(&ix_backend::weight_write, weight_, row, count, block.data());
      row += count;
    }
  }
  ~Weight() { implex_cpu_backend()->weight_destroy(device_.get(), weight_); }
  Weight(const Weight&) = delete;
  Weight& operator=(const Weight&) = delete;
  const ix_weight* get() const { return weight_; }

 private:
  KernelDevice& device_;
  ix_weight* weight_ = nullptr;
};

class Batch {
 public:
  Batch(KernelDevice& device, const std::vector<ix_segment>& segments) : device_(device) {
    device.call(&ix_backend::batch_create, segments.data(), static_cast<int32_t>(segments.size()), &batch_);
  }
  ~Batch() { implex_cpu_backend()->batch_destroy(device_.get(), batch_); }
  Batch(const Batch&) = delete;
  Batch& operator=(const Batch&) = delete;
  const ix_batch* get() const { return batch_; }

 private:
  KernelDevice& device_;
  ix_batch* batch_ = nullptr;
};

inline std::vector<float> random_vector(Random& random, int64_t n, double low = -1, double high = 1) {
  std::vector<float> values;
  for (int64_t i = 0; i < n; ++i) values.push_back(static_cast<float>(random.uniform(low, high)));
  return values;
}

// FNV-1a.
class Hash {
 public:
  void add(const void* data, size_t bytes) {
    for (size_t i = 0; i < bytes; ++i) value_ = (value_ ^ static_cast<const unsigned char*>(data)[i]) * 0x100000001b3u;
  }
  uint64_t value() const { return value_; }

 private:
  uint64_t value_ = 0xcbf29ce484222325u;
};

// A new folder, removed with its files when this ends.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::string& path() const { return path_; }
  // Writes a file and returns its path.
  std::string write(const std::string& name, const std::string& content) const;

 private:
  std::string path_;
};

// This program again, in a process of its own. `settings`: environment assignments, as "IMPLEX_THREADS=1 ".
struct Run {
  int status = 0;
  std::string output;
};
Run run_again(const std::string& settings, const std::string& argument);

}  // namespace implex::test
