// Derived from arkworks, and checked, by tests/cuda_shim/constants.rs: do not edit.
#pragma once
#include "device.cuh"

struct FrParameters {
  // -1 / p mod 2^32.
  static constexpr uint32_t INVERSE_NEGATED = 0xefffffffu;

  // Word i of p.
  static __device__ constexpr uint32_t modulus(int i) {
    return i == 0 ? 0xf0000001u : i == 1 ? 0x43e1f593u : i == 2 ? 0x79b97091u : i == 3 ? 0x2833e848u
           : i == 4 ? 0x8181585du : i == 5 ? 0xb85045b6u : i == 6 ? 0xe131a029u : 0x30644e72u;
  }
  // Word i of (p - 1) / 2.
  static __device__ constexpr uint32_t half(int i) {
    return i == 0 ? 0xf8000000u : i == 1 ? 0xa1f0fac9u : i == 2 ? 0x3cdcb848u : i == 3 ? 0x9419f424u
           : i == 4 ? 0x40c0ac2eu : i == 5 ? 0xdc2822dbu : i == 6 ? 0x7098d014u : 0x18322739u;
  }
  // Word i of R mod p: one.
  static __device__ constexpr uint32_t one(int i) {
    return i == 0 ? 0x4ffffffbu : i == 1 ? 0xac96341cu : i == 2 ? 0x9f60cd29u : i == 3 ? 0x36fc7695u
           : i == 4 ? 0x7879462eu : i == 5 ? 0x666ea36fu : i == 6 ? 0x9a07df2fu : 0x0e0a77c1u;
  }
  // Word i of R^2 mod p.
  static __device__ constexpr uint32_t square_of_r(int i) {
    return i == 0 ? 0xae216da7u : i == 1 ? 0x1bb8e645u : i == 2 ? 0xe35c59e3u : i == 3 ? 0x53fe3ab1u
           : i == 4 ? 0x53bb8085u : i == 5 ? 0x8c49833du : i == 6 ? 0x7f4e44a5u : 0x0216d0b1u;
  }
};

struct FqParameters {
  // -1 / p mod 2^32.
  static constexpr uint32_t INVERSE_NEGATED = 0xe4866389u;

  // Word i of p.
  static __device__ constexpr uint32_t modulus(int i) {
    return i == 0 ? 0xd87cfd47u : i == 1 ? 0x3c208c16u : i == 2 ? 0x6871ca8du : i == 3 ? 0x97816a91u
           : i == 4 ? 0x8181585du : i == 5 ? 0xb85045b6u : i == 6 ? 0xe131a029u : 0x30644e72u;
  }
  // Word i of (p - 1) / 2.
  static __device__ constexpr uint32_t half(int i) {
    return i == 0 ? 0x6c3e7ea3u : i == 1 ? 0x9e10460bu : i == 2 ? 0xb438e546u : i == 3 ? 0xcbc0b548u
           : i == 4 ? 0x40c0ac2eu : i == 5 ? 0xdc2822dbu : i == 6 ? 0x7098d014u : 0x18322739u;
  }
  // Word i of R mod p: one.
  static __device__ constexpr uint32_t one(int i) {
    return i == 0 ? 0xc58f0d9du : i == 1 ? 0xd35d438du : i == 2 ? 0xf5c70b3du : i == 3 ? 0x0a78eb28u
           : i == 4 ? 0x7879462cu : i == 5 ? 0x666ea36fu : i == 6 ? 0x9a07df2fu : 0x0e0a77c1u;
  }
  // Word i of R^2 mod p.
  static __device__ constexpr uint32_t square_of_r(int i) {
    return i == 0 ? 0x538afa89u : i == 1 ? 0xf32cfc5bu : i == 2 ? 0xd44501fbu : i == 3 ? 0xb5e71911u
           : i == 4 ? 0x0a417ff6u : i == 5 ? 0x47ab1effu : i == 6 ? 0xcab8351fu : 0x06d89f71u;
  }
};
