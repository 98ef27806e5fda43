// Vectors as wide as the instruction set has them, and rows of memory as their lanes.
//
// Compiled into the kernels' copy for each instruction set, with the compiler's vector extensions.

#pragma once

#include <cstdint>
#include <cstring>

namespace {

#if defined(__AVX512F__)
constexpr int LANES = 16;
#else
constexpr int LANES = 8;
#endif

typedef float Vector __attribute__((vector_size(LANES * 4)));
typedef int32_t Integers __attribute__((vector_size(LANES * 4)));
typedef uint32_t Bits __attribute__((vector_size(LANES * 4)));  // arithmetic on them may wrap

// Lane by lane; `b` where `a` is NaN, and NaN where `b` is.
inline Vector larger(Vector a, Vector b) { return a > b ? a : b; }

inline Vector load(const float* from) {
    Vector loaded;
    std::memcpy(&loaded, from, sizeof loaded);
    return loaded;
}

// Words of 32 bits, which hold several numbers.
inline Bits word_to_all(uint32_t word) { return Bits{} + word; }

inline uint32_t word_at(const void* from) {
    uint32_t word;
    std::memcpy(&word, from, sizeof word);
    return word;
}

inline Bits load_words(const uint32_t* from) {
    Bits loaded;
    std::memcpy(&loaded, from, sizeof loaded);
    return loaded;
}

// Lanes to shuffle out of two vectors (the second one's count from LANES): of blocks of `step` lanes
// the first, third, ... of both vectors, alternately; or the second, fourth, ....
inline int low_lane(int lane, int step) { return lane & step ? LANES + lane - step : lane; }
inline int high_lane(int lane, int step) { return lane & step ? LANES + lane : lane + step; }

// Transposes a square of LANES vectors in log2(LANES) steps.
inline void transpose(Vector (&square)[LANES]) {
#pragma GCC unroll 4
    for (int step = 1; step < LANES; step *= 2) {
        Integers low, high;
        for (int lane = 0; lane < LANES; lane++) {
            low[lane] = low_lane(lane, step);
            high[lane] = high_lane(lane, step);
        }
#pragma GCC unroll 16
        for (int row = 0; row < LANES; row++) {
            if (row & step) continue;
            const Vector a = square[row], b = square[row + step];
            square[row] = __builtin_shuffle(a, b, low);
            square[row + step] = __builtin_shuffle(a, b, high);
        }
    }
}

// Rows [LANES, width] to columns: one vector for each, whose lane w comes from row w.
inline void read_transposed(const float* const (&rows)[LANES], int64_t width, Vector* columns) {
    int64_t i = 0;
    for (; i + LANES <= width; i += LANES) {
        Vector square[LANES];
        for (int w = 0; w < LANES; w++) square[w] = load(rows[w] + i);
        transpose(square);
        for (int w = 0; w < LANES; w++) columns[i + w] = square[w];
    }
    for (; i < width; i++)
        for (int w = 0; w < LANES; w++) columns[i][w] = rows[w][i];
}

// The reverse, for the first `count` rows.
inline void write_transposed(Vector* columns, int64_t width, float* const (&rows)[LANES],
                             int count) {
    int64_t i = 0;
    for (; i + LANES <= width; i += LANES) {
        Vector square[LANES];
        for (int w = 0; w < LANES; w++) square[w] = columns[i + w];
        transpose(square);
        for (int w = 0; w < count; w++) std::memcpy(rows[w] + i, &square[w], sizeof(Vector));
    }
    for (; i < width; i++)
        for (int w = 0; w < count; w++) rows[w][i] = columns[i][w];
}

}  // namespace
