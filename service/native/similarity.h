// The interface of similarity.cpp.

#pragma once

#include <cstdint>

#include "sizes.h"

// All measures of the maps of one stage. A map is [queries, keys], both as many as tokens.
struct Similarity {
    const float* const* maps;  // of each block, [images, heads, tokens, tokens]
    const float* reach;        // [tokens, tokens], pixels between patches; null unless softmax maps
    int64_t images, blocks, heads, tokens;
    int64_t prefix;            // tokens before the patches
    float *column, *row, *centred;  // [images, blocks, blocks]
    float* neighbours;              // [images, blocks - 1, heads, tokens]
    float* between_heads;           // [images, blocks, heads, heads]
    float *entropy, *distance;      // [images, blocks, heads], unless reach is null
    float* parts;                   // partial results, from the tasks to `finish`
};

struct SimilarityKernel {
    Bytes (*parts_bytes)(const Similarity&);    // aligned to 64
    Bytes (*scratch_bytes)(const Similarity&);  // for each thread, aligned to 64
    int64_t (*tasks)(const Similarity&);
    void (*task)(const Similarity&, int64_t number, void* scratch);
    void (*finish)(const Similarity&);  // once all tasks are done
};
