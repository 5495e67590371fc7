// The two devices side by side, on the same host memory: the CPU's, which is the specification, and the CUDA module's
// own source on the emulated GPU.
#pragma once

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "../support.h"
#include "backend_loader.h"
#include "core/error.h"

namespace implex::test {

// The module: the CUDA sources compiled for the emulated GPU. IMPLEX_EMULATED_MODULE names another.
inline std::string emulated_module() {
  if (const char* path = std::getenv("IMPLEX_EMULATED_MODULE")) return path;
#if defined(IMPLEX_EMULATED_MODULE)
  return IMPLEX_EMULATED_MODULE;
#else
  SKIP("IMPLEX_EMULATED_MODULE does not say where the module is");
#endif
}
inline const ix_backend* emulated_backend() {
  static const ix_backend* table = load_backend("cuda", emulated_module());
  return table;
}

// A variable of the environment, for as long as this is there: devices read theirs when they are opened.
class Setting {
 public:
  Setting(const char* name, const char* value) : name_(name) { ::setenv(name, value, 1); }
  ~Setting() { ::unsetenv(name_); }
  Setting(const Setting&) = delete;
  Setting& operator=(const Setting&) = delete;

 private:
  const char* name_;
};

class TableDevice {
 public:
  explicit TableDevice(const ix_backend* table) : table_(table) {
    ix_status status = {};
    CHECK(table_->open(&handle_, &status) == IX_OK, "open: %s", status.message);
  }
  ~TableDevice() { table_->close(handle_); }
  TableDevice(const TableDevice&) = delete;
  TableDevice& operator=(const TableDevice&) = delete;

  template <typename Op, typename... Arguments>
  int32_t attempt(Op ix_backend::*operation, Arguments... arguments) {
    ix_status status = {};
    const int32_t code = (table_->*operation)(handle_, arguments..., &status);
    message = status.message;
    return code;
  }
  template <typename Op, typename... Arguments>
  void call(Op ix_backend::*operation, Arguments... arguments) {
    CHECK(attempt(operation, arguments...) == IX_OK, "%s", message.c_str());
  }
  const ix_backend* table() const { return table_; }
  ix_device* handle() const { return handle_; }
  std::string message;

 private:
  const ix_backend* table_;
  ix_device* handle_ = nullptr;
};

// Runs `body(device)` on the CPU and then on the emulated GPU and gives both results.
template <typename F>
auto on_both(const F& body) {
  TableDevice cpu(implex_cpu_backend()), gpu(emulated_backend());
  return std::pair(body(cpu), body(gpu));
}

class TableWeight {
 public:
  TableWeight(TableDevice& device, int32_t dtype, const Matrix& values) : device_(device) {
    device.call(&ix_backend::weight_create, dtype, values.rows(), values.cols(), 1, &weight_);
    std::vector<float> block;
    for (int64_t r = 0; r < values.rows(); ++r)
      for (int64_t c = 0; c < values.cols(); ++c) block.push_back(static_cast<float>(values(r, c)));
    device.call(&ix_backend::weight_write, weight_, int64_t{0}, values.rows(), block.data());
  }
  ~TableWeight() { device_.table()->weight_destroy(device_.handle(), weight_); }
  TableWeight(const TableWeight&) = delete;
  TableWeight& operator=(const TableWeight&) = delete;
  const ix_weight* get() const { return weight_; }

 private:
  TableDevice& device_;
  ix_weight* weight_ = nullptr;
};

class TableBatch {
 public:
  TableBatch(TableDevice& device, const std::vector<ix_segment>& segments) : device_(device) {
    device.call(&ix_backend::batch_create, segments.data(), static_cast<int32_t>(segments.size()), &batch_);
  }
  ~TableBatch() { device_.table()->batch_destroy(device_.handle(), batch_); }
  TableBatch(const TableBatch&) = delete;
  TableBatch& operator=(const TableBatch&) = delete;
  const ix_batch* get() const { return batch_; }

 private:
  TableDevice& device_;
  ix_batch* batch_ = nullptr;
};

// ‖a - b‖ / ‖b‖; not a number where a value is.
inline double distance(const Matrix& a, const Matrix& b) {
  double difference = 0, size = 0;
  for (int64_t r = 0; r < a.rows(); ++r)
    for (int64_t c = 0; c < a.cols(); ++c) {
      difference += (a(r, c) - b(r, c)) * (a(r, c) - b(r, c));
      size += b(r, c) * b(r, c);
    }
  return std::sqrt(difference / (size > 0 ? size : 1));
}
inline double distance(const std::vector<float>& a, const std::vector<float>& b) {
  double difference = 0, size = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double x = static_cast<double>(a[i]), y = static_cast<double>(b[i]);
    difference += (x - y) * (x - y);
    size += y * y;
  }
  return std::sqrt(difference / (size > 0 ? size : 1));
}

// What an operation of `dtype` may differ by from the CPU's: f32 by the order of sums; bf16 by a rounding here and
// there on the way, which is far from what a wrong index does.
inline double allowed(int32_t dtype) { return dtype == IX_F32 ? 3e-6 : 6e-3; }

inline void check_close(const Matrix& got, const Matrix& want, double bound, const std::string& what) {
  const double d = distance(got, want);
  CHECK(d <= bound, "%s: differs by %.3g, allowed %.3g", what.c_str(), d, bound);
  CHECK(got.intact(), "%s: wrote between rows", what.c_str());
}
inline void check_close(const std::vector<float>& got, const std::vector<float>& want, double bound,
                        const std::string& what) {
  const double d = distance(got, want);
  CHECK(d <= bound, "%s: differs by %.3g, allowed %.3g", what.c_str(), d, bound);
}

}  // namespace implex::test
