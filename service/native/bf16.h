// Numbers of 16 bits that have float's exponent (bfloat16), two in each lane: neighbours along the
// axis that is summed. Products are exact, and sums are float's.
//
// Processors with AVX512-BF16 have an instruction for the sum of two products in each lane; other
// copies of the kernels, which are there to be compared with, compute the same in float.

#pragma once

#include <cstdint>
#include <cstring>
#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

#include "vectors.h"

namespace {

typedef Bits Pairs;  // the first number is in the low half
typedef uint16_t Halves __attribute__((vector_size(LANES * 2)));


#if defined(__AVX512BF16__)

inline Vector add_products(Vector sum, Pairs a, Pairs b) {
    return (Vector)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
}

inline Halves rounded(Vector x) { return (Halves)_mm512_cvtneps_pbh((__m512)x); }

inline Pairs paired(Vector low, Vector high) {
    const __m512i apart = (__m512i)_mm512_cvtne2ps_pbh((__m512)high, (__m512)low);
    const Bits lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return (Pairs)_mm512_permutexvar_epi16((__m512i)(lane | (lane + 16u) << 16), apart);
}

#else

inline Vector add_products(Vector sum, Pairs a, Pairs b) {
    sum += (Vector)(a << 16) * (Vector)(b << 16);
    return sum + (Vector)(a & 0xffff0000u) * (Vector)(b & 0xffff0000u);
}

// To the nearest, and to the even one of two. NaN keeps its sign.
inline Halves rounded(Vector x) {
    const Bits bits = (Bits)x, up = bits + 0x7fffu + (bits >> 16 & 1u);
    const Bits nan = (bits >> 16) | 0x40u;
    return __builtin_convertvector((Bits)(x == x ? up >> 16 : nan), Halves);
}

inline Pairs paired(Vector low, Vector high) {
    const Bits first = __builtin_convertvector(rounded(low), Bits);
    return first | __builtin_convertvector(rounded(high), Bits) << 16;
}

#endif

inline Vector widened(Halves x) { return (Vector)(__builtin_convertvector(x, Bits) << 16); }

inline void store(uint16_t* to, Halves x) { std::memcpy(to, &x, sizeof x); }

}  // namespace
