// The interface of features.cpp.

#pragma once

#include <cstdint>

// The similarity of every block's output to the last block's.
struct Features {
    const float* const* outputs;  // of each block, [images, tokens, width]
    int64_t images, blocks, tokens, width;
    float* similarity;            // [images, blocks]
};

struct FeaturesKernel {
    void (*compare)(const Features&, int64_t number);  // a task: one of images * blocks
};
