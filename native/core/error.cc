// The spelling of the error codes.
#include "core/error.h"

namespace implex {

const char* error_code_name(ErrorCode code) {
  switch (code) {
    case ErrorCode::kConfigInvalid:
      return "ERR_CONFIG_INVALID";
    case ErrorCode::kSafetensorsInvalid:
      return "ERR_SAFETENSORS_INVALID";
    case ErrorCode::kTensorMissing:
      return "ERR_TENSOR_MISSING";
    case ErrorCode::kTensorShape:
      return "ERR_TENSOR_SHAPE";
    case ErrorCode::kTensorDtype:
      return "ERR_TENSOR_DTYPE";
    case ErrorCode::kWeightNotFinite:
      return "ERR_WEIGHT_NOT_FINITE";
    case ErrorCode::kTokenRange:
      return "ERR_TOKEN_RANGE";
    case ErrorCode::kBatchInvalid:
      return "ERR_BATCH_INVALID";
    case ErrorCode::kIo:
      return "ERR_IO";
    case ErrorCode::kDiskFull:
      return "ERR_DISK_FULL";
    case ErrorCode::kNotFinite:
      return "ERR_NOT_FINITE";
    case ErrorCode::kOutOfMemory:
      return "ERR_OUT_OF_MEMORY";
    case ErrorCode::kDeviceUnavailable:
      return "ERR_DEVICE_UNAVAILABLE";
    case ErrorCode::kAborted:
      return "ERR_ABORTED";
    case ErrorCode::kDisposed:
      return "ERR_DISPOSED";
    case ErrorCode::kInternal:
      break;
  }
  return "ERR_INTERNAL";
}

}  // namespace implex
