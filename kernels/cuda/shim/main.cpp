// The shim as a process: buffers and launches by command on stdin, answers on stdout. Little-endian.
//
//   1 alloc     u64 bytes                                   -> u32 buffer       zeroed; ends at a page that faults
//   2 upload    u32 buffer, u64 from, u64 bytes, bytes
//   3 download  u32 buffer, u64 from, u64 bytes             -> bytes
//   4 launch    u32 length, name, u32 grid, u32 block, u32 shared, u32 count, count * (u32 is_buffer, u64 value) -> u32 0
//   5 free      u32 buffer
//   6 seed      u64
// An error ends the process: status 3 and one line on stderr.
#include <csignal>
#include <cstring>
#include <map>
#include <string>
#include <sys/mman.h>
#include "../bench.cu"
#include "../msm.cu"
#include "../ntt.cu"
#include "../poseidon2.cu"
#include "planted.cu"

namespace {

struct Buffer {
  char* mapping;
  size_t mapped;
  char* data;
  size_t bytes;
};
std::map<uint32_t, Buffer> buffers;
std::string running = "none";

void read_all(void* to, size_t bytes) {
  if (fread(to, 1, bytes, stdin) != bytes) _exit(0);  // the other side has gone
}
template <class T>
T read() {
  T value;
  read_all(&value, sizeof value);
  return value;
}
void write_all(const void* from, size_t bytes) {
  if (fwrite(from, 1, bytes, stdout) != bytes) _exit(3);
}

Buffer& find(uint32_t id) {
  const auto found = buffers.find(id);
  if (found == buffers.end()) shim::fail("no buffer %u", id);
  return found->second;
}

uint32_t allocate(size_t bytes) {
  static uint32_t next = 1;
  const size_t page = size_t(sysconf(_SC_PAGESIZE));
  const size_t room = (bytes + 15) / 16 * 16;  // elements are read 16 bytes at a time
  const size_t body = (room + page - 1) / page * page;
  char* mapping = static_cast<char*>(mmap(nullptr, body + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  if (mapping == MAP_FAILED || mprotect(mapping + body, page, PROT_NONE) != 0) shim::fail("out of memory: %zu bytes", bytes);
  buffers[next] = {mapping, body + page, mapping + body - room, bytes};
  return next++;
}

struct Argument {
  bool is_buffer;
  uint64_t value;
};
template <class T>
struct Convert {
  static T from(const Argument& argument) {
    if (argument.is_buffer) shim::fail("%s: a buffer where a number is expected", running.c_str());
    return T(argument.value);
  }
};
template <class T>
struct Convert<T*> {
  static T* from(const Argument& argument) {
    if (!argument.is_buffer) shim::fail("%s: a number where a buffer is expected", running.c_str());
    return reinterpret_cast<T*>(find(uint32_t(argument.value)).data);
  }
};

using Entry = std::function<std::function<void()>(const std::vector<Argument>&)>;
std::map<std::string, Entry> entries;

template <class... A, size_t... I>
std::function<void()> bound(void (*kernel)(A...), const std::vector<Argument>& given, std::index_sequence<I...>) {
  std::tuple<A...> arguments{Convert<A>::from(given[I])...};
  return [=] { std::apply(kernel, arguments); };
}
template <class... A>
void add(const char* name, void (*kernel)(A...)) {
  entries[name] = [=](const std::vector<Argument>& given) {
    if (given.size() != sizeof...(A)) shim::fail("%s: %zu arguments, expected %zu", name, given.size(), sizeof...(A));
    return bound(kernel, given, std::index_sequence_for<A...>());
  };
}

void launch() {
  std::string name(read<uint32_t>(), ' ');
  read_all(name.data(), name.size());
  const uint32_t grid = read<uint32_t>(), block = read<uint32_t>(), shared = read<uint32_t>();
  std::vector<Argument> arguments(read<uint32_t>());
  for (Argument& argument : arguments) argument.is_buffer = read<uint32_t>() != 0, argument.value = read<uint64_t>();
  const auto entry = entries.find(name);
  if (entry == entries.end()) shim::fail("no kernel %s", name.c_str());
  running = name;
  shim::launch(grid, block, shared, entry->second(arguments));
}

void faulted(int) {
  char text[256];
  const int length = snprintf(text, sizeof text, "shim: block %u: kernel %s left its buffers, thread %u\n", blockIdx.x,
                              running.c_str(), threadIdx.x);
  if (write(2, text, size_t(length)) < 0) _exit(4);
  _exit(3);
}

}  // namespace

#define ENTRY(kernel) add(#kernel, kernel)

int main() {
  static char stack[64 << 10];
  stack_t alternate{};
  alternate.ss_sp = stack;
  alternate.ss_size = sizeof stack;
  sigaltstack(&alternate, nullptr);
  struct sigaction action {};
  action.sa_handler = faulted;
  action.sa_flags = SA_ONSTACK;
  sigaction(SIGSEGV, &action, nullptr);
  sigaction(SIGBUS, &action, nullptr);
#include "entries.inc"
  for (;;) {
    const uint32_t command = read<uint32_t>();
    uint32_t id = 0;
    if (command == 1) {
      id = allocate(read<uint64_t>());
      write_all(&id, sizeof id);
    } else if (command == 2) {
      const Buffer& buffer = find(read<uint32_t>());
      const uint64_t from = read<uint64_t>(), bytes = read<uint64_t>();
      if (from > buffer.bytes || bytes > buffer.bytes - from) shim::fail("an upload past the end of a buffer");
      read_all(buffer.data + from, bytes);
    } else if (command == 3) {
      const Buffer& buffer = find(read<uint32_t>());
      const uint64_t from = read<uint64_t>(), bytes = read<uint64_t>();
      if (from > buffer.bytes || bytes > buffer.bytes - from) shim::fail("a download past the end of a buffer");
      write_all(buffer.data + from, bytes);
    } else if (command == 4) {
      launch();
      write_all(&id, sizeof id);
    } else if (command == 5) {
      id = read<uint32_t>();
      munmap(find(id).mapping, find(id).mapped);
      buffers.erase(id);
    } else if (command == 6) {
      shim::machine.random.seed(read<uint64_t>());
    } else {
      shim::fail("unknown command %u", command);
    }
    fflush(stdout);
  }
}
