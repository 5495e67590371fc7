// Opening and closing a device, and what it is. In the tests an emulated card takes the place of open.cu.
#pragma once

#include "device.h"

namespace implex::cuda {

EntryType<&ix_backend::open> open;
EntryType<&ix_backend::close> close;
EntryType<&ix_backend::describe> describe;

}  // namespace implex::cuda
