// A library with the names of NVIDIA's driver that runs the kernels on the shim: what src/device/cuda.rs calls, and no more.
//
// Memory is not zeroed when it is handed out, as on a GPU. A stream's work is only queued: what runs when is at random, from at once
// to when somebody waits for it, and only events order two streams. Copies read and write the host's memory when they run. Found
// (status 3): work on memory that is not reserved yet or was given back in the order of the streams, for memory is never handed out
// again; memory of the device, and pinned memory, that is given back before it is zeroed, or copied. Its environment:
//
//   ASSAY_FAKE_ORDER       seed of the order (default 1); 0: nothing runs before somebody waits for it
//   ASSAY_FAKE_TRACE       a file that gets a line for each kernel and each copy to the device when it runs
//   ASSAY_FAKE_SECRET      eight characters that no pinned memory may hold when a kernel is launched
//   ASSAY_FAKE_CAPABILITY  compute capability times ten (default 90)
//   ASSAY_FAKE_MEMORY      bytes of the device (default 2^32)
//   ASSAY_FAKE_LOST        the launch, counted from 0, at which the device is lost; every later call fails too
//   ASSAY_FAKE_BAD_COPY    the copy to the device, counted from 0, that is refused
//   ASSAY_FAKE_BAD_FREE    the memory given back, counted from 0, that is refused: it stays reserved
//   ASSAY_FAKE_NO_PINNED   set: there is no pinned memory
//   ASSAY_FAKE_NO_IMAGE    set: no image is accepted
#include <algorithm>
#include <cstring>
#include <deque>
#include <map>
#include <random>
#include <set>
#include <string>
#include <tuple>
#include "../bench.cu"
#include "../msm.cu"
#include "../ntt.cu"
#include "../poseidon2.cu"
#include "planted.cu"

namespace {

enum Result { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_IMAGE = 200, NOT_FOUND = 500, ILLEGAL_ADDRESS = 700 };

size_t setting(const char* name, size_t otherwise) {
  const char* text = getenv(name);
  return text ? strtoull(text, nullptr, 10) : otherwise;
}

struct Memory {
  size_t bytes;
  bool reserved, returned;  // whether the streams have come to it
};
std::map<uint64_t, Memory> allocations;
struct Pinned {
  size_t bytes, copies;  // copies from it that have not run
};
std::map<uint64_t, Pinned> pinned;
size_t used = 0;
uint64_t launches = 0, copies = 0, returns = 0;
bool lost = false;
void* context = nullptr;
int the_context;

struct Stream;
// How far a stream has to be: `count` pieces of work done.
struct Point {
  Stream* stream = nullptr;
  uint64_t count = 0;
  bool reached() const;
};
struct Work {
  std::function<void()> run;
  Point after;  // for which the stream waits first
};
struct Stream {
  std::deque<Work> queue;
  uint64_t queued = 0, done = 0;

