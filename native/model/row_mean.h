// RowMean: the mean of a matrix's rows, which added rows of an embedding begin as. Sums in double, in the order of the
// rows.
#pragma once

#include <cstdint>
#include <vector>

namespace implex {

class RowMean {
 public:
  explicit RowMean(int64_t cols) : sum_(static_cast<size_t>(cols)) {}

  void add(int64_t rows, const float* values) {
    rows_ += rows;
    for (int64_t row = 0; row < rows; ++row)
      for (size_t i = 0; i < sum_.size(); ++i) sum_[i] += static_cast<double>(*values++);
  }

  std::vector<float> mean() const {
    std::vector<float> mean(sum_.size());
    for (size_t i = 0; i < sum_.size(); ++i) mean[i] = static_cast<float>(sum_[i] / static_cast<double>(rows_));
    return mean;
  }

 private:
  std::vector<double> sum_;
  int64_t rows_ = 0;
};

}  // namespace implex
