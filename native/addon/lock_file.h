// The export lockFile.
#pragma once

#include "addon/napi_setup.h"

namespace implex::addon {

Napi::Value lock_file(const Napi::CallbackInfo& info);

}  // namespace implex::addon
