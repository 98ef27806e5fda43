// The weights of a layer in bfloat16.

#pragma once

#include <cstdint>

// [columns / 64, pairs, 64] pairs of bfloat16 (bf16_product.h), and the bias.
struct Weights {
    const uint32_t* panels;
    const float* bias;
    int64_t pairs, columns;  // columns are padded with zeros to a multiple of 16
};
