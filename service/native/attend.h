// What attend.cpp computes, and how it is called.

#pragma once

#include <cstddef>
#include <cstdint>

// Tensors lie as linear layers leave them, heads beside each other: [images, tokens, heads * width].
struct Attention {
    const float *q, *k, *v;  // q scaled
    const float* theta;      // [heads, heads], out by in; null where nothing is mixed
    const float* offset;     // [heads]
    float* out;              // like q
    int64_t images, queries, keys, heads, width;
    float *softmax, *reattention;  // maps [images, heads, queries, keys], null where not wanted
};

struct Kernel {
    int64_t lanes;                                        // queries in a tile
    size_t (*scratch_bytes)(const Attention&);            // of one thread, aligned to 64
    void (*tile)(const Attention&, int64_t number, void* scratch);  // of images * ceil(queries / lanes)
};
