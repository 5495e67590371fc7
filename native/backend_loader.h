// Finds the table of a compute device: the CPU's, linked in, or one exported by a shared library that is loaded on
// demand.
#pragma once

#include <string>

#include "backend.h"

namespace implex {

// `name` is "cpu" or the name that the module at `path` must report. Throws Error(kDeviceUnavailable) with the reason:
// no path, cannot be loaded (with the loader's own words), no entry point, another version, another device. A loaded
// module stays loaded.
const ix_backend* load_backend(const std::string& name, const std::string& path);

}  // namespace implex
