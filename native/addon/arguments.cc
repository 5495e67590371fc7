// Checked reads of JavaScript values.
#include "addon/arguments.h"

#include <cmath>
#include <cstdio>
#include <iterator>

namespace implex::addon {

namespace {

// One short line that shows a value of any kind without running code of its own.
std::string describe(const Napi::Value& value) {
  switch (value.Type()) {
    case napi_undefined:
      return "undefined";
    case napi_null:
      return "null";
    case napi_boolean:
    case napi_number:
      return value.ToString().Utf8Value();
    case napi_bigint:
      return "a bigint";
    case napi_string: {
      const std::string text = value.As<Napi::String>().Utf8Value();
      // Cutting may split a character; replacing the split one is V8's business.
      return '"' + (text.size() > 60 ? text.substr(0, 57) + "..." : text) + '"';
    }
    case napi_symbol:
      return "a symbol";
    case napi_function:
      return "a function";
    default:
      break;
  }
  if (value.IsArray()) return "an array of length " + std::to_string(value.As<Napi::Array>().Length());
  if (value.IsTypedArray()) {
    static constexpr const char* kNames[] = {
        "an Int8Array",  "a Uint8Array",   "a Uint8ClampedArray", "an Int16Array",   "a Uint16Array",   "an Int32Array",
        "a Uint32Array", "a Float32Array", "a Float64Array",      "a BigInt64Array", "a BigUint64Array"};
    const auto type = static_cast<size_t>(value.As<Napi::TypedArray>().TypedArrayType());
    return type < std::size(kNames) ? kNames[type] : "a typed array";
  }
  return "an object";
}

template <typename ErrorType>
[[noreturn]] void throw_coded(const char* code, const std::string& name, const std::string& expected,
                              const Napi::Value& actual) {
  const Napi::Env env = actual.Env();
  ErrorType error = ErrorType::New(env, '"' + name + "\" must be " + expected + "; got " + describe(actual));
  error.Set("code", Napi::String::New(env, code));
  throw error;
}

template <typename T>
std::vector<T> read_typed_array(const std::string& name, const Napi::Value& value, napi_typedarray_type type,
                                const char* expected) {
  if (!value.IsTypedArray()) throw_invalid_argument(name, expected, value);
  const auto array = value.As<Napi::TypedArray>();
  if (array.TypedArrayType() != type) throw_invalid_argument(name, expected, value);
  const Napi::ArrayBuffer buffer = array.ArrayBuffer();
  if (!buffer.IsArrayBuffer()) {
    throw_invalid_argument(name, std::string(expected) + " over an ArrayBuffer that is not shared", value);
  }
  if (buffer.IsDetached()) {
    throw_invalid_argument(name, std::string(expected) + " over an ArrayBuffer that is not detached", value);
  }
  const Napi::TypedArrayOf<T> view(value.Env(), value);
  const size_t length = view.ElementLength();
  if (length == 0) return {};
  return std::vector<T>(view.Data(), view.Data() + length);  // Data() is past the view's byteOffset already
}

}  // namespace

void throw_invalid_argument(const std::string& name, const std::string& expected, const Napi::Value& actual) {
  throw_coded<Napi::TypeError>("ERR_INVALID_ARG_TYPE", name, expected, actual);
}

void throw_out_of_range(const std::string& name, const std::string& expected, const Napi::Value& actual) {
  throw_coded<Napi::RangeError>("ERR_OUT_OF_RANGE", name, expected, actual);
}

Napi::Object read_object(const std::string& name, const Napi::Value& value) {
  if (!value.IsObject() || value.IsArray() || value.IsFunction()) throw_invalid_argument(name, "an object", value);
  return value.As<Napi::Object>();
}

std::string read_string(const std::string& name, const Napi::Value& value) {
  if (!value.IsString()) throw_invalid_argument(name, "a string", value);
  return value.As<Napi::String>().Utf8Value();
}

std::string read_path(const std::string& name, const Napi::Value& value) {
  std::string path = read_string(name, value);
  if (path.empty() || path.find('\0') != std::string::npos)
    throw_out_of_range(name, "a path that is not empty and has no NUL", value);
  return path;
}

bool read_boolean(const std::string& name, const Napi::Value& value) {
  if (!value.IsBoolean()) throw_invalid_argument(name, "true or false", value);
  return value.As<Napi::Boolean>().Value();
}

double read_finite(const std::string& name, const Napi::Value& value) {
  if (!value.IsNumber()) throw_invalid_argument(name, "a number", value);
  const double number = value.As<Napi::Number>().DoubleValue();
  if (!std::isfinite(number)) throw_out_of_range(name, "a finite number", value);
  return number;
}

double read_number(const std::string& name, const Napi::Value& value, double min, double max) {
  if (!value.IsNumber()) throw_invalid_argument(name, "a number", value);
  const double number = value.As<Napi::Number>().DoubleValue();
  if (!(number >= min && number <= max)) {  // NaN too
    char bounds[80];
    std::snprintf(bounds, sizeof bounds, "a number from %g to %g", min, max);
    throw_out_of_range(name, bounds, value);
  }
  return number;
}

int64_t read_integer(const std::string& name, const Napi::Value& value, int64_t min, int64_t max) {
  if (!value.IsNumber()) throw_invalid_argument(name, "an integer", value);
  const double number = value.As<Napi::Number>().DoubleValue();
  // The comparisons fail on NaN, and the bounds are exact doubles.
  if (!(number >= static_cast<double>(min) && number <= static_cast<double>(max)) || std::trunc(number) != number) {
    throw_out_of_range(name, "an integer from " + std::to_string(min) + " to " + std::to_string(max), value);
  }
  return static_cast<int64_t>(number);
}

Napi::Array read_array(const std::string& name, const Napi::Value& value) {
  if (!value.IsArray()) throw_invalid_argument(name, "an array", value);
  return value.As<Napi::Array>();
}

std::vector<int32_t> read_int32_array(const std::string& name, const Napi::Value& value) {
  return read_typed_array<int32_t>(name, value, napi_int32_array, "an Int32Array");
}

std::vector<float> read_float32_array(const std::string& name, const Napi::Value& value) {
  return read_typed_array<float>(name, value, napi_float32_array, "a Float32Array");
}

std::vector<double> read_float64_array(const std::string& name, const Napi::Value& value) {
  return read_typed_array<double>(name, value, napi_float64_array, "a Float64Array");
}

}  // namespace implex::addon
