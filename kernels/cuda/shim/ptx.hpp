// An interpreter for the integer PTX instructions that the field code uses, on 32-bit operands and one carry flag.
//
// Instructions are parsed at compile time: an unknown one does not compile. The flag outlives instructions that do not write
// it, as the PTX manual says (section "Extended-Precision Integer Arithmetic").
#pragma once
#include <cstdint>

namespace shim::ptx {

enum Base : uint32_t { Add = 1, Sub, Mul, Mad };
constexpr uint32_t HIGH = 1 << 4, LOW = 1 << 5, CARRY_IN = 1 << 6, CARRY_OUT = 1 << 7;

constexpr bool take(const char*& text, const char* word) {
  const char* at = text;
  while (*word != 0)
    if (*at++ != *word++) return false;
  if (*at != '.' && *at != 0) return false;
  text = *at == '.' ? at + 1 : at;
  return true;
}

constexpr uint32_t parse(const char* text) {
  uint32_t code = 0;
  if (take(text, "add")) code = Add;
  else if (take(text, "addc")) code = Add | CARRY_IN;
  else if (take(text, "sub")) code = Sub;
  else if (take(text, "subc")) code = Sub | CARRY_IN;
  else if (take(text, "mul")) code = Mul;
  else if (take(text, "mad")) code = Mad;
  else if (take(text, "madc")) code = Mad | CARRY_IN;
  else throw "unknown PTX instruction";
  const uint32_t base = code & 15;
  if (base == Mul || base == Mad) {
    if (take(text, "lo")) code |= LOW;
    else if (take(text, "hi")) code |= HIGH;
    else throw "a product needs .lo or .hi";
  }
  if (base != Mul && take(text, "cc")) code |= CARRY_OUT;
  if (!take(text, "u32") || *text != 0) throw "expected .u32 at the end";
  return code;
}

inline uint32_t carry_flag = 0;

template <uint32_t CODE>
inline uint32_t run(uint32_t a, uint32_t b, uint32_t c = 0) {
  const uint32_t in = (CODE & CARRY_IN) ? carry_flag : 0;
  uint64_t wide = 0;
  switch (CODE & 15) {
    case Add: wide = uint64_t(a) + b + in; break;
    case Sub: wide = uint64_t(a) - b - in; break;
    case Mul:
    case Mad:
      wide = uint64_t(a) * b;
      wide = (CODE & HIGH) ? wide >> 32 : uint32_t(wide);
      if ((CODE & 15) == Mad) wide += uint64_t(c) + in;
      break;
  }
  if (CODE & CARRY_OUT) carry_flag = uint32_t(wide >> 32) & 1;
  return uint32_t(wide);
}

}  // namespace shim::ptx
