// Exponential functions and the logarithm of vectors.
//
// Compiled into the kernels' copy for each instruction set.

#pragma once

#include "vectors.h"

namespace {

// exp(x) of x <= 0, to about 1e-7 of the value: 2^n times a polynomial in the remainder.
//
// x is clamped at -88, where n is -127 and the bits of 2^n are those of zero: so exp(x) is 0 from
// -87.7 down, and at -inf. NaN passes the clamp, which takes x where nothing compares true, and the
// product at the end, whatever its bits.
inline Vector exponential(Vector x) {
    // 1.5 * 2^23: adding it leaves an integer in the low bits, which is n with a float's bias.
    const float round = 12582912.0f + 127;
    x = larger(Vector{} - 88.0f, x);
    const Vector shifted = x * 1.44269504f + round;
    const Vector n = shifted - round;
    const Vector r = x - n * 0.693359375f - n * -2.12194440e-4f;  // log(2) in two parts
    Vector p = r * (1.0f / 5040) + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    return p * (Vector)((Bits)shifted << 23);
}

// 2^x of x <= 0, to 3e-6 of the value, in the same way; it is 0 from -126.5 down, and at -inf.
inline Vector power_of_two(Vector x) {
    const float round = 12582912.0f + 127;
    x = larger(Vector{} - 127.0f, x);
    const Vector shifted = x + round, r = x - (shifted - round);
    Vector p = r * 9.582853144e-3f + 5.590642673e-2f;
    p = p * r + 2.402409862e-1f;
    p = p * r + 6.931241932e-1f;
    p = p * r + 1.0f;
    return p * (Vector)((Bits)shifted << 23);
}

// log(x) of normal x > 0, to about 1e-7: the exponent times log(2), plus a polynomial in the
// mantissa, fitted for the smallest error between sqrt(1/2) and sqrt(2).
inline Vector logarithm(Vector x) {
    const Bits bits = (Bits)x;
    const Integers power = (Integers)(bits - 0x3f3504f3u) >> 23;  // from sqrt(1/2) on
    const Vector n = __builtin_convertvector(power, Vector);
    const Vector r = (Vector)(bits - ((Bits)power << 23)) - 1.0f, square = r * r;
    Vector p = r * 8.700435915e-2f - 1.426748697e-1f;
    p = p * r + 1.491476788e-1f;
    p = p * r - 1.657758467e-1f;
    p = p * r + 1.996306380e-1f;
    p = p * r - 2.500133704e-1f;
    p = p * r + 3.333391074e-1f;
    return n * 6.931471806e-1f + (r + (p * r - 0.5f) * square);
}

}  // namespace
