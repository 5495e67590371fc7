// Opening and closing a device, and what it is. In the tests an emulated card takes the place of open.cu.
#pragma once

#include "device.h"

namespace implex::cuda {

int32_t open(ix_device** device, ix_status* status);
void close(ix_device* device);
int32_t describe(ix_device* device, char* description, size_t description_size, char* kernels, size_t kernels_size,
                 ix_status* status);

}  // namespace implex::cuda
