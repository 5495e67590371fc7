// Which kept executable graph a recorded one is written into. Plain C++, tested without a GPU.
#pragma once

#include <cstddef>
#include <cstdint>

namespace implex::cuda {

// Graphs of as many nodes have a slot in common: they are almost always the same operations at other sizes. Where that
// is not so, or a slot changes its number of nodes, the graph in it refuses to be brought up to date and is made anew.
class GraphSlots {
 public:
  // A model has up to three kinds of pieces (first, middle and last layers), for one and for two blocks of the MLP.
  static constexpr int kSlots = 8;

  // The slot of graphs of so many nodes; else the one that was not asked for the longest.
  int take(size_t nodes) {
    int chosen = 0;
    for (int i = 0; i < kSlots; ++i) {
      if (nodes_[i] == nodes) {
        chosen = i;
        break;
      }
      if (taken_[i] < taken_[chosen]) chosen = i;
    }
    nodes_[chosen] = nodes;
    taken_[chosen] = ++clock_;
    return chosen;
  }

 private:
  size_t nodes_[kSlots] = {};
  uint64_t taken_[kSlots] = {};
  uint64_t clock_ = 0;
};

}  // namespace implex::cuda
