// Shared memory that knows who touched it: finds races and reads of what was never written.
//
// Two accesses of one element by different threads race if at least one writes, not both are atomic, no __syncthreads lies
// between them, and, within one warp, no __syncwarp either. Of the readers since the last barrier the first and the latest
// other one are kept: without __syncwarp that is exact.
#pragma once
#include <map>
#include "fibers.hpp"

namespace shim {

struct Access {
  uint64_t epoch = 0;
  uint32_t thread = 0, warp_epoch = 0;
  bool atomic = false;
};

struct Cell {
  Access write, reader, other_reader;
};

inline Access now(bool atomic) {
  const uint32_t thread = machine.current;
  return {machine.epoch, thread, machine.warp_epochs[thread / WARP], atomic};
}

inline bool concurrent(const Access& before, const Access& current) {
  if (before.epoch != current.epoch || before.thread == current.thread) return false;
  const bool same_warp = before.thread / WARP == current.thread / WARP;
  return !(same_warp && before.warp_epoch < current.warp_epoch);
}

inline void check(const Access& before, const Access& current, uint32_t index, const char* what) {
  if (concurrent(before, current) && !(before.atomic && current.atomic))
    fail("race in shared memory: element %u, %s, threads %u and %u", index, what, before.thread, current.thread);
}

template <class T>
struct Shared {
  T* values;
  Cell* cells;
  uint32_t count;

  Cell& cell(uint32_t index) const {
    if (index >= count) fail("shared memory: element %u of %u", index, count);
    return cells[index];
  }

  T get(uint32_t index) const {
    Cell& cell = this->cell(index);
    const Access access = now(false);
    if (cell.write.epoch < machine.block_start) fail("shared memory: element %u is read but was never written", index);
    check(cell.write, access, index, "written and read");
    if (cell.reader.epoch != access.epoch) cell.reader = access;
    else if (cell.reader.thread != access.thread) cell.other_reader = access;
    return values[index];
  }

  void set(uint32_t index, const T& value) const {
    Cell& cell = this->cell(index);
    const Access access = now(false);
    written(cell, access, index);
    values[index] = value;
  }

  // Adds atomically and returns the value before.
  T add(uint32_t index, T value) const {
    Cell& cell = this->cell(index);
    const Access access = now(true);
    if (cell.write.epoch < machine.block_start) fail("shared memory: element %u is added to but was never written", index);
    written(cell, access, index);
    const T before = values[index];
    values[index] = before + value;
    return before;
  }

 private:
  void written(Cell& cell, const Access& access, uint32_t index) const {
    check(cell.write, access, index, "written twice");
    check(cell.reader, access, index, "read and written");
    check(cell.other_reader, access, index, "read and written");
    cell.write = access;
  }
};

// A __shared__ array; one for each place in the source, as blocks run one after another.
template <class T, uint32_t N>
struct Storage {
  std::vector<T> values = std::vector<T>(N);
  std::vector<Cell> cells = std::vector<Cell>(N);
  Shared<T> view() { return {values.data(), cells.data(), N}; }
};

// The dynamic shared memory of a block as one array.
template <class T>
Shared<T> dynamic(uint32_t count) {
  static std::vector<T> values;
  static std::vector<Cell> cells;
  if (count * sizeof(T) > machine.dynamic_bytes)
    fail("dynamic shared memory: %zu bytes used, %zu launched with", count * sizeof(T), machine.dynamic_bytes);
  if (values.size() < count) values.resize(count), cells.resize(count);
  return {values.data(), cells.data(), count};
}

}  // namespace shim
