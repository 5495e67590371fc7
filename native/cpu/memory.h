// Host memory for the CPU device: the functions of backend.h's table.
#pragma once

#include "backend.h"
#include "core/entry_type.h"

namespace implex::cpu {

EntryType<&ix_backend::alloc> alloc;
EntryType<&ix_backend::release> release;
EntryType<&ix_backend::upload> copy;  // and download: both ends are host memory

}  // namespace implex::cpu
