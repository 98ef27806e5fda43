// Rows times weights: both in bfloat16, in sums of float; or in 8 bits, in sums of integers.
//
// A tile of up to 6 rows and 64 columns stays in registers while it is summed. Words of 32 bits hold
// two or four neighbours along the axis that is summed: a row's as they are, each broadcast to all
// lanes; weights in panels of 64 columns (the last one narrower, a multiple of 16), one after the
// other, as the service packs them (inference/reduced/layers.py).

#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "bf16.h"
#include "int8.h"
#include "weights.h"

namespace {

#if defined(__AVX512BF16__)
constexpr int TILE = 6;
#else
constexpr int TILE = 2;  // quicker to compile
#endif
constexpr int PANEL = 64, STEP = 16;

// `count` rows in each of some lines; rows are `stride` numbers apart. A row consists of segments of
// as many words, one for a linear layer, and one for each row of a convolution's window. Lines and
// segments are `line` numbers apart, times `line_step` for lines.
template <typename Number>
struct Rows {
    const Number* at;
    int64_t stride, count, lines = 1, line = 0, line_step = 1, segments = 1;
};

// Of uint16_t, which are numbers of bfloat16, or of uint8_t.
template <typename Number>
constexpr int PER_WORD = 4 / sizeof(Number);
template <typename Number>
using SumsOf = std::conditional_t<PER_WORD<Number> == 2, Vector, Integers>;

inline Vector as_floats(Vector sums, const Weights&, int64_t) { return sums; }
inline Vector as_floats(Integers sums, const Weights& weights, int64_t column) {
    return __builtin_convertvector(sums, Vector) * load(weights.steps + column);
}

// The sums of a tile whose first column is `column`, and put(row, column, vector) with each and the
// bias.
template <int HEIGHT, int VECTORS, typename Number, typename Put>
void sum_tile_of(const Rows<Number>& rows, const Number* first, const Weights& layer,
                 int64_t column, Put put) {
    SumsOf<Number> tile[HEIGHT][VECTORS] = {};
    const uint32_t* panel = layer.panels + column * layer.words;
    const int64_t words = layer.words / rows.segments;
    for (int64_t segment = 0; segment < rows.segments; segment++) {
        const Number* at = first + segment * rows.line;
        for (int64_t k = 0; k < words; k++, panel += VECTORS * LANES) {
            Bits weights[VECTORS];
#pragma GCC unroll 8
            for (int j = 0; j < VECTORS; j++) weights[j] = load_words(panel + j * LANES);
#pragma GCC unroll 6
            for (int i = 0; i < HEIGHT; i++) {
                const Bits row = word_to_all(word_at(at + i * rows.stride + PER_WORD<Number> * k));
#pragma GCC unroll 8
                for (int j = 0; j < VECTORS; j++)
                    tile[i][j] = add_products(tile[i][j], weights[j], row);
            }
        }
    }
#pragma GCC unroll 6
    for (int i = 0; i < HEIGHT; i++)
#pragma GCC unroll 8
        for (int j = 0; j < VECTORS; j++) {
            const int64_t at = column + j * LANES;
            put(i, at, as_floats(tile[i][j], layer, at) + load(layer.bias + at));
        }
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
template <typename Number, typename Put>
void product(const Rows<Number>& rows, const Weights& weights, Put put) {
    const int64_t tiles = (rows.count + TILE - 1) / TILE;
    for (int64_t column = 0; column < weights.columns; column += PANEL) {
        const int64_t width = std::min<int64_t>(PANEL, weights.columns - column);
        for (int64_t line = 0; line < rows.lines; line++)
            for (int64_t tile = 0; tile < tiles; tile++) {
                const int64_t row = rows.count * tile / tiles;
                const int64_t height = rows.count * (tile + 1) / tiles - row;
                sum_tile(height, width, rows,
                         rows.at + line * rows.line_step * rows.line + row * rows.stride, weights,
                         column, [=, &put](int64_t i, int64_t at, Vector sums) {
                             put(line, row + i, at, sums);
                         });
            }
    }
}

}  // namespace
