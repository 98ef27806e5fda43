// The interface of attend.cu.

#pragma once

#include <cuda_fp16.h>

#include <cstdint>

// A row is a token of an image, [heads * width]. Widths and strides are multiples of 8, rows are
// aligned to 16 bytes.
struct CudaAttention {
    const __half *q, *k, *v;  // on the device; q is scaled already
    const __half* q_bias;     // [heads * width]; null if q includes it
    const __half* theta;      // [heads, heads], out by in; null without Re-attention
    const __half* offset;     // [heads]
    __half* out;              // [images * queries, heads * width]
    int64_t q_stride, k_stride, v_stride;  // from row to row
    int images, queries, keys, heads, width;
};

// Whether the kernel supports this shape, and the GPU's shared memory holds maps of 16 queries.
bool fits(int64_t heads, int64_t keys, int64_t width);

// Returns an error message, or null. `threads` per block; 0 chooses by the number of queries.
const char* attend_cuda(const CudaAttention&, void* stream, int threads = 0);
