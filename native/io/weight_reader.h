// WeightReader: the rows of a weight, from a file's byte range to f32.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/cancel.h"
#include "io/file_range.h"
#include "model/spec.h"

namespace implex {

class WeightReader {
 public:
  // Checks the source against the file and itself: byte count = elements × size, range inside the file, row selection
  // inside the shape. Throws Error(kSafetensorsInvalid | kTensorShape | kIo) naming file and tensor.
  struct Shape {
    int64_t rows = 0;  // after the row selection; 1 for a vector
    int64_t cols = 0;
  };
  Shape shape(const WeightSource& source);

  // Calls `take(first_row, count, values)` for blocks of rows in order. Every value is checked to be finite:
  // Error(kWeightNotFinite).
  using Take = std::function<void(int64_t first, int64_t count, const float* values)>;
  void read(const WeightSource& source, const CancelFlag& cancel, const Take& take);

 private:
  const FileRange& file(const std::string& path);

  std::unordered_map<std::string, std::unique_ptr<FileRange>> files_;
  std::vector<char> raw_;
  std::vector<float> values_;
};

}  // namespace implex
