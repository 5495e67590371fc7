// Error: the one exception type of the native core. Every failure that input can cause travels as one of these and ends
// as a rejected promise with the same code; nothing in this tree exits, aborts or asserts on input.
#pragma once

#include <stdexcept>
#include <string>

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

class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ErrorCode code() const { return code_; }

 private:
  ErrorCode code_;
};

}  // namespace implex
