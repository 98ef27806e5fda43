// Columns and rows of maps, as many as a vector has lanes: read, scaled and looked at.
//
// Compiled into each kind of processor's copy of the kernels.

#pragma once

#include <cstdint>
#include <cstring>

#include "products.h"
#include "vectors.h"

namespace {

// log(x) of x > 0, to about 1e-7: that of the power of two, and a polynomial in what is left, which
// was fitted to the smallest error from sqrt(1/2) to sqrt(2).
inline Vector logarithm(Vector x) {
    const Integers bits = (Integers)x, power = (bits - 0x3f3504f3) >> 23;  // from sqrt(1/2) on
    const Vector n = __builtin_convertvector(power, Vector);
    const Vector r = (Vector)(bits - (power << 23)) - 1.0f, square = r * r;
    Vector p = r * 8.700435915e-2f - 1.426748697e-1f;
    p = p * r + 1.491476788e-1f;
    p = p * r - 1.657758467e-1f;
    p = p * r + 1.996306380e-1f;
    p = p * r - 2.500133704e-1f;
    p = p * r + 3.333391074e-1f;
    return n * 6.931471806e-1f + (r + (p * r - 0.5f) * square);
}

// Which of `all` places lie in the lanes of one group. The last one goes back to be full, and
// leaves out what the one before it has: lanes from `begin` to `end` count.
struct Group {
    int64_t first;
    int begin, end;
    Group(int64_t number, int64_t all) {
        const int64_t wanted = number * LANES, last = all > LANES ? all - LANES : 0;
        first = wanted < last ? wanted : last;
        begin = int(wanted - first);
        end = all < LANES ? int(all) : LANES;
    }
    int64_t place(int lane) const { return first + (lane < end ? lane : end - 1); }
    Vector mask() const {
        Vector mask;
        for (int lane = 0; lane < LANES; lane++) mask[lane] = lane >= begin && lane < end;
        return mask;
    }
    void write(const Vector& vector, float* places) const {  // of all groups
        float lanes[LANES];
        std::memcpy(lanes, &vector, sizeof lanes);
        std::memcpy(places + first + begin, lanes + begin, size_t(end - begin) * sizeof(float));
    }
};

int64_t groups(int64_t places) { return (places + LANES - 1) / LANES; }

// Columns of maps that lie one after the other, each [N, N]: one for each lane of a group.
class Columns {
public:
    Columns(const Group& group, int64_t N) : N_(N) {
        for (int lane = 0; lane < LANES; lane++) {
            const int64_t place = group.place(lane);
            offsets_[lane] = place / N * N * N + place % N;
        }
        const int64_t split = N - group.first % N;  // lanes from here on are of the next map
        second_ = offsets_[LANES - 1] - (LANES - 1);
        near_ = group.end == LANES && N >= LANES;
        for (int lane = 0; lane < LANES; lane++) next_[lane] = lane >= split ? -1 : 0;
        one_ = split >= LANES;
    }
    // Query by query, [N], to `to`; the mean of each. Those of `next` are called for meanwhile:
    // steps of whole rows are nothing that a processor foresees.
    Vector read(const float* maps, const float* next, Vector* to) const {
        const float *first = maps + offsets_[0], *second = maps + second_;
        const float* soon = next + offsets_[0];
        const auto one = [&](int64_t q) {
            __builtin_prefetch(soon + q * N_);
            __builtin_prefetch(soon + q * N_ + LANES - 1);
            return to[q] = load(first + q * N_);
        };
        const auto two = [&](int64_t q) {
            return to[q] = next_ ? load(second + q * N_) : load(first + q * N_);
        };
        const auto each = [&](int64_t q) {
            for (int lane = 0; lane < LANES; lane++) to[q][lane] = maps[offsets_[lane] + q * N_];
            return to[q];
        };
        return (!near_ ? sum(N_, each) : one_ ? sum(N_, one) : sum(N_, two)) / float(N_);
    }

private:
    int64_t N_, offsets_[LANES], second_;
    Integers next_;
    bool near_, one_;
};

// Rows of maps that lie one after the other: those of a group, as they lie.
class Rows {
public:
    // `left` rows are known to lie from the first map's first one on.
    Rows(const Group& group, int64_t N, int64_t left)
        : N_(N), first_(group.first), end_(left * N), rows_(group.end) {
        for (int lane = 0; lane < LANES; lane++) lanes_[lane] = lane;
    }

    // To unit length, those of a mask's lanes, [LANES, N] in N vectors. Those of `next` are called
    // for meanwhile.
    void scale(const float* maps, const float* next, Vector mask, Vector* to) const {
        Vector squares[LANES];
        for (int row = 0; row < rows_; row++)
            squares[row] = over(maps, row, [](int64_t, Vector x) { return x * x; });
        for (int row = rows_; row < LANES; row++) squares[row] = Vector{};
        const Vector unit = inverse(across(squares)) * mask;
        if (rows_ < LANES) std::memset(to, 0, size_t(N_) * sizeof(Vector));
        for (int row = 0; row < rows_; row++) {
            // What ends a row writes over the next one's start, which comes after it.
            float* place = reinterpret_cast<float*>(to) + row * N_;
            const float share = unit[row];
            const float* soon = next + (first_ + row) * N_;
            over(maps, row, [&](int64_t k, Vector x) {
                __builtin_prefetch(soon + k);
                x *= share;
                std::memcpy(place + k, &x, sizeof x);
                return x;
            });
        }
    }

    // Entropy and attention distance of each row.
    void look(const float* maps, const float* reach, int64_t prefix, Vector& entropy,
              Vector& distance) const {
        Vector entropies[LANES], fars[LANES], patches[LANES];
        for (int row = 0; row < rows_; row++) {
            const int64_t token = (first_ + row) % N_;
            Vector far = {}, of_patches = {};
            entropies[row] = over(maps, row, [&](int64_t k, Vector x) {
                far += x * read(reach, token, k, N_ * N_);
                of_patches += lanes_ >= int32_t(prefix - k) ? x : Vector{};
                return -x * logarithm(larger(x, Vector{} + TINY));
            });
            fars[row] = far, patches[row] = of_patches;
        }
        for (int row = rows_; row < LANES; row++)
            entropies[row] = fars[row] = patches[row] = Vector{};
        entropy = across(entropies);
        distance = across(fars) / larger(across(patches), Vector{} + TINY);
    }

private:
    // The sum of what `each` makes of a row's entries, LANES at once, zeros behind the last one.
    template <typename Each>
    Vector over(const float* maps, int row, Each each) const {
        Vector sums = {};
        for (int64_t k = 0; k < N_; k += LANES) sums += each(k, read(maps, first_ + row, k, end_));
        return sums;
    }

    // Of rows [.., N], which end at `end`.
    Vector read(const float* rows, int64_t row, int64_t k, int64_t end) const {
        const int64_t place = row * N_ + k;
        if (k + LANES <= N_) return load(rows + place);
        if (place + LANES <= end) return lanes_ < int32_t(N_ - k) ? load(rows + place) : Vector{};
        Vector last = {};
        for (int lane = 0; lane < N_ - k; lane++) last[lane] = rows[place + lane];
        return last;
    }

    int64_t N_, first_, end_;
    int rows_;
    Integers lanes_;
};

}  // namespace
