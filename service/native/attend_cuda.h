// What attend.cu computes, and how it is called.

#pragma once

#include <cuda_fp16.h>

#include <cstdint>

// Rows are tokens, of all images; a row's heads lie beside each other, [heads * width]. Widths and
// strides are multiples of 8, rows aligned to 16 bytes.
struct CudaAttention {
    const __half *q, *k, *v;  // on the device; q scaled
    const __half* q_bias;     // [heads * width]; null where q has it
    const __half* theta;      // [heads, heads], out by in; null where nothing is mixed
    const __half* offset;     // [heads]
    __half* out;              // [images * queries, heads * width]
    int64_t q_stride, k_stride, v_stride;  // from row to row
    int images, queries, keys, heads, width;
};

// Whether the kernel is one for this shape, and this card has room for the maps of 16 queries.
bool fits(int64_t heads, int64_t keys, int64_t width);

// What went wrong, or null. `threads` of a block, or 0 for what suits the number of queries.
const char* attend_cuda(const CudaAttention&, void* stream, int threads = 0);
