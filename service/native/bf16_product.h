// Rows times weights, both bfloat16, in sums of float.
//
// A tile of up to 6 rows and 64 columns stays in registers while it is summed. Pairs lie along the
// axis that is summed: a row's as they are, each broadcast to all lanes; weights in panels of 64
// columns (the last one narrower, a multiple of 16), one after the other, as the service packs them
// (inference/bf16/packing.py).

#pragma once

#include <algorithm>
#include <cstdint>

#include "bf16.h"
#include "bf16_weights.h"

namespace {

#if defined(__AVX512BF16__)
constexpr int TILE = 6;
#else
constexpr int TILE = 2;  // quicker to compile
#endif
constexpr int PANEL = 64, STEP = 16;

// `count` rows in each of some lines; rows are `stride` numbers apart. A row consists of segments of
// as many pairs, one for a linear layer, and one for each row of a convolution's window. Lines and
// segments are `line` numbers apart, times `line_step` for lines.
struct Rows {
    const uint16_t* at;
    int64_t stride, count, lines = 1, line = 0, line_step = 1, segments = 1;
};

// The sums of a tile, and put(row, column, vector) with each and the bias.
template <int HEIGHT, int VECTORS, typename Put>
void sum_tile_of(const Rows& rows, const uint16_t* first, const uint32_t* panel, int64_t pairs,
                 const float* bias, Put put) {
    Vector tile[HEIGHT][VECTORS] = {};
    for (int64_t segment = 0; segment < rows.segments; segment++) {
        const uint16_t* at = first + segment * rows.line;
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
#pragma GCC unroll 6
    for (int i = 0; i < HEIGHT; i++)
#pragma GCC unroll 8
        for (int j = 0; j < VECTORS; j++) put(i, j * LANES, tile[i][j] + load(bias + j * LANES));
}

// The copy of sum_tile_of for a tile of this height and width.
template <int HEIGHT = 1, int STEPS = 1, typename... Rest>
void sum_tile(int64_t height, int64_t width, const Rest&... rest) {
    if constexpr (HEIGHT < TILE)
        if (height > HEIGHT) return sum_tile<HEIGHT + 1, STEPS>(height, width, rest...);
    if constexpr (STEPS * STEP < PANEL)
        if (width > STEPS * STEP) return sum_tile<HEIGHT, STEPS + 1>(height, width, rest...);
    sum_tile_of<HEIGHT, STEPS * STEP / LANES>(rest...);
}

// Calls put(line, row, column, vector) with all rows times weights, plus the bias. The rows of a line
// are divided evenly among its tiles: with few rows, a tile's sums would wait for each other.
template <typename Put>
void product(const Rows& rows, const Weights& weights, Put put) {
    const int64_t pairs = weights.pairs / rows.segments, tiles = (rows.count + TILE - 1) / TILE;
    for (int64_t column = 0; column < weights.columns; column += PANEL) {
        const int64_t width = std::min<int64_t>(PANEL, weights.columns - column);
        for (int64_t line = 0; line < rows.lines; line++)
            for (int64_t tile = 0; tile < tiles; tile++) {
                const int64_t row = rows.count * tile / tiles;
                const int64_t height = rows.count * (tile + 1) / tiles - row;
                sum_tile(height, width, rows,
                         rows.at + line * rows.line_step * rows.line + row * rows.stride,
                         weights.panels + column * weights.pairs, pairs, weights.bias + column,
                         [=, &put](int64_t i, int64_t j, Vector sums) {
                             put(line, row + i, column + j, sums);
                         });
            }
    }
}

}  // namespace