  void add(std::function<void()> run, Point after = {}) {
    queue.push_back({std::move(run), after});
    queued++;
  }
  bool step() {
    if (queue.empty() || !queue.front().after.reached()) return false;
    Work work = std::move(queue.front());
    queue.pop_front();
    work.run();
    done++;
    return true;
  }
  void run_to(uint64_t count) {
    while (done < count) {
      const Point after = queue.front().after;
      if (!after.reached()) after.stream->run_to(after.count);
      step();
    }
  }
};
bool Point::reached() const { return !stream || stream->done >= count; }

Stream default_stream;
std::set<Stream*> streams{&default_stream};
Stream& stream_of(void* handle) { return handle ? *static_cast<Stream*>(handle) : default_stream; }

// Runs some of what may run.
void some() {
  static const size_t seed = setting("ASSAY_FAKE_ORDER", 1);
  static std::mt19937_64 random{seed};
  if (seed == 0 || random() % 2) return;
  for (uint64_t left = random() % 8; left > 0; left--) {
    auto chosen = streams.begin();
    std::advance(chosen, random() % streams.size());
    (*chosen)->step();
  }
}
void all() {
  for (Stream* stream : streams) stream->run_to(stream->queued);
}

void trace(const std::string& line) {
  static FILE* file = getenv("ASSAY_FAKE_TRACE") ? fopen(getenv("ASSAY_FAKE_TRACE"), "a") : nullptr;
  if (!file) return;
  fprintf(file, "%s\n", line.c_str());
  fflush(file);
}

Result queue(void* stream, std::function<void()> run) {
  if (lost) return ILLEGAL_ADDRESS;
  stream_of(stream).add(std::move(run));
  some();
  return SUCCESS;
}

bool is_zero(uint64_t at, size_t bytes) {
  const char* from = reinterpret_cast<const char*>(at);
  return std::all_of(from, from + bytes, [](char byte) { return byte == 0; });
}

Result allocate(uint64_t* at, size_t bytes, void* stream) {
  if (lost) return ILLEGAL_ADDRESS;
  const size_t limit = setting("ASSAY_FAKE_MEMORY", size_t(1) << 32);
  if (used + bytes > limit) all();  // what is given back counts once its stream has come to it
  if (used + bytes > limit) return OUT_OF_MEMORY;
  void* memory = aligned_alloc(256, (bytes + 255) / 256 * 256);
  memset(memory, 0xa5, bytes);
  *at = reinterpret_cast<uint64_t>(memory);
  allocations[*at] = {bytes, false, false};
  used += bytes;
  return queue(stream, [reserved = &allocations[*at].reserved] { *reserved = true; });
}

Result release(uint64_t at, void* stream) {
  const auto found = allocations.find(at);
  if (found == allocations.end() || returns++ == setting("ASSAY_FAKE_BAD_FREE", ~size_t(0))) return INVALID_VALUE;
  return queue(stream, [at, &memory = found->second] {
    if (!memory.reserved || memory.returned) shim::fail("memory is given back before it is reserved, or twice");
    if (!is_zero(at, memory.bytes)) shim::fail("memory is given back before it is wiped");
    memory.returned = true;
    memset(reinterpret_cast<void*>(at), 0xdd, memory.bytes);
    used -= memory.bytes;
  });
}

// The allocation that a range lies in.
Memory* around(uint64_t at, size_t bytes) {
  auto found = allocations.upper_bound(at);
  if (found == allocations.begin()) return nullptr;
  --found;
  return at + bytes <= found->first + found->second.bytes ? &found->second : nullptr;
}
Result check(uint64_t at, size_t bytes) {
  if (lost) return ILLEGAL_ADDRESS;
  return around(at, bytes) ? SUCCESS : INVALID_VALUE;
}
void must_be_there(uint64_t at) {
  const Memory& memory = *around(at, 0);
  if (!memory.reserved) shim::fail("work on memory that is not reserved yet");
  if (memory.returned) shim::fail("work on memory that was given back");
}

// Buffers among the arguments of a kernel: their addresses, and numbers below them.
void must_be_there(const std::vector<uint64_t>& arguments) {
  for (uint64_t argument : arguments)
    if (allocations.count(argument)) must_be_there(argument);
}

// Copies that read pinned memory and have not run; other memory's are not counted.
size_t& copies_from(const void* from) {
  static size_t others;
  auto found = pinned.upper_bound(reinterpret_cast<uint64_t>(from));
  if (found == pinned.begin()) return others;
  --found;
  return reinterpret_cast<uint64_t>(from) < found->first + found->second.bytes ? found->second.copies : others;
}

// Whether pinned memory holds what must not be left there.
void look_for_the_secret() {
  static const char* secret = getenv("ASSAY_FAKE_SECRET");
  if (!secret) return;
  for (const auto& [at, memory] : pinned)
    if (memmem(reinterpret_cast<const void*>(at), memory.bytes, secret, 8)) shim::fail("pinned memory holds the secret");
}

struct Call {
  std::function<void()> run;
  std::vector<uint64_t> arguments;
};
struct Entry {
  std::string name;
  std::function<Call(void**)> bound;
};
std::map<std::string, Entry> entries;

template <class T>
T parameter(void* at) {
  T value;
  memcpy(&value, at, sizeof value);
  return value;
}
template <class T>
uint64_t as_word(T value) {
  if constexpr (std::is_pointer_v<T>) return reinterpret_cast<uint64_t>(value);
  else return value;
}
template <class... A, size_t... I>
Call bound(void (*kernel)(A...), void** given, std::index_sequence<I...>) {
  std::tuple<A...> arguments{parameter<A>(given[I])...};
  return {[=] { std::apply(kernel, arguments); }, {as_word(std::get<I>(arguments))...}};
}
template <class... A>
void add(const char* name, void (*kernel)(A...)) {
  entries[name] = {name, [=](void** given) { return bound(kernel, given, std::index_sequence_for<A...>()); }};
}

}  // namespace

