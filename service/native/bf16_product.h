// Rows times weights, both bfloat16, in sums of float.
//
// A tile of 6 rows and up to 64 columns stays in registers while it is summed. Pairs lie along the
// axis that is summed: a row's as they are, each broadcast to all lanes; weights in panels of 64
// columns (the last one narrower, a multiple of 16), one after the other, as bf16.py packs them.

#pragma once

#include <algorithm>
#include <cstdint>

#include "bf16.h"
#include "bf16_layers.h"

namespace {

constexpr int TILE = 6, PANEL = 64, STEP = 16;
typedef Vector Sums[TILE][PANEL / LANES];

template <int ROWS, int VECTORS>
void sum_tile(const uint16_t* rows, int64_t stride, const uint32_t* panel, int64_t pairs,
              Sums& sums) {
    Vector tile[ROWS][VECTORS] = {};
    for (int64_t k = 0; k < pairs; k++) {
        Pairs weights[VECTORS];
#pragma GCC unroll 8
        for (int j = 0; j < VECTORS; j++)
            weights[j] = load_pairs(panel + (k * VECTORS + j) * LANES);
#pragma GCC unroll 6
        for (int i = 0; i < ROWS; i++) {
            const Pairs row = pair_to_all(pair_at(rows + i * stride + 2 * k));
#pragma GCC unroll 8
            for (int j = 0; j < VECTORS; j++)
                tile[i][j] = add_products(tile[i][j], weights[j], row);
        }
    }
    for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < VECTORS; j++) sums[i][j] = tile[i][j];
}

template <int ROWS>
void sum_tile(const uint16_t* rows, int64_t stride, const uint32_t* panel, int64_t pairs,
              int64_t width, Sums& sums) {
    switch (width / STEP) {
        case 1: return sum_tile<ROWS, 1 * STEP / LANES>(rows, stride, panel, pairs, sums);
        case 2: return sum_tile<ROWS, 2 * STEP / LANES>(rows, stride, panel, pairs, sums);
        case 3: return sum_tile<ROWS, 3 * STEP / LANES>(rows, stride, panel, pairs, sums);
        default: return sum_tile<ROWS, 4 * STEP / LANES>(rows, stride, panel, pairs, sums);
    }
}

inline void sum_tile(int64_t count, const uint16_t* rows, int64_t stride, const uint32_t* panel,
                     int64_t pairs, int64_t width, Sums& sums) {
    switch (count) {
        case 1: return sum_tile<1>(rows, stride, panel, pairs, width, sums);
        case 2: return sum_tile<2>(rows, stride, panel, pairs, width, sums);
        case 3: return sum_tile<3>(rows, stride, panel, pairs, width, sums);
        case 4: return sum_tile<4>(rows, stride, panel, pairs, width, sums);
        case 5: return sum_tile<5>(rows, stride, panel, pairs, width, sums);
        default: return sum_tile<6>(rows, stride, panel, pairs, width, sums);
    }
}

// Calls put(row, column, vector) with all of rows [count, 2 * pairs] times weights, plus the bias.
// `rows` are `stride` numbers apart.
template <typename Put>
void product(const uint16_t* rows, int64_t stride, int64_t count, const Weights& weights, Put put) {
    for (int64_t column = 0; column < weights.columns; column += PANEL) {
        const int64_t width = std::min<int64_t>(PANEL, weights.columns - column);
        const uint32_t* panel = weights.panels + column * weights.pairs;
        for (int64_t row = 0; row < count; row += TILE) {
            const int64_t high = std::min<int64_t>(TILE, count - row);
            Sums sums;
            sum_tile(high, rows + row * stride, stride, panel, weights.pairs, width, sums);
            for (int64_t i = 0; i < high; i++)
                for (int64_t j = 0; j < width / LANES; j++)
                    put(row + i, column + j * LANES,
                        sums[i][j] + load(weights.bias + column + j * LANES));
        }
    }
}

}  // namespace
