// OpProfile: seconds spent in each operation of a device's table, summed over the process while switched on.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace implex {

class OpProfile {
 public:
  struct Entry {
    std::string name;  // of the operation in backend.h
    int64_t calls = 0;
    double seconds = 0;
  };

  static bool on();
  // Zeroes all sums and switches on. One profile at a time: a second start() begins anew.
  static void start();
  // Switches off. Operations that were called, the longest first.
  static std::vector<Entry> stop();

  // offset: of the operation's pointer in ix_backend.
  static void add(size_t offset, double seconds);
};

}  // namespace implex
