// Numbers of 8 bits, four in each lane: neighbours along the axis that is summed. Rows are unsigned,
// weights signed; products and sums are exact.
//
// Processors with VNNI have an instruction for the sum of four products in each lane.

#pragma once

#include <cstdint>
#include <cstring>
#if defined(__AVX512VNNI__)
#include <immintrin.h>
#endif

#include "vectors.h"

namespace {

typedef uint8_t Bytes8 __attribute__((vector_size(LANES)));

inline Integers add_products(Integers sum, Bits weights, Bits row) {
#if defined(__AVX512VNNI__)
    return (Integers)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)row, (__m512i)weights);
#else
    for (int bit = 0; bit < 32; bit += 8)
        sum += (Integers)(row >> bit & 255u) * ((Integers)(weights << (24 - bit)) >> 24);
    return sum;
#endif
}

// To the nearest of 0 .. 255, and to the even one of two; NaN to 0.
inline Bytes8 to_bytes(Vector x) {
    Vector t = x > 0.0f ? x : Vector{};
    t = t < 255.0f ? t : Vector{} + 255.0f;
    const Vector whole = t + 12582912.0f;  // 1.5 * 2^23: the last bits are a whole number
    return __builtin_convertvector((Bits)whole & 255u, Bytes8);
}

inline void store(uint8_t* to, Bytes8 x) { std::memcpy(to, &x, sizeof x); }

}  // namespace
