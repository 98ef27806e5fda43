// A stem of three convolutions in bfloat16, with sums and ReLU in float. A task is some rows of an
// image's patches: what the first two convolutions say of them stays in the cache.
//
// A window's row lies together, because channels are innermost, so a convolution is a product whose
// rows overlap (reduced_product.h). Borders of zeros are part of what is kept.
//
// Compiled once for each instruction set that is worth it, under the name that BF16_STEM is.

#include "bf16_stem.h"

#include <cstring>

#include "reduced_product.h"

namespace {

// The rows [begin, end) of a convolution's input with its padding, [rows, width, channels].
struct Window {
    int64_t begin, end, width, channels;

    int64_t numbers() const { return (end - begin) * width * channels; }
    int64_t numbers_kept() const { return numbers() + 1; }  // a pair may begin at the last one
};

// What a convolution needs for the rows [begin, end) of its output; rows count from the padding.
Window needed(const Convolution& c, int64_t begin, int64_t end, int64_t width, int64_t channels) {
    return {begin * c.stride, (end - 1) * c.stride + c.window, width + 2 * c.padding, channels};
}

struct Windows {
    Window of[3];  // the input of each convolution

    Windows(const Stem& a, int64_t begin, int64_t end) {
        int64_t widths[3] = {a.width}, channels[3] = {a.channels};
        for (int i = 0; i < 2; i++) {
            widths[i + 1] = a.convolutions[i].out_of(widths[i]);
            channels[i + 1] = a.weights[i].columns;
        }
        for (int i = 2; i >= 0; i--) {
            of[i] = needed(a.convolutions[i], begin, end, widths[i], channels[i]);
            if (i) {  // without the padding: rows of the output before
                begin = of[i].begin - a.convolutions[i].padding;
                end = of[i].end - a.convolutions[i].padding;
            }
        }
    }
};

Bytes scratch_bytes(const Stem& a, int64_t rows) {
    Bytes bytes{0};
    for (const Window& window : Windows(a, 0, rows).of)
        bytes = bytes + Bytes{size_t(window.end - window.begin)} * size_t(window.width) *
                            size_t(window.channels) * sizeof(uint16_t) + Bytes{128};
    return bytes;
}

// Makes the padding of a window zeros, and what lies behind its end; `valid` rows of it are none.
void clear(const Window& w, int64_t padding, int64_t valid, uint16_t* kept) {
    const int64_t line = w.width * w.channels, side = padding * w.channels;
    for (int64_t row = w.begin; row < w.end; row++) {
        uint16_t* at = kept + (row - w.begin) * line;
        if (row < padding || row >= padding + valid) {
            std::memset(at, 0, line * sizeof *at);
        } else {
            std::memset(at, 0, side * sizeof *at);
            std::memset(at + line - side, 0, side * sizeof *at);
        }
    }
    kept[w.numbers()] = 0;
}

// Pixels minus their mean, rounded.
void read_pixels(const Stem& a, int64_t image, const Window& window, uint16_t* to) {
    typedef uint8_t Pixels __attribute__((vector_size(LANES)));
    const int64_t padding = a.convolutions[0].padding, line = a.width * a.channels;
    Vector offsets[MOST_CHANNELS];  // of one vector of a line after the other, again and again
    for (int64_t i = 0; i < LANES * a.channels; i++)
        offsets[i / LANES][i % LANES] = a.offset[i % a.channels];
    for (int64_t row = window.begin; row < window.end; row++) {
        const int64_t y = row - padding;
        if (y < 0 || y >= a.height) continue;
        const uint8_t* pixels = a.images + (image * a.height + y) * line;
        uint16_t* at = to + ((row - window.begin) * window.width + padding) * a.channels;
        for (int64_t i = 0, phase = 0; i < line; i += LANES, phase++) {
            if (phase == a.channels) phase = 0;
            const int64_t count = std::min<int64_t>(LANES, line - i);
            Pixels some = {};
            std::memcpy(&some, pixels + i, count);
            const Halves values = rounded(__builtin_convertvector(some, Vector) - offsets[phase]);
            std::memcpy(at + i, &values, count * sizeof(uint16_t));
        }
    }
}

// The rows [begin, end) of a convolution's output: put(y, x, column, vector).
template <typename Put>
void convolve(const Convolution& c, const Weights& weights, const Window& window,
              const uint16_t* from, int64_t begin, int64_t end, int64_t width, Put put) {
    const int64_t line = window.width * window.channels;
    const uint16_t* first = from + (begin * c.stride - window.begin) * line;
    product(Rows<uint16_t>{first, c.stride * window.channels, width, end - begin, line, c.stride,
                           c.window},
            weights, [&](int64_t y, int64_t x, int64_t column, Vector sums) {
                put(begin + y, x, column, sums);
            });
}

void rows(const Stem& a, int64_t image, int64_t begin, int64_t end, void* scratch) {
    const Windows windows(a, begin, end);
    uint16_t* kept[3] = {static_cast<uint16_t*>(scratch)};
    int64_t height = a.height, width = a.width;
    for (int i = 0; i < 3; i++) {
        const Window& window = windows.of[i];
        clear(window, a.convolutions[i].padding, height, kept[i]);
        height = a.convolutions[i].out_of(height);
        if (i < 2) kept[i + 1] = kept[i] + (window.numbers_kept() + 31) / 32 * 32;
    }
    read_pixels(a, image, windows.of[0], kept[0]);
    height = a.height;
    for (int i = 0; i < 2; i++) {
        const Convolution &c = a.convolutions[i], &next = a.convolutions[i + 1];
        const Window& to = windows.of[i + 1];
        height = c.out_of(height), width = c.out_of(width);
        const int64_t first = std::max<int64_t>(0, to.begin - next.padding);
        const int64_t last = std::min(height, to.end - next.padding);
        convolve(c, a.weights[i], windows.of[i], kept[i], first, last, width,
                 [&](int64_t y, int64_t x, int64_t column, Vector sums) {
                     const int64_t row = y + next.padding - to.begin;
                     store(kept[i + 1] + (row * to.width + x + next.padding) * to.channels + column,
                           rounded(sums < 0.0f ? Vector{} : sums));
                 });
    }
    convolve(a.convolutions[2], a.weights[2], windows.of[2], kept[2], begin, end, a.patches_of_row,
             [&](int64_t y, int64_t x, int64_t column, Vector sums) {
                 const int64_t left = std::min<int64_t>(LANES, a.features - column);
                 const int64_t patch = (image * a.rows_of_patches + y) * a.patches_of_row + x;
                 if (left > 0)
                     std::memcpy(a.out + patch * a.features + column, &sums, left * sizeof(float));
             });
}

}  // namespace

extern const StemKernel BF16_STEM = {scratch_bytes, rows};
