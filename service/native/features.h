// What features.cpp computes, and how it is called.

#pragma once

#include <cstdint>

// Of each block's output, [images, tokens, width], and the last one's: [images, blocks].
struct Features {
    const float* const* outputs;
    int64_t images, blocks, tokens, width;
    float* similarity;
};

struct FeaturesKernel {
    void (*compare)(const Features&, int64_t number);  // of images * blocks
};
