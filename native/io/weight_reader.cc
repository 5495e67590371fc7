// Reading and widening of weights.
#include "io/weight_reader.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace implex {

namespace {

constexpr int64_t kMaxElements = int64_t{1} << 40;
constexpr int64_t kBlockElements = int64_t{1} << 20;

// An error that begins with the tensor and its file.
Error error_in(const WeightSource& s, ErrorCode code, const std::string& what) {
  return Error(code, "tensor " + s.tensor + " in " + s.file + what, {.parameter = s.role, .tensor = s.tensor});
}

}  // namespace

const FileRange& WeightReader::file(const std::string& path) {
  auto& slot = files_[path];
  if (!slot) slot = std::make_unique<FileRange>(path);
  return *slot;
}

WeightReader::Shape WeightReader::shape(const WeightSource& s) {
  if (s.dtype == DType::kI32) throw error_in(s, ErrorCode::kTensorDtype, " is not f32, f16 or bf16");
  if (s.shape.empty() || s.shape.size() > 2)
    throw error_in(s, ErrorCode::kTensorShape, " must have one or two dimensions");
  for (const int64_t n : s.shape)
    if (n <= 0 || n > kMaxElements)
      throw error_in(s, ErrorCode::kTensorShape, " has a dimension of " + std::to_string(n));
  const int64_t rows = s.shape.size() == 2 ? s.shape[0] : 1;
  const int64_t cols = s.shape.back();
  if (rows > kMaxElements / cols ||
      s.bytes != static_cast<uint64_t>(rows) * static_cast<uint64_t>(cols) * dtype_size(s.dtype))
    throw error_in(s, ErrorCode::kSafetensorsInvalid,
                   " has " + std::to_string(s.bytes) + " bytes, which its shape and dtype do not make");
  const uint64_t size = file(s.file).size();
  if (s.offset > size || s.bytes > size - s.offset)
    throw error_in(s, ErrorCode::kSafetensorsInvalid, " ends past the end of the file: it is truncated");
  if (!s.has_selection) return {rows, cols};
  const RowSelection& r = s.selection;
  // A selected vector (a fused bias) is a column of single elements.
  const int64_t height = s.shape.size() == 2 ? rows : cols;
  if (r.start < 0 || r.block <= 0 || r.stride <= 0 || r.start > r.stride - r.block || height % r.stride != 0)
    throw error_in(s, ErrorCode::kTensorShape, ": the selected rows lie outside it");
  const int64_t selected = height / r.stride * r.block;
  return s.shape.size() == 2 ? Shape{selected, cols} : Shape{1, selected};
}

void WeightReader::read(const WeightSource& s, const CancelFlag& cancel, const Take& take) {
  const Shape out = shape(s);
  const FileRange& from = file(s.file);
  const int64_t element = static_cast<int64_t>(dtype_size(s.dtype));
  const bool vector = s.shape.size() == 1;
  // A "row" below is the unit that a selection picks: a row of a matrix, an element of a vector.
  const int64_t width = vector ? 1 : out.cols;
  const int64_t count = vector ? out.cols : out.rows;
  const int64_t block = s.has_selection ? s.selection.block : count;
  const int64_t most = std::max<int64_t>(1, kBlockElements / width);
  std::vector<float> whole_vector(vector ? static_cast<size_t>(count) : 0);
  for (int64_t done = 0; done < count;) {
    cancel.check();
    const int64_t in_block = done % block;
    const int64_t rows = std::min(most, block - in_block);
    const int64_t source_row =
        s.has_selection ? s.selection.start + done / block * s.selection.stride + in_block : done;
    const int64_t n = rows * width;
    raw_.resize(static_cast<size_t>(n * element));
    values_.resize(static_cast<size_t>(n));
    from.read(s.offset + static_cast<uint64_t>(source_row * width * element), raw_.data(), raw_.size());
    if (s.dtype == DType::kF32) {
      std::memcpy(values_.data(), raw_.data(), raw_.size());
    } else {
      const auto* half = reinterpret_cast<const uint16_t*>(raw_.data());
      for (int64_t i = 0; i < n; ++i)
        values_[static_cast<size_t>(i)] = s.dtype == DType::kBf16 ? bf16_to_f32(half[i]) : f16_to_f32(half[i]);
    }
    for (int64_t i = 0; i < n; ++i) {
      if (!std::isfinite(values_[static_cast<size_t>(i)]))
        throw error_in(s, ErrorCode::kWeightNotFinite,
                       " holds a value that is not finite (element " + std::to_string(source_row * width + i) +
                           "): the checkpoint is damaged or a run diverged");
    }
    if (vector) {
      std::memcpy(&whole_vector[static_cast<size_t>(done)], values_.data(), static_cast<size_t>(n) * sizeof(float));
    } else {
      take(done, rows, values_.data());
    }
    done += rows;
  }
  if (vector) take(0, 1, whole_vector.data());
}

}  // namespace implex
