// Fibers, barriers and deferred work of the emulated GPU.
#include "emulator.h"

#include <setjmp.h>
#include <ucontext.h>

#include <cstdio>
#include <deque>
#include <memory>
#include <mutex>

namespace emulated {

namespace {

constexpr size_t kStack = 256 << 10;

struct Rendezvous {
  int arrived = 0;
  uint64_t generation = 0;
  bool any = false, last_any = false;
};

struct Warp {
  Rendezvous meet;
  int alive = 0;
  alignas(16) unsigned char values[32][128];
};

struct Block {
  dim3 index;
  int rank = 0;
  int alive = 0;
  Rendezvous meet;
  std::vector<Warp> warps;
  unsigned char* shared = nullptr;
};

struct Group {
  std::vector<std::function<void()>> work;
};

struct Fiber {
  ucontext_t start;
  jmp_buf at;
  std::unique_ptr<char[]> stack;
  bool started = false, done = false;
  const char* waits = "";
  Position position;
  Block* block = nullptr;
  Warp* warp = nullptr;
  int lane = 0;
  std::vector<std::function<void()>> open[2];
  std::deque<Group> groups[2];
};

struct Cluster {
  std::vector<Block> blocks;
  Rendezvous meet;
  int alive = 0;
};

Fiber* current = nullptr;
Cluster* cluster = nullptr;
jmp_buf scheduler;
const std::function<void()>* body = nullptr;
uint64_t steps = 0;  // grows whenever something happens that another fiber may wait for
size_t shared_bytes = 0;

void yield(const char* why) {
  current->waits = why;
  if (_setjmp(current->at) == 0) _longjmp(scheduler, 1);
}

void entry() {
  (*body)();
  current->done = true;
  _longjmp(scheduler, 1);
}

template <typename F>
void meet(Rendezvous& r, const int& alive, const char* why, const F& last) {
  ++steps;
  const uint64_t generation = r.generation;
  if (++r.arrived >= alive) {
    last();
    r.arrived = 0;
    ++r.generation;
    return;
  }
  while (r.generation == generation) {
    // Others may have ended since.
    if (r.arrived >= alive) {
      last();
      r.arrived = 0;
      ++r.generation;
      ++steps;
      return;
    }
    yield(why);
  }
}

[[noreturn]] void deadlock(const std::vector<Fiber>& fibers) {
  std::fprintf(stderr, "emulated GPU: no fiber can go on\n");
  for (const Fiber& f : fibers)
    if (!f.done && f.lane == 0)
      std::fprintf(stderr, "  block %u,%u,%u thread %u waits for %s\n", f.position.block.x, f.position.block.y,
                   f.position.block.z, f.position.thread.x, f.waits);
  std::abort();
}

// Runs a fiber until it yields or ends. A function of its own, so that no variable lives in a register across setjmp.
__attribute__((noinline)) void resume(Fiber& f) {
  current = &f;
  if (_setjmp(scheduler) == 0) {
    if (f.started) _longjmp(f.at, 1);
    f.started = true;
    setcontext(&f.start);
  }
}

__attribute__((noinline)) void prepare(Fiber& f) {
  getcontext(&f.start);
  f.start.uc_stack.ss_sp = f.stack.get();
  f.start.uc_stack.ss_size = kStack;
  f.start.uc_link = nullptr;
  makecontext(&f.start, entry, 0);
}

void run_cluster(Cluster& c, std::vector<Fiber>& fibers) {
  cluster = &c;
  size_t left = fibers.size();
  while (left > 0) {
    const uint64_t before = steps;
    for (Fiber& f : fibers) {
      if (f.done) continue;
      resume(f);
      if (f.done) {
        ++steps;
        --left;
        --f.block->alive;
        --f.warp->alive;
        --c.alive;
      }
    }
    if (steps == before) deadlock(fibers);
  }
}

}  // namespace

const Position& here() { return current->position; }
unsigned char* shared_memory() { return current->block->shared; }
size_t shared_memory_size() { return shared_bytes; }
int block_rank() { return current->block->rank; }
void* in_block(void* memory, int rank) {
  return cluster->blocks[static_cast<size_t>(rank)].shared + (static_cast<unsigned char*>(memory) - shared_memory());
}

void block_barrier() {
  meet(current->block->meet, current->block->alive, "__syncthreads", [] {});
}

bool block_any(bool value) {
  Rendezvous& r = current->block->meet;
  r.any = r.any || value;
  meet(r, current->block->alive, "__syncthreads_or", [&] {
    r.last_any = r.any;
    r.any = false;
  });
  return r.last_any;
}

void cluster_barrier() {
  meet(cluster->meet, cluster->alive, "the cluster's barrier", [] {});
}

void warp_exchange(const void* value, size_t size, void* all) {
  Warp& w = *current->warp;
  std::memcpy(w.values[current->lane], value, size);
  meet(w.meet, w.alive, "its warp", [] {});
  for (size_t i = 0; i < 32; ++i) std::memcpy(static_cast<char*>(all) + i * size, w.values[i], size);
  meet(w.meet, w.alive, "its warp", [] {});
}

void pause(const char* why) { yield(why); }
void progress() { ++steps; }

void defer(int kind, std::function<void()> work) { current->open[kind].push_back(std::move(work)); }
void commit(int kind) {
  current->groups[kind].push_back({std::move(current->open[kind])});
  current->open[kind].clear();
}
void wait_groups(int kind, int pending) {
  auto& groups = current->groups[kind];
  while (groups.size() > static_cast<size_t>(pending)) {
    for (const auto& work : groups.front().work) work();
    groups.pop_front();
  }
}

void run(dim3 grid, dim3 block, int cluster_size, size_t shared, const std::function<void()>& kernel) {
  static std::mutex one_at_a_time;
  const std::lock_guard<std::mutex> lock(one_at_a_time);
  body = &kernel;
  shared_bytes = shared;
  const unsigned threads = block.x * block.y * block.z;
  std::vector<Fiber> fibers(threads * static_cast<unsigned>(cluster_size));
  for (Fiber& f : fibers) f.stack.reset(new char[kStack]);
  Cluster c;
  c.blocks.resize(static_cast<size_t>(cluster_size));
  std::vector<void*> memory;
  for (Block& b : c.blocks) {
    memory.push_back(std::aligned_alloc(1024, (shared + 2047) / 1024 * 1024));
    b.shared = static_cast<unsigned char*>(memory.back());
  }
  const uint64_t blocks = uint64_t{grid.x} * grid.y * grid.z;
  for (uint64_t first = 0; first < blocks; first += static_cast<uint64_t>(cluster_size)) {
    c.meet = {};
    c.alive = static_cast<int>(fibers.size());
    size_t fiber = 0;
    for (int rank = 0; rank < cluster_size; ++rank) {
      Block& b = c.blocks[static_cast<size_t>(rank)];
      const uint64_t i = first + static_cast<uint64_t>(rank);
      b.index = dim3(static_cast<unsigned>(i % grid.x), static_cast<unsigned>(i / grid.x % grid.y),
                     static_cast<unsigned>(i / grid.x / grid.y));
      b.rank = rank;
      b.alive = static_cast<int>(threads);
      b.meet = {};
      b.warps.assign((threads + 31) / 32, Warp{});
      std::memset(b.shared, 0xff, shared);  // NaN, so that a read of what nobody wrote shows
      for (unsigned t = 0; t < threads; ++t) {
        Fiber& f = fibers[fiber++];
        f.started = f.done = false;
        f.position = {dim3(t % block.x, t / block.x % block.y, t / block.x / block.y), b.index, block, grid};
        f.block = &b;
        f.warp = &b.warps[t / 32];
        f.lane = static_cast<int>(t % 32);
        ++f.warp->alive;
        for (int kind = 0; kind < 2; ++kind) {
          f.open[kind].clear();
          f.groups[kind].clear();
        }
        prepare(f);
      }
    }
    run_cluster(c, fibers);
  }
  for (void* m : memory) std::free(m);
}

}  // namespace emulated
