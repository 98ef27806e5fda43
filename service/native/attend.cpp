// Multi-head attention with or without Re-attention, fused: no map has to be written to memory.
//
// A tile of queries is one vector wide: lane w of every vector is query w. The scores of all heads
// for these queries stay in the cache while they are computed (Q K^T), normalised (softmax), mixed
// over heads (Re-attention) and multiplied by V. No step crosses lanes: keys and values are read as
// they lie, each number broadcast to all lanes. Maps are written only if they are asked for.
//
// Softmax subtracts each row's largest score, so no exponential overflows. What is no number stays
// none, as in a softmax of single steps: a row with NaN or +inf, and one of nothing but -inf, is NaN
// as a whole, and Re-attention carries it to all heads. Beside numbers, -inf gets the weight 0.
// NaN also reaches the output through V: any weight, even 0, times NaN is NaN.
//
// Compiled once for each instruction set, under the name that ATTEND stands for.

#include <cstdint>
#include <cstring>

#include "attend.h"
#include "exp_log.h"
#include "vectors.h"

namespace {

constexpr int ROWS = 12;  // keys at a time: accumulators that fit into registers beside operands

// scores[j] = keys[j] . query for COUNT keys; `most` is each lane's largest score so far. It forgets
// NaN that is followed by numbers: the sum of exponentials does not.
template <int COUNT>
inline void score(const float* keys, int64_t stride, const Vector* query, int64_t width,
                  Vector* scores, Vector& most) {
    Vector sums[COUNT] = {};
    for (int64_t i = 0; i < width; i++) {
        const Vector at = query[i];
#pragma GCC unroll 12
        for (int j = 0; j < COUNT; j++) sums[j] += keys[j * stride + i] * at;
    }
    for (int j = 0; j < COUNT; j++) {
        scores[j] = sums[j];
        most = larger(most, sums[j]);
    }
}

// columns[j] = sum over keys of map[n] * values[n][j], for COUNT columns.
template <int COUNT>
inline void gather(const Vector* map, int64_t keys, const float* values, int64_t stride,
                   Vector* columns) {
    Vector sums[COUNT] = {};
    for (int64_t n = 0; n < keys; n++) {
        const Vector weight = map[n];
        const float* value = values + n * stride;
#pragma GCC unroll 16
        for (int j = 0; j < COUNT; j++) sums[j] += value[j] * weight;
    }
    for (int j = 0; j < COUNT; j++) columns[j] = sums[j];
}

// Scores to exponentials, in place; softmax is these divided by their sums, which are returned.
inline Vector exponentials(Vector* scores, int64_t keys, Vector most) {
    Vector sum = {};
    for (int64_t n = 0; n < keys; n++) {
        const Vector e = exponential(scores[n] - most);
        scores[n] = e;
        sum += e;
    }
    return sum;
}

// maps[g][n] = offset[g] + sum over h of theta[g][h] * maps[h][n] * share[h], in place.
template <int COUNT>
inline void mix(const Attention& a, Vector* maps, const Vector* shares, Vector* before) {
    const int64_t H = a.heads;
    for (int64_t h = 0; h < H; h++)
        for (int j = 0; j < COUNT; j++)
            before[h * COUNT + j] = maps[h * a.keys + j] * shares[h];
    int64_t g = 0;
    for (; g + 4 <= H; g += 4) {
        Vector sums[4][COUNT];
        for (int i = 0; i < 4; i++)
            for (int j = 0; j < COUNT; j++) sums[i][j] = Vector{} + a.offset[g + i];
        for (int64_t h = 0; h < H; h++)
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++)
#pragma GCC unroll 4
                for (int j = 0; j < COUNT; j++)
                    sums[i][j] += a.theta[(g + i) * H + h] * before[h * COUNT + j];
        for (int i = 0; i < 4; i++)
            for (int j = 0; j < COUNT; j++) maps[(g + i) * a.keys + j] = sums[i][j];
    }
    for (; g < H; g++) {
        Vector sums[COUNT];
        for (int j = 0; j < COUNT; j++) sums[j] = Vector{} + a.offset[g];
        for (int64_t h = 0; h < H; h++)
            for (int j = 0; j < COUNT; j++) sums[j] += a.theta[g * H + h] * before[h * COUNT + j];
        for (int j = 0; j < COUNT; j++) maps[g * a.keys + j] = sums[j];
    }
}

