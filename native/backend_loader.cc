// Loading of device modules. Nothing of a table is used before its version and size are known to be ours.
#include "backend_loader.h"

#include <dlfcn.h>

#include "core/error.h"
#include "cpu/device.h"

namespace implex {

const ix_backend* load_backend(const std::string& name, const std::string& path) {
  if (name == "cpu" && path.empty()) return implex_cpu_backend();
  if (path.empty())
    throw Error(ErrorCode::kDeviceUnavailable,
                "device \"" + name + "\" needs its module, and no path to one was given");
  void* module = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (module == nullptr) {
    const char* reason = dlerror();
    throw Error(ErrorCode::kDeviceUnavailable,
                "cannot load the device module " + path + ": " + (reason ? reason : "no reason given"));
  }
  const auto entry = reinterpret_cast<ix_backend_entry>(dlsym(module, IMPLEX_BACKEND_SYMBOL));
  const ix_backend* table = entry == nullptr ? nullptr : entry();
  std::string problem;
  if (table == nullptr) {
    problem = "exports no " IMPLEX_BACKEND_SYMBOL;
  } else if (table->version != IMPLEX_BACKEND_VERSION || table->size != sizeof(ix_backend)) {
    problem = "implements version " + std::to_string(table->version) + " of the device interface (a table of " +
              std::to_string(table->size) + " bytes), this build needs version " +
              std::to_string(IMPLEX_BACKEND_VERSION) + " (" + std::to_string(sizeof(ix_backend)) +
              " bytes); rebuild it";
  } else if (!name.empty() && name != table->name) {
    problem = std::string("is a module for device \"") + table->name + "\", not \"" + name + "\"";
  }
  if (!problem.empty()) {
    dlclose(module);
    throw Error(ErrorCode::kDeviceUnavailable, "the device module " + path + " " + problem);
  }
  return table;
}

}  // namespace implex
