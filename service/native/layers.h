// The interface of layers.cpp.

#pragma once

#include <cstdint>

#include "sizes.h"
#include "weights.h"

// out = norm(x) W + b, of rows; without the norm if epsilon is negative.
struct Linear {
    const float* x;  // [rows, width]
    uint16_t* out;   // [rows, columns] in bfloat16
    Weights weights;
    int64_t rows, width;
    float epsilon;
};

// What follows attention in a block: y = x + attended Wp + bp, out = y + gelu(norm(y) W1 + b1) W2 + b2.
struct Rest {
    const uint16_t* attended;  // [rows, attended_width] in bfloat16
    const float* x;            // [rows, width]
    float* out;                // like x
    Weights projection, first, second;
    int64_t rows, width, attended_width;
    float epsilon;
};

struct LayersKernel {
    Bytes (*linear_scratch)(const Linear&, int64_t rows);  // for a task of so many rows
    void (*linear)(const Linear&, int64_t begin, int64_t end, void* scratch);
    Bytes (*rest_scratch)(const Rest&, int64_t rows);
    void (*rest)(const Rest&, int64_t begin, int64_t end, void* scratch);
};

// With products in each of the two precisions.
struct LayersKernels {
    LayersKernel bf16, int8;
};
