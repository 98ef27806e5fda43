// The weights of a layer, in bfloat16 or in int8.

#pragma once

#include <cstdint>

struct Weights {
    const uint32_t* panels;  // [columns / 64, words, 64] words of numbers (reduced_product.h)
    const float* bias;       // [columns]
    int64_t words, columns;  // columns are padded with zeros to a multiple of 16
    // int8 alone: what a 1 in a sum stands for, [columns]; and what is rounded to an input's uint8,
    // x scale + offset, [numbers of a row, padded with zeros to a multiple of 16].
    const float *steps, *scale, *offset;
};