#define ENTRY(kernel) add(#kernel, kernel)

extern "C" {

Result cuInit(unsigned) {
#include "entries.inc"
  return SUCCESS;
}
Result cuDeviceGet(int* device, int ordinal) { return *device = 0, ordinal == 0 ? SUCCESS : INVALID_VALUE; }
Result cuDeviceGetName(char* name, int length, int) { return snprintf(name, size_t(length), "shim"), SUCCESS; }
Result cuDeviceGetAttribute(int* value, int attribute, int) {
  const int capability = int(setting("ASSAY_FAKE_CAPABILITY", 90));
  *value = attribute == 75 ? capability / 10 : attribute == 76 ? capability % 10 : attribute == 115 ? 1 : 0;
  return SUCCESS;
}
Result cuDevicePrimaryCtxRetain(void** out, int) { return *out = &the_context, SUCCESS; }
Result cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }
Result cuCtxGetCurrent(void** out) { return *out = context, SUCCESS; }
Result cuCtxSetCurrent(void* given) { return context = given, SUCCESS; }
Result cuMemGetInfo_v2(size_t* free, size_t* total) {
  *total = setting("ASSAY_FAKE_MEMORY", size_t(1) << 32);
  *free = *total - used;
  return lost ? ILLEGAL_ADDRESS : SUCCESS;
}
Result cuMemAllocAsync(uint64_t* at, size_t bytes, void* stream) { return allocate(at, bytes, stream); }
Result cuMemFreeAsync(uint64_t at, void* stream) { return release(at, stream); }
Result cuMemsetD8Async(uint64_t at, unsigned char value, size_t bytes, void* stream) {
  const Result result = check(at, bytes);
  if (result != SUCCESS) return result;
  return queue(stream, [=] {
    must_be_there(at);
    memset(reinterpret_cast<void*>(at), value, bytes);
  });
}
Result cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t bytes, void* stream) {
  const Result result = check(to, bytes);
  if (result != SUCCESS) return result;
  if (copies++ == setting("ASSAY_FAKE_BAD_COPY", ~size_t(0))) return INVALID_VALUE;
  copies_from(from)++;
  return queue(stream, [=] {
    must_be_there(to);
    copies_from(from)--;
    trace("copy of " + std::to_string(bytes));
    memcpy(reinterpret_cast<void*>(to), from, bytes);
  });
}
Result cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t bytes, void* stream) {
  const Result result = check(from, bytes);
  if (result != SUCCESS) return result;
  return queue(stream, [=] {
    must_be_there(from);
    memcpy(to, reinterpret_cast<void*>(from), bytes);
  });
}
Result cuMemHostAlloc(void** out, size_t bytes, unsigned) {
  if (getenv("ASSAY_FAKE_NO_PINNED")) return OUT_OF_MEMORY;
  *out = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
  memset(*out, 0xa5, bytes);
  pinned[reinterpret_cast<uint64_t>(*out)] = {bytes, 0};
  return SUCCESS;
}
Result cuMemFreeHost(void* at) {
  const auto found = pinned.find(reinterpret_cast<uint64_t>(at));
  if (found == pinned.end()) return INVALID_VALUE;
  if (found->second.copies > 0 && !lost) shim::fail("pinned memory is given back before it is copied");
  if (!is_zero(found->first, found->second.bytes)) shim::fail("pinned memory is given back before it is wiped");
  return pinned.erase(found), SUCCESS;  // never handed out again
}

