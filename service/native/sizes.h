// Sizes of memory, computed from shapes that anybody may have written into a graph.

#pragma once

#include <cstddef>
#include <cstdint>

// A number of bytes, elements or rows. What does not fit into it is SIZE_MAX, which no allocation
// grants, instead of a small number.
struct Bytes {
    size_t count;
    Bytes operator*(size_t factor) const {
        size_t product;
        return {__builtin_mul_overflow(count, factor, &product) ? SIZE_MAX : product};
    }
    Bytes operator+(Bytes other) const {
        size_t sum;
        return {__builtin_add_overflow(count, other.count, &sum) ? SIZE_MAX : sum};
    }
};
