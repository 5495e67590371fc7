// Comparisons.
#include "parity/parity.h"

#include <cmath>

namespace implex::test {

std::vector<ParityCase>& parity_cases() {
  static std::vector<ParityCase> all;
  return all;
}

namespace {

Layout current = Layout::kGaps;

double spread_of(const Matrix& m) {
  double squares = 0;
  for (int64_t r = 0; r < m.rows(); ++r)
    for (int64_t c = 0; c < m.cols(); ++c) squares += m(r, c) * m(r, c);
  const double count = static_cast<double>(m.rows() * m.cols());
  return count == 0 ? 0 : std::sqrt(squares / count);
}

// The largest |got - want| / allowed; fails where that is above 1 or not a number.
double compare(const std::string& what, Tolerance tolerance, const Matrix& want, const Matrix& got) {
  CHECK(want.rows() == got.rows() && want.cols() == got.cols(), "%s: a harness's fault: shapes differ", what.c_str());
  const double scale = std::max(spread_of(want), tolerance.floor);
  double worst = 0;
  for (int64_t r = 0; r < want.rows(); ++r) {
    for (int64_t c = 0; c < want.cols(); ++c) {
      const double w = want(r, c);
      const double g = got(r, c);
      CHECK(!std::isnan(g), "%s: element [%lld, %lld] is NaN or was not written", what.c_str(), (long long)r,
            (long long)c);
      const double difference = std::fabs(g - w);
      const double allowed = tolerance.relative * std::max(std::fabs(w), scale);
      CHECK(difference <= allowed, "%s: element [%lld, %lld] is %.9g, want %.9g within %.3g", what.c_str(),
            (long long)r, (long long)c, g, w, allowed);
      if (difference > 0) worst = std::max(worst, difference / allowed);
    }
  }
  return worst;
}

void same_bits(const std::string& what, const Matrix& a, const Matrix& b, int64_t row_a, int64_t row_b) {
  CHECK(a.same_row(row_a, b, row_b), "%s: row %lld has other bits", what.c_str(), (long long)row_b);
}

}  // namespace

Layout layout() { return current; }

void run_case(const ParityCase& item, Lab& lab) {
  for (const Layout which : {Layout::kGaps, Layout::kAligned, Layout::kDense}) {
    current = which;
    try {
      item.run(lab);
    } catch (const Failure& failure) {
      constexpr const char* kNames[] = {"rows with gaps", "rows with aligned gaps", "dense rows"};
      throw Failure{failure.message + " (" + kNames[static_cast<size_t>(which)] + ")"};
    }
  }
}

void Lab::check(const std::string& what, Tolerance tolerance, const Run& run) {
  const Outputs want = run(reference_);
  const Outputs got = run(subject_);
  const Outputs again = run(subject_);
  CHECK(want.size() == got.size(), "%s: a harness's fault", what.c_str());
  for (size_t i = 0; i < got.size(); ++i) {
    const std::string name = what + ", " + got[i].name;
    CHECK(got[i].values.intact(), "%s: something wrote between the rows", name.c_str());
    worst_ = std::max(worst_, compare(name, tolerance, want[i].values, got[i].values));
    for (int64_t r = 0; r < got[i].values.rows(); ++r)
      same_bits(name + ", second run", got[i].values, again[i].values, r, r);
  }
  ++checks_;
}

void Lab::check_rows(const std::string& what, int64_t rows, const RunRows& run) {
  std::vector<int32_t> all;
  for (int64_t i = 0; i < rows; ++i) all.push_back(static_cast<int32_t>(i));
  const Outputs whole = run(subject_, all);
  const auto part = [&](int64_t first, int64_t count) {
    return std::vector<int32_t>(all.begin() + first, all.begin() + first + count);
  };
  std::vector<std::vector<int32_t>> subsets = {
      part(0, 1), part(rows - 1, 1), part(rows / 2, 1), {all.rbegin(), all.rend()}};
  for (const int64_t count : {2, 17, 64, 129}) {
    if (count < rows) subsets.push_back(part(rows - count, count));
  }
  subsets.push_back(part(1, rows - 1));
  for (const std::vector<int32_t>& subset : subsets) {
    const Outputs some = run(subject_, subset);
    for (size_t o = 0; o < some.size(); ++o)
      for (size_t i = 0; i < subset.size(); ++i)
        same_bits(what + ", " + some[o].name + ", " + std::to_string(subset.size()) + " rows", some[o].values,
                  whole[o].values, static_cast<int64_t>(i), subset[i]);
  }
  ++checks_;
}

}  // namespace implex::test
