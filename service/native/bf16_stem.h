// The interface of bf16_stem.cpp.

#pragma once

#include <cstdint>

#include "sizes.h"
#include "weights.h"

constexpr int64_t MOST_CHANNELS = 4;  // of an image

// Along one axis. Weights are [window, words of a row of the window, columns].
struct Convolution {
    int64_t window, stride, padding;
    int64_t out_of(int64_t in) const { return (in + 2 * padding - window) / stride + 1; }
};

// Three convolutions of images whose channels lie together, the first two with a ReLU.
struct Stem {
    const uint8_t* images;  // [images, height, width, channels]
    const float* offset;    // [channels], subtracted from pixels; borders are padded with the rest, 0
    float* out;             // [images, patches, columns of the last convolution that count]
    Convolution convolutions[3];
    Weights weights[3];
    int64_t images_count, height, width, channels, features;
    int64_t rows_of_patches, patches_of_row;
};

struct StemKernel {
    Bytes (*scratch_bytes)(const Stem&, int64_t rows);  // for a task of so many rows of patches
    void (*rows)(const Stem&, int64_t image, int64_t begin, int64_t end, void* scratch);
};
