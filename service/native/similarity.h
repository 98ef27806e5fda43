// What similarity.cpp computes, and how it is called.

#pragma once

#include <cstddef>
#include <cstdint>

// Of the maps of one stage; a map is [queries, keys], of as many tokens each.
struct Similarity {
    const float* const* maps;  // of each block, [images, heads, tokens, tokens]
    const float* reach;        // [tokens, tokens], pixels between patches; null but for softmax maps
    int64_t images, blocks, heads, tokens;
    int64_t prefix;            // tokens before the patches
    float *column, *row, *centred;  // [images, blocks, blocks]
    float* neighbours;              // [images, blocks - 1, heads, tokens]
    float* between_heads;           // [images, blocks, heads, heads]
    float *entropy, *distance;      // [images, blocks, heads], where there is a reach
    float* parts;                   // what tasks leave for `finish`
};

struct SimilarityKernel {
    size_t (*parts_bytes)(const Similarity&);    // aligned to 64
    size_t (*scratch_bytes)(const Similarity&);  // of one thread, aligned to 64
    int64_t (*tasks)(const Similarity&);
    void (*task)(const Similarity&, int64_t number, void* scratch);
    void (*finish)(const Similarity&);  // after all tasks
};
