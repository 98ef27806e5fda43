// The interface of attend.cpp.

#pragma once

#include <cstdint>

#include "sizes.h"

// Tensors have the layout of linear layers' outputs: [images, tokens, heads * width].
struct Attention {
    const float *q, *k, *v;  // q is scaled already
    const float* theta;      // [heads, heads], out by in; null without Re-attention
    const float* offset;     // [heads]
    float* out;              // like q
    int64_t images, queries, keys, heads, width;
    float *softmax, *reattention;  // maps [images, heads, queries, keys], null if not wanted
};

struct Kernel {
    int64_t lanes;                             // queries in a tile
    Bytes (*scratch_bytes)(const Attention&);  // for each thread, aligned to 64
    // A task: one of images * ceil(queries / lanes).
    void (*tile)(const Attention&, int64_t number, void* scratch);
};
