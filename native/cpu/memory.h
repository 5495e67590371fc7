// Host memory for the CPU device: the functions of backend.h's table.
#pragma once

#include "backend.h"

namespace implex::cpu {

int32_t alloc(ix_device* device, size_t bytes, void** memory, ix_status* status);
void release(ix_device* device, void* memory);
int32_t copy(ix_device* device, void* to, const void* from, size_t bytes, ix_status* status);

}  // namespace implex::cpu
