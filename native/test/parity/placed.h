// Operands on a device: matrices with their gaps and a guard behind them, weights, batches.
#pragma once

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "parity/parity.h"

namespace implex::test {

// Matrices with elements between their rows, in the layout that has them.
inline int64_t gap(int64_t elements) {
  if (elements == 0 || layout() == Layout::kDense) return 0;
  return layout() == Layout::kAligned ? 8 : elements;
}
inline Matrix random_matrix(Random& random, int32_t dtype, int64_t rows, int64_t cols, double scale = 1,
                            int64_t between = 0) {
  return Matrix::random(random, dtype, rows, cols, scale, gap(between));
}

// Every element NaN: what an operation leaves out shows.
inline Matrix poisoned(int32_t dtype, int64_t rows, int64_t cols, int64_t between = 0) {
  Matrix m(dtype, rows, cols, gap(between));
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c) m.set(r, c, std::numeric_limits<double>::quiet_NaN());
  return m;
}

// Rows of a matrix, in any order and with repeats.
inline Matrix pick(const Matrix& from, const std::vector<int32_t>& rows) {
  Matrix m(from.dtype(), static_cast<int64_t>(rows.size()), from.cols(), from.stride() - from.cols());
  for (size_t i = 0; i < rows.size(); ++i)
    for (int64_t c = 0; c < from.cols(); ++c) m.set(static_cast<int64_t>(i), c, from(rows[i], c));
  return m;
}

inline std::vector<int32_t> pick(const std::vector<int32_t>& from, const std::vector<int32_t>& rows) {
  std::vector<int32_t> out;
  for (const int32_t row : rows) out.push_back(from[static_cast<size_t>(row)]);
  return out;
}

// A column of f32: what the table calls a device array of floats, so that row i is element i.
inline Matrix column(Random& random, int64_t rows, double scale = 1, double shift = 0) {
  Matrix m(IX_F32, rows, 1);
  for (int64_t r = 0; r < rows; ++r) m.set(r, 0, shift + random.uniform(-scale, scale));
  return m;
}

inline std::vector<int32_t> random_ids(Random& random, int64_t count, int64_t below) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < count; ++i) ids.push_back(static_cast<int32_t>(random.below(below)));
  return ids;
}

// A copy of a host matrix on a device.
class Placed {
 public:
  Placed(Device& device, const Matrix& values)
      : device_(device), values_(values), buffer_(device, values.bytes().size() + kGuard) {
    std::vector<char> bytes = values.bytes();
    bytes.resize(bytes.size() + kGuard, static_cast<char>(0x5a));
    device.call(&ix_backend::upload, buffer_.data(), bytes.data(), bytes.size());
    mat_ = {buffer_.data(), values.dtype(), values.rows(), values.cols(), values.stride()};
  }

  const ix_mat* mat() const { return &mat_; }
  float* floats() const { return buffer_.as<float>(); }
  const float* const_floats() const { return buffer_.as<float>(); }
  // What is there now.
  Matrix read() const {
    std::vector<char> bytes(buffer_.bytes());
    device_.call(&ix_backend::download, bytes.data(), buffer_.data(), bytes.size());
    for (size_t i = bytes.size() - kGuard; i < bytes.size(); ++i)
      CHECK(bytes[i] == static_cast<char>(0x5a), "something wrote behind the last row");
    Matrix m = values_;
    bytes.resize(bytes.size() - kGuard);
    m.bytes() = bytes;
    return m;
  }

 private:
  static constexpr size_t kGuard = 256;
  Device& device_;
  const Matrix& values_;
  DeviceBuffer buffer_;
  ix_mat mat_;
};

// An output of its own, poisoned.
class Result {
 public:
  Result(Device& device, int32_t dtype, int64_t rows, int64_t cols, int64_t between = 0)
      : values_(poisoned(dtype, rows, cols, between)), placed_(device, values_) {}
  const ix_mat* mat() const { return placed_.mat(); }
  float* floats() const { return placed_.floats(); }
  const float* const_floats() const { return placed_.const_floats(); }
  Matrix read() const { return placed_.read(); }

 private:
  Matrix values_;
  Placed placed_;
};

class Ids {
 public:
  Ids(Device& device, const std::vector<int32_t>& ids) : buffer_(DeviceBuffer::of(device, ids)) {}
  const int32_t* get() const { return buffer_.as<int32_t>(); }

 private:
  DeviceBuffer buffer_;
};

// A weight in the device's layout, written in uneven blocks as a reader delivers them.
class PlacedWeight {
 public:
  PlacedWeight(Device& device, const Matrix& values, bool trainable = false)
      : weight_(device, static_cast<DType>(values.dtype()), values.rows(), values.cols(), trainable) {
    for (int64_t row = 0; row < values.rows();) {
      const int64_t count = std::min<int64_t>(values.rows() - row, 1 + row % 997);
      std::vector<float> block;
      for (int64_t i = 0; i < count * values.cols(); ++i)
        block.push_back(static_cast<float>(values(row + i / values.cols(), i % values.cols())));
      weight_.write(row, count, block.data());
      row += count;
    }
  }
  const ix_weight* get() const { return weight_.get(); }
  ix_weight* get_mutable() const { return weight_.get(); }
  size_t bytes() const { return weight_.bytes(); }

 private:
  DeviceWeight weight_;
};

// Null where nothing is wanted.
inline const ix_mat* none() { return nullptr; }
inline const int32_t* no_rows() { return nullptr; }

}  // namespace implex::test
