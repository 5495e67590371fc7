// EntryType: the type of the function that an entry of a table points to. `EntryType<&ix_backend::gemm> gemm;` declares
// gemm, so that a signature is written once, in the table. Types only: kernels include it (see cpu/kernels/table.h).
#pragma once

namespace implex {

template <typename Entry>
struct EntryTypeOf;
template <typename Table, typename Function>
struct EntryTypeOf<Function * Table::*> {
  typedef Function type;
};

template <auto entry>
using EntryType = typename EntryTypeOf<decltype(entry)>::type;

}  // namespace implex