// Writes the tile's rows of every head's map, scaled by `shares` unless null.
inline void write_maps(const Attention& a, Vector* maps, const Vector* shares, float* out,
                       int64_t image, int64_t first, int count) {
    for (int64_t h = 0; h < a.heads; h++) {
        Vector* map = maps + h * a.keys;
        if (shares)
            for (int64_t n = 0; n < a.keys; n++) map[n] *= shares[h];
        float* rows[LANES];
        for (int w = 0; w < count; w++)
            rows[w] = out + ((image * a.heads + h) * a.queries + first + w) * a.keys;
        write_transposed(map, a.keys, rows, count);
    }
}

void tile(const Attention& a, int64_t number, Vector* scratch) {
    const int64_t N = a.keys, H = a.heads, D = a.width, stride = H * D;
    const int64_t tiles = (a.queries + LANES - 1) / LANES, image = number / tiles;
    const int64_t first = number % tiles * LANES;
    const int count = a.queries - first < LANES ? int(a.queries - first) : LANES;
    Vector* maps = scratch;                // [H, N]
    Vector* columns = maps + H * N;        // [D], of queries, then of outputs
    Vector* shares = columns + D;          // [H], 1 / sums of softmax
    Vector* before = shares + H;           // [H, 4]
    for (int64_t h = 0; h < H; h++) {
        const float* rows[LANES];  // an incomplete tile repeats its last query
        for (int w = 0; w < LANES; w++) {
            const int64_t query = first + (w < count ? w : count - 1);
            rows[w] = a.q + (image * a.queries + query) * stride + h * D;
        }
        read_transposed(rows, D, columns);
        const float* keys = a.k + image * N * stride + h * D;
        Vector* scores = maps + h * N;
        Vector most = Vector{} - __builtin_inff();
        int64_t n = 0;
        for (; n + ROWS <= N; n += ROWS)
            score<ROWS>(keys + n * stride, stride, columns, D, scores + n, most);
        for (; n + 4 <= N; n += 4)
            score<4>(keys + n * stride, stride, columns, D, scores + n, most);
        for (; n < N; n++) score<1>(keys + n * stride, stride, columns, D, scores + n, most);
        shares[h] = 1.0f / exponentials(scores, N, most);
    }
    if (a.softmax) {
        write_maps(a, maps, shares, a.softmax, image, first, count);
        for (int64_t h = 0; h < H; h++) shares[h] = Vector{} + 1.0f;
    }
    if (a.theta) {
        int64_t n = 0;
        for (; n + 4 <= N; n += 4) mix<4>(a, maps + n, shares, before);
        for (; n < N; n++) mix<1>(a, maps + n, shares, before);
    }
    if (a.reattention) write_maps(a, maps, nullptr, a.reattention, image, first, count);
    for (int64_t h = 0; h < H; h++) {
        const float* values = a.v + image * N * stride + h * D;
        const Vector* map = maps + h * N;
        int64_t i = 0;
        for (; i + 16 <= D; i += 16) gather<16>(map, N, values + i, stride, columns + i);
        for (; i + 4 <= D; i += 4) gather<4>(map, N, values + i, stride, columns + i);
        for (; i < D; i++) gather<1>(map, N, values + i, stride, columns + i);
        if (!a.theta)
            for (i = 0; i < D; i++) columns[i] *= shares[h];
        float* rows[LANES];
        for (int w = 0; w < count; w++)
            rows[w] = a.out + (image * a.queries + first + w) * stride + h * D;
        write_transposed(columns, D, rows, count);
    }
}

}  // namespace

extern const Kernel ATTEND = {
    LANES,
    [](const Attention& a) {
        return Bytes{size_t(a.heads * a.keys + a.width + 5 * a.heads)} * sizeof(Vector);
    },
    [](const Attention& a, int64_t number, void* scratch) {
        tile(a, number, static_cast<Vector*>(scratch));
    },
};
