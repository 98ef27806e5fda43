// Sums, norms, and products of pairs, kept in registers.
//
// Compiled into the kernels' copy for each instruction set.

#pragma once

#include <cmath>
#include <cstdint>

#include "vectors.h"

namespace {

constexpr float SHORTEST = 1e-18f;           // below this length, a vector's cosines go to 0 with it
constexpr int DOWN = 4, ACROSS = LANES / 4;  // a tile of pairs, as large as the registers allow

inline Vector root(Vector x) {
    for (int lane = 0; lane < LANES; lane++) x[lane] = std::sqrt(x[lane]);
    return x;
}

// 1 / length from the square of a length, and no more than the product of two such numbers can hold.
// NaN compares false, and the product of what it becomes with NaN is NaN again.
inline Vector inverse(Vector squares) {
    return squares > SHORTEST * SHORTEST ? 1.0f / root(squares) : Vector{} + 1 / SHORTEST;
}

// The sum of each(n) for n below N, in four chains, so that additions do not wait for each other.
template <typename Each>
inline Vector sum(int64_t N, Each each) {
    Vector chains[4] = {};
    int64_t n = 0;
    for (; n + 4 <= N; n += 4)
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) chains[i] += each(n + i);
    for (; n < N; n++) chains[0] += each(n);
    return chains[0] + chains[1] + (chains[2] + chains[3]);
}

// Lane i of the result is the sum over the lanes of vectors[i].
inline Vector across(Vector (&vectors)[LANES]) {
#pragma GCC unroll 4
    for (int step = 1; step < LANES; step *= 2) {  // like `transpose`, but adding both halves
        Integers low, high;
        for (int lane = 0; lane < LANES; lane++) {
            low[lane] = low_lane(lane, step);
            high[lane] = high_lane(lane, step);
        }
#pragma GCC unroll 8
        for (int i = 0; i < LANES / 2 / step; i++) {
            const Vector a = vectors[2 * i], b = vectors[2 * i + 1];
            vectors[i] = __builtin_shuffle(a, b, low) + __builtin_shuffle(a, b, high);
        }
    }
    return vectors[0];
}

// Adds the sum over the lanes of many vectors, each to an element of its own, LANES at a time.
class Totals {
public:
    void add(Vector vector, float* target) {
        vectors_[count_] = vector;
        targets_[count_] = target;
        if (++count_ == LANES) flush();
    }
    void flush() {
        for (int i = count_; i < LANES; i++) vectors_[i] = Vector{};
        const Vector sums = across(vectors_);
        for (int i = 0; i < count_; i++) *targets_[i] += sums[i];
        count_ = 0;
    }

private:
    Vector vectors_[LANES];
    float* targets_[LANES];
    int count_ = 0;
};

// Sums over n below N of at(i, n) * at(j, n), for R values of i and C of j; use(i, j, sum) takes
// those with i <= j.
template <int R, int C, typename At, typename Use>
inline void multiply(int64_t N, int64_t i, int64_t j, At at, Use& use) {
    Vector sums[R][C] = {};
    for (int64_t n = 0; n < N; n++) {
        Vector left[R];
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) left[r] = at(i + r, n);
#pragma GCC unroll 4
        for (int c = 0; c < C; c++) {
            const Vector right = at(j + c, n);
#pragma GCC unroll 4
            for (int r = 0; r < R; r++) sums[r][c] += left[r] * right;
        }
    }
    for (int r = 0; r < R; r++)
        for (int c = 0; c < C; c++)
            if (i + r <= j + c) use(i + r, j + c, sums[r][c]);
}

template <int R, typename At, typename Use>
inline void multiply(int64_t count, int64_t N, int64_t i, At at, Use& use) {
    int64_t j = i;
    for (; j + ACROSS <= count; j += ACROSS) multiply<R, ACROSS>(N, i, j, at, use);
    for (; j + 2 <= count; j += 2) multiply<R, 2>(N, i, j, at, use);
    for (; j < count; j++) multiply<R, 1>(N, i, j, at, use);
}

// The same for every pair i <= j below `count`.
template <typename At, typename Use>
inline void pairs(int64_t count, int64_t N, At at, Use use) {
    int64_t i = 0;
    for (; i + DOWN <= count; i += DOWN) multiply<DOWN>(count, N, i, at, use);
    for (; i + 2 <= count; i += 2) multiply<2>(count, N, i, at, use);
    for (; i < count; i++) multiply<1>(count, N, i, at, use);
}

}  // namespace
