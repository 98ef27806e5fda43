// Rows times weights, both bfloat16, in sums of float.
//
// A tile of 6 rows and up to 64 columns stays in registers while it is summed. Pairs lie along the
// axis that is summed: a row's as they are, each broadcast to all lanes; weights in panels of 64
// columns (the last one narrower, a multiple of 16), one after the other, as the service packs them
// (inference/bf16/packing.py).

#pragma once

#include <algorithm>
#include <cstdint>

#include "bf16.h"
#include "bf16_weights.h"

namespace {

constexpr int TILE = 6, PANEL = 64, STEP = 16;
typedef Vector Sums[TILE][PANEL / LANES];

// Rows that are `stride` numbers apart. Each consists of segments of as many pairs, which are `apart`
// numbers apart: one for a linear layer, and one for each row of a convolution's window.
struct Rows {
    const uint16_t* at;
    int64_t stride, segments = 1, apart = 0;
};

template <int HEIGHT, int VECTORS>
void sum_tile(const Rows& rows, const uint32_t* panel, int64_t pairs, Sums& sums) {
    Vector tile[HEIGHT][VECTORS] = {};
    for (int64_t segment = 0; segment < rows.segments; segment++) {
        const uint16_t* at = rows.at + segment * rows.apart;
        for (int64_t k = 0; k < pairs; k++, panel += VECTORS * LANES) {
            Pairs weights[VECTORS];
#pragma GCC unroll 8
            for (int j = 0; j < VECTORS; j++) weights[j] = load_pairs(panel + j * LANES);
#pragma GCC unroll 6
            for (int i = 0; i < HEIGHT; i++) {
                const Pairs row = pair_to_all(pair_at(at + i * rows.stride + 2 * k));
#pragma GCC unroll 8
                for (int j = 0; j < VECTORS; j++)
                    tile[i][j] = add_products(tile[i][j], weights[j], row);
            }
        }
    }
    for (int i = 0; i < HEIGHT; i++)
        for (int j = 0; j < VECTORS; j++) sums[i][j] = tile[i][j];
}

template <int HEIGHT>
void sum_tile(const Rows& rows, const uint32_t* panel, int64_t pairs, int64_t width, Sums& sums) {
    switch (width / STEP) {
        case 1: return sum_tile<HEIGHT, 1 * STEP / LANES>(rows, panel, pairs, sums);
        case 2: return sum_tile<HEIGHT, 2 * STEP / LANES>(rows, panel, pairs, sums);
        case 3: return sum_tile<HEIGHT, 3 * STEP / LANES>(rows, panel, pairs, sums);
        default: return sum_tile<HEIGHT, 4 * STEP / LANES>(rows, panel, pairs, sums);
    }
}

inline void sum_tile(int64_t height, const Rows& rows, const uint32_t* panel, int64_t pairs,
                     int64_t width, Sums& sums) {
    switch (height) {
        case 1: return sum_tile<1>(rows, panel, pairs, width, sums);
        case 2: return sum_tile<2>(rows, panel, pairs, width, sums);
        case 3: return sum_tile<3>(rows, panel, pairs, width, sums);
        case 4: return sum_tile<4>(rows, panel, pairs, width, sums);
        case 5: return sum_tile<5>(rows, panel, pairs, width, sums);
        default: return sum_tile<6>(rows, panel, pairs, width, sums);
    }
}

// Calls put(row, column, vector) with all of `count` rows times weights, plus the bias.
template <typename Put>
void product(Rows rows, int64_t count, const Weights& weights, Put put) {
    const int64_t pairs = weights.pairs / rows.segments;
    for (int64_t column = 0; column < weights.columns; column += PANEL) {
        const int64_t width = std::min<int64_t>(PANEL, weights.columns - column);
        const uint32_t* panel = weights.panels + column * weights.pairs;
        for (int64_t row = 0; row < count; row += TILE) {
            const int64_t height = std::min<int64_t>(TILE, count - row);
            Rows tile = rows;
            tile.at += row * rows.stride;
            Sums sums;
            sum_tile(height, tile, panel, pairs, width, sums);
            for (int64_t i = 0; i < height; i++)
                for (int64_t j = 0; j < width / LANES; j++)
                    put(row + i, column + j * LANES,
                        sums[i][j] + load(weights.bias + column + j * LANES));
        }
    }
}

}  // namespace
