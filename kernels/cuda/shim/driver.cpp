// A library with the names of NVIDIA's driver that runs the kernels on the shim: what src/device/cuda.rs calls, and no more.
// Memory is not zeroed when it is handed out, as on a GPU; it has to be zeros when it is given back, unless the device is lost, or
// the process ends. Its environment plants faults:
//
//   ASSAY_FAKE_CAPABILITY  compute capability times ten (default 90)
//   ASSAY_FAKE_MEMORY      bytes of the device (default 2^32)
//   ASSAY_FAKE_LOST        the launch, counted from 0, at which the device is lost; every later call fails too
//   ASSAY_FAKE_NO_IMAGE    set: no image is accepted
#include <algorithm>
#include <cstring>
#include <map>
#include <string>
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

std::map<uint64_t, size_t> allocations;
size_t used = 0;
uint64_t launches = 0;
bool lost = false;
void* context = nullptr;
int the_context;

Result allocate(uint64_t* at, size_t bytes) {
  if (lost) return ILLEGAL_ADDRESS;
  if (used + bytes > setting("ASSAY_FAKE_MEMORY", size_t(1) << 32)) return OUT_OF_MEMORY;
  void* memory = aligned_alloc(256, (bytes + 255) / 256 * 256);
  memset(memory, 0xa5, bytes);
  *at = reinterpret_cast<uint64_t>(memory);
  allocations[*at] = bytes;
  used += bytes;
  return SUCCESS;
}

Result release(uint64_t at) {
  const auto found = allocations.find(at);
  if (found == allocations.end()) return INVALID_VALUE;
  used -= found->second;
  const char* bytes = reinterpret_cast<const char*>(at);
  if (!lost && std::any_of(bytes, bytes + found->second, [](char byte) { return byte != 0; })) {
    fputs("memory is given back that was not wiped\n", stderr);
    abort();
  }
  free(reinterpret_cast<void*>(at));
  allocations.erase(found);
  return lost ? ILLEGAL_ADDRESS : SUCCESS;
}

// Whether all of a range lies in one allocation.
Result check(uint64_t at, size_t bytes) {
  if (lost) return ILLEGAL_ADDRESS;
  auto found = allocations.upper_bound(at);
  if (found == allocations.begin()) return INVALID_VALUE;
  --found;
  return at + bytes <= found->first + found->second ? SUCCESS : INVALID_VALUE;
}

using Entry = std::function<std::function<void()>(void**)>;
std::map<std::string, Entry> entries;

template <class T>
T parameter(void* at) {
  T value;
  memcpy(&value, at, sizeof value);
  return value;
}
template <class... A, size_t... I>
std::function<void()> bound(void (*kernel)(A...), void** given, std::index_sequence<I...>) {
  std::tuple<A...> arguments{parameter<A>(given[I])...};
  return [=] { std::apply(kernel, arguments); };
}
template <class... A>
void add(const char* name, void (*kernel)(A...)) {
  entries[name] = [=](void** given) { return bound(kernel, given, std::index_sequence_for<A...>()); };
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
Result cuMemAllocAsync(uint64_t* at, size_t bytes, void*) { return allocate(at, bytes); }
Result cuMemFreeAsync(uint64_t at, void*) { return release(at); }
Result cuMemsetD8Async(uint64_t at, unsigned char value, size_t bytes, void*) {
  const Result result = check(at, bytes);
  if (result == SUCCESS) memset(reinterpret_cast<void*>(at), value, bytes);
  return result;
}
Result cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t bytes, void*) {
  const Result result = check(to, bytes);
  if (result == SUCCESS) memcpy(reinterpret_cast<void*>(to), from, bytes);
  return result;
}
Result cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t bytes, void*) {
  const Result result = check(from, bytes);
  if (result == SUCCESS) memcpy(to, reinterpret_cast<void*>(from), bytes);
  return result;
}
Result cuStreamSynchronize(void*) { return lost ? ILLEGAL_ADDRESS : SUCCESS; }

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
                      void*, void** parameters, void**) {
  if (grid == 0 || block == 0 || block > 1024 || shared > 48 << 10) return INVALID_VALUE;
  if (launches++ == setting("ASSAY_FAKE_LOST", ~size_t(0))) lost = true;
  if (lost) return ILLEGAL_ADDRESS;
  shim::launch(grid, block, shared, (*static_cast<Entry*>(function))(parameters));
  return SUCCESS;
}
Result cuGetErrorString(int, const char** text) { return *text = "the shim says so", SUCCESS; }
Result cuGetErrorName(int, const char** text) { return *text = "SHIM", SUCCESS; }

}  // extern "C"
