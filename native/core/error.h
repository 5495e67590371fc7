// Error: the one exception type of the native core. Every failure that input can cause travels as one of these and ends
// as a rejected promise with the same code; nothing in this tree exits, aborts or asserts on input.
#pragma once

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

namespace implex {

// Stable codes, spelled as users see them (lib/core/errors.ts holds the same list).
enum class ErrorCode {
  kConfigInvalid,
  kSafetensorsInvalid,
  kTensorMissing,
  kTensorShape,
  kTensorDtype,
  kWeightNotFinite,
  kNotFinite,  // a loss, gradient or parameter during training
  kTokenRange,
  kBatchInvalid,
  kIo,
  kDiskFull,
  kOutOfMemory,
  kDeviceUnavailable,
  kAborted,
  kDisposed,
  kInternal,
};

const char* error_code_name(ErrorCode code);

// What an error is about, where that is known: properties of the JavaScript error under the same names, so that no
// caller has to read a message.
struct ErrorFields {
  std::optional<int64_t> pair = {};  // of the micro-batch, counted from 0
  std::optional<int64_t> step = {};  // optimizer step, counted from 1
  std::string parameter = {};        // role, as in WeightSource
  std::string tensor = {};           // its name in the file, or an activation in words
};

class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message, ErrorFields fields = {})
      : std::runtime_error(message), code_(code), fields_(std::move(fields)) {}
  ErrorCode code() const { return code_; }
  const ErrorFields& fields() const { return fields_; }

 private:
  ErrorCode code_;
  ErrorFields fields_;
};

}  // namespace implex