Result cuStreamCreate(void** out, unsigned flags) {
  if (flags != 1) return INVALID_VALUE;  // others wait for the default stream
  Stream* stream = new Stream;
  streams.insert(stream);
  return *out = stream, SUCCESS;
}
Result cuStreamDestroy_v2(void* handle) {
  Stream* stream = static_cast<Stream*>(handle);
  stream->run_to(stream->queued);
  streams.erase(stream);  // kept for events that point to it
  return SUCCESS;
}
Result cuStreamSynchronize(void* handle) {
  if (lost) return ILLEGAL_ADDRESS;
  Stream& stream = stream_of(handle);
  stream.run_to(stream.queued);
  return SUCCESS;
}
Result cuEventCreate(void** out, unsigned) { return *out = new Point, SUCCESS; }
Result cuEventDestroy_v2(void* event) { return delete static_cast<Point*>(event), SUCCESS; }
Result cuEventRecord(void* event, void* handle) {
  Stream& stream = stream_of(handle);
  *static_cast<Point*>(event) = {&stream, stream.queued};
  return lost ? ILLEGAL_ADDRESS : SUCCESS;
}
Result cuEventSynchronize(void* event) {
  if (lost) return ILLEGAL_ADDRESS;
  const Point point = *static_cast<Point*>(event);
  if (point.stream) point.stream->run_to(point.count);
  return SUCCESS;
}
Result cuStreamWaitEvent(void* handle, void* event, unsigned) {
  if (lost) return ILLEGAL_ADDRESS;
  stream_of(handle).add([] {}, *static_cast<Point*>(event));
  some();
  return SUCCESS;
}

// A module is its PTX.
Result cuModuleLoadData(void** module, const void* image) {
  const char* text = static_cast<const char*>(image);
  if (getenv("ASSAY_FAKE_NO_IMAGE") || !strstr(text, ".target sm_80")) return INVALID_IMAGE;
  *module = new std::string(text);
  return SUCCESS;
}
Result cuModuleUnload(void* module) { return delete static_cast<std::string*>(module), SUCCESS; }
Result cuModuleGetFunction(void** function, void* module, const char* name) {
  const std::string declaration = ".entry " + std::string(name) + "(";
  const auto entry = entries.find(name);
  if (entry == entries.end() || static_cast<std::string*>(module)->find(declaration) == std::string::npos) return NOT_FOUND;
  *function = &entry->second;
  return SUCCESS;
}
Result cuLaunchKernel(void* function, unsigned grid, unsigned, unsigned, unsigned block, unsigned, unsigned, unsigned shared,
                      void* stream, void** parameters, void**) {
  if (grid == 0 || block == 0 || block > 1024 || shared > 48 << 10) return INVALID_VALUE;
  if (launches++ == setting("ASSAY_FAKE_LOST", ~size_t(0))) lost = true;
  if (lost) return ILLEGAL_ADDRESS;
  look_for_the_secret();
  const Entry& entry = *static_cast<Entry*>(function);
  const Call call = entry.bound(parameters);
  return queue(stream, [=, name = entry.name] {
    must_be_there(call.arguments);
    trace(name);
    shim::launch(grid, block, shared, call.run);
  });
}
Result cuGetErrorString(int, const char** text) { return *text = "the shim says so", SUCCESS; }
Result cuGetErrorName(int, const char** text) { return *text = "SHIM", SUCCESS; }

}  // extern "C"
