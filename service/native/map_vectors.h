// Attention maps, read as many columns or rows at a time as a vector has lanes.
//
// The columns of all heads of an image are numbered consecutively, and so are the rows: number i is
// column or row i % N of head i / N. Compiled into the kernels' copy for each instruction set.

#pragma once

#include <cstdint>
#include <cstring>

#include "exp_log.h"
#include "products.h"
#include "vectors.h"

namespace {

constexpr float TINY = 1e-20f;  // stands for 0 in logarithms and quotients

// One lane each for LANES consecutive columns or rows, out of `all`. The last group starts early
// enough to be full; only its lanes from `begin` to `end` count, as those before are in the group
// before it. If there are fewer than LANES in total, the last one is repeated.
struct Group {
    int64_t first;
    int begin, end;
    Group(int64_t number, int64_t all) {
        const int64_t wanted = number * LANES, last = all > LANES ? all - LANES : 0;
        first = wanted < last ? wanted : last;
        begin = int(wanted - first);
        end = all < LANES ? int(all) : LANES;
    }
    int64_t index(int lane) const { return first + (lane < end ? lane : end - 1); }
    Vector mask() const {
        Vector mask;
        for (int lane = 0; lane < LANES; lane++) mask[lane] = lane >= begin && lane < end;
        return mask;
    }
    // Writes the lanes that count to `row`, which has one element for each of `all`.
    void write(const Vector& vector, float* row) const {
        float lanes[LANES];
        std::memcpy(lanes, &vector, sizeof lanes);
        std::memcpy(row + first + begin, lanes + begin, size_t(end - begin) * sizeof(float));
    }
};

int64_t groups(int64_t all) { return (all + LANES - 1) / LANES; }

// A group's columns of consecutive maps, each [N, N]: a lane is one column, as columns that are
// neighbours lie side by side in memory. A group may span two maps, or more if N < LANES.
class Columns {
public:
    Columns(const Group& group, int64_t N) : N_(N) {
        for (int lane = 0; lane < LANES; lane++) {
            const int64_t column = group.index(lane);
            offsets_[lane] = column / N * N * N + column % N;
        }
        const int64_t split = N - group.first % N;  // lanes from here on belong to the next map
        second_ = offsets_[LANES - 1] - (LANES - 1);
        consecutive_ = group.end == LANES && N >= LANES;
        for (int lane = 0; lane < LANES; lane++) in_second_[lane] = lane >= split ? -1 : 0;
        one_map_ = split >= LANES;
    }
    // Copies the columns to `to`, [N], query by query, and returns their means. The same columns of
    // the maps at `next` are prefetched meanwhile: processors do not predict strides of whole rows.
    Vector read(const float* maps, const float* next, Vector* to) const {
        const float *first = maps + offsets_[0], *second = maps + second_;
        const float* soon = next + offsets_[0];
        const auto one = [&](int64_t q) {
            __builtin_prefetch(soon + q * N_);
            __builtin_prefetch(soon + q * N_ + LANES - 1);
            return to[q] = load(first + q * N_);
        };
        const auto two = [&](int64_t q) {
            return to[q] = in_second_ ? load(second + q * N_) : load(first + q * N_);
        };
        const auto each = [&](int64_t q) {
            for (int lane = 0; lane < LANES; lane++) to[q][lane] = maps[offsets_[lane] + q * N_];
            return to[q];
        };
        return (!consecutive_ ? sum(N_, each) : one_map_ ? sum(N_, one) : sum(N_, two)) / float(N_);
    }

private:
    int64_t N_, offsets_[LANES], second_;
    Integers in_second_;
    bool consecutive_, one_map_;
};

// A group's rows of consecutive maps, each read along its keys.
class Rows {
public:
    // `count` rows, from the first row of the first map on, may be read.
    Rows(const Group& group, int64_t N, int64_t count)
        : N_(N), first_(group.first), end_(count * N), rows_(group.end) {
        for (int lane = 0; lane < LANES; lane++) lanes_[lane] = lane;
    }

    // Copies the rows of a mask's lanes to `to`, scaled to unit length: [LANES, N] floats in N
    // vectors. Rows outside the mask become zeros. The same rows at `next` are prefetched.
    void scale(const float* maps, const float* next, Vector mask, Vector* to) const {
        Vector squares[LANES];
        for (int row = 0; row < rows_; row++)
            squares[row] = over(maps, row, [](int64_t, Vector x) { return x * x; });
        for (int row = rows_; row < LANES; row++) squares[row] = Vector{};
        const Vector unit = inverse(across(squares)) * mask;
        if (rows_ < LANES) std::memset(to, 0, size_t(N_) * sizeof(Vector));
        for (int row = 0; row < rows_; row++) {
            // A row's last vector runs over the start of the next row, which is written later.
            float* row_out = reinterpret_cast<float*>(to) + row * N_;
            const float scale = unit[row];
            const float* soon = next + (first_ + row) * N_;
            over(maps, row, [&](int64_t k, Vector x) {
                __builtin_prefetch(soon + k);
                x *= scale;
                std::memcpy(row_out + k, &x, sizeof x);
                return x;
            });
        }
    }

    // Entropy and attention distance of each row of a softmax map. A zero adds no entropy, as its
    // logarithm is that of TINY; NaN in a row makes both measures NaN.
    void measure(const float* maps, const float* reach, int64_t prefix, Vector& entropy,
              Vector& distance) const {
        Vector entropies[LANES], distances[LANES], weights[LANES];
        for (int row = 0; row < rows_; row++) {
            const int64_t token = (first_ + row) % N_;
            Vector weighted = {}, weight = {};  // of patches, not of tokens before them
            entropies[row] = over(maps, row, [&](int64_t k, Vector x) {
                weighted += x * read(reach, token, k, N_ * N_);
                weight += lanes_ >= int32_t(prefix - k) ? x : Vector{};
                return -x * logarithm(larger(x, Vector{} + TINY));
            });
            distances[row] = weighted, weights[row] = weight;
        }
        for (int row = rows_; row < LANES; row++)
            entropies[row] = distances[row] = weights[row] = Vector{};
        entropy = across(entropies);
        distance = across(distances) / larger(across(weights), Vector{} + TINY);
    }

private:
    // The sum of each(k, x) over a row's elements x, LANES at a time, padded with zeros.
    template <typename Each>
    Vector over(const float* maps, int row, Each each) const {
        Vector sums = {};
        for (int64_t k = 0; k < N_; k += LANES) sums += each(k, read(maps, first_ + row, k, end_));
        return sums;
    }

    // LANES elements of a row from `k` on. Memory past `end` is not read.
    Vector read(const float* rows, int64_t row, int64_t k, int64_t end) const {
        const int64_t offset = row * N_ + k;
        if (k + LANES <= N_) return load(rows + offset);
        if (offset + LANES <= end) return lanes_ < int32_t(N_ - k) ? load(rows + offset) : Vector{};
        Vector last = {};
        for (int lane = 0; lane < N_ - k; lane++) last[lane] = rows[offset + lane];
        return last;
    }

    int64_t N_, first_, end_;
    int rows_;
    Integers lanes_;
};

}  // namespace
