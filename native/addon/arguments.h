// Reading JavaScript values that nobody has checked. A wrong type throws a TypeError, a value out of range a
// RangeError; both name the field and carry the codes and wording of lib/core/arguments.ts. Everything read is copied.
//
// Property reads can run JavaScript (getters, proxies), so no pointer into a JavaScript buffer is held across one.
#pragma once

#include <array>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include "addon/napi_setup.h"

namespace implex::addon {

constexpr int64_t kMaxSafeInteger = (int64_t{1} << 53) - 1;
constexpr double kMostFloat = 3e38;  // a round number below the largest f32

// `expected` reads after "must be".
[[noreturn]] void throw_invalid_argument(const std::string& name, const std::string& expected,
                                         const Napi::Value& actual);
[[noreturn]] void throw_out_of_range(const std::string& name, const std::string& expected, const Napi::Value& actual);

Napi::Object read_object(const std::string& name, const Napi::Value& value);
std::string read_string(const std::string& name, const Napi::Value& value);
// A string without NUL: the system would silently open the part before it.
std::string read_path(const std::string& name, const Napi::Value& value);
bool read_boolean(const std::string& name, const Napi::Value& value);
double read_finite(const std::string& name, const Napi::Value& value);
double read_number(const std::string& name, const Napi::Value& value, double min, double max);
int64_t read_integer(const std::string& name, const Napi::Value& value, int64_t min = 0, int64_t max = kMaxSafeInteger);
Napi::Array read_array(const std::string& name, const Napi::Value& value);

// Typed arrays of exactly this kind, views (subarray) included. SharedArrayBuffers are refused, since another thread
// may be writing; detached buffers too, since they read as empty.
std::vector<int32_t> read_int32_array(const std::string& name, const Napi::Value& value);
std::vector<float> read_float32_array(const std::string& name, const Napi::Value& value);
std::vector<double> read_float64_array(const std::string& name, const Napi::Value& value);

// Not undefined and not null.
inline bool given(const Napi::Value& value) { return !value.IsUndefined() && !value.IsNull(); }

template <typename T>
using Choices = std::initializer_list<std::pair<const char*, T>>;

template <typename T>
T read_choice(const std::string& name, const Napi::Value& value, Choices<T> choices) {
  std::string expected = "one of";
  for (const auto& [spelling, unused] : choices) {
    expected += (expected.back() == '"' ? ", \"" : " \"") + std::string(spelling) + '"';
  }
  if (!value.IsString()) throw_invalid_argument(name, expected, value);
  const std::string text = value.As<Napi::String>().Utf8Value();
  for (const auto& [spelling, result] : choices) {
    if (text == spelling) return result;
  }
  throw_out_of_range(name, expected, value);
}

// An object and the path by which messages call it: `fields.string("role")` reads `<path>.role`.
class Fields {
 public:
  Fields(std::string path, const Napi::Value& value) : path_(std::move(path)), object_(read_object(path_, value)) {}

  std::string name(const char* field) const { return path_ + '.' + field; }
  Napi::Value get(const char* field) const { return object_.Get(field); }

  std::string string(const char* field) const { return read_string(name(field), get(field)); }
  std::string path(const char* field) const { return read_path(name(field), get(field)); }
  bool boolean(const char* field) const { return read_boolean(name(field), get(field)); }
  double finite(const char* field) const { return read_finite(name(field), get(field)); }
  double number(const char* field, double min, double max) const {
    return read_number(name(field), get(field), min, max);
  }
  int64_t integer(const char* field, int64_t min = 0, int64_t max = kMaxSafeInteger) const {
    return read_integer(name(field), get(field), min, max);
  }
  std::vector<int32_t> int32_array(const char* field) const { return read_int32_array(name(field), get(field)); }
  template <typename T>
  T choice(const char* field, Choices<T> choices) const {
    return read_choice<T>(name(field), get(field), choices);
  }

 private:
  std::string path_;
  Napi::Object object_;
};

}  // namespace implex::addon
