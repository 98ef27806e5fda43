// The interface of bf16_attend.cpp.

#pragma once

#include <cstdint>

#include "sizes.h"

// Tensors have the layout of linear layers' outputs, [images, tokens, stride], in bfloat16. Columns
// are heads * width, with an even width, beginning at `q`, `k` and `v`.
struct Bf16Attention {
    const uint16_t *q, *k, *v;  // q is scaled already, and by log2(e)
    int64_t q_stride, k_stride, v_stride;
    const float* theta;   // [heads, heads], out by in; null without Re-attention
    const float* offset;  // [heads]
    uint16_t* out;        // [images, queries, heads * width]
    int64_t images, queries, keys, heads, width;
};

struct Bf16Kernel {
    int64_t lanes;                                 // queries in a tile
    Bytes (*scratch_bytes)(const Bf16Attention&);  // for each thread, aligned to 64
    // A task: some of an image's ceil(queries / lanes) tiles.
    void (*tiles)(const Bf16Attention&, int64_t image, int64_t begin, int64_t end, void* scratch);
};
