// attend.cpp with both products in bfloat16: Q K^T and maps V. Softmax and Re-attention are in float.
//
// A tile of queries is one vector wide, as there. What is summed in pairs lies in pairs: columns of
// queries and keys as they are, keys of maps and values interleaved.
//
// Compiled once for each instruction set that is worth it, under the name that BF16_ATTEND is.

#include "bf16_attend.h"

#include <algorithm>

#include "bf16.h"
#include "exp_log.h"

namespace {

constexpr int ROWS = 12;  // keys at a time: accumulators that fit into registers beside operands

// scores[j] = keys[j] . query for COUNT keys; `most` is each lane's largest score so far.
template <int COUNT>
inline void score(const uint16_t* keys, int64_t stride, const Pairs* query, int64_t pairs,
                  Vector* scores, Vector& most) {
    Vector sums[COUNT] = {};
    for (int64_t i = 0; i < pairs; i++) {
        const Pairs at = query[i];
#pragma GCC unroll 12
        for (int j = 0; j < COUNT; j++)
            sums[j] = add_products(sums[j], at, pair_to_all(pair_at(keys + j * stride + 2 * i)));
    }
    for (int j = 0; j < COUNT; j++) {
        scores[j] = sums[j];
        most = larger(most, sums[j]);
    }
}

// columns[j] = sum over keys of map[n] * values[n][j], for COUNT columns.
template <int COUNT>
inline void gather(const Pairs* map, int64_t pairs, const uint32_t* values, int64_t stride,
                   Vector* columns) {
    Vector sums[COUNT] = {};
    for (int64_t n = 0; n < pairs; n++) {
        const Pairs weight = map[n];
        const uint32_t* value = values + n * stride;
#pragma GCC unroll 16
        for (int j = 0; j < COUNT; j++)
            sums[j] = add_products(sums[j], weight, pair_to_all(value[j]));
    }
    for (int j = 0; j < COUNT; j++) columns[j] = sums[j];
}

// Scores to powers of two, in place; softmax is these divided by their sums, which are returned.
inline Vector exponentials(Vector* scores, int64_t keys, Vector most) {
    Vector sum = {};
    for (int64_t n = 0; n < keys; n++) {
        const Vector e = power_of_two(scores[n] - most);
        scores[n] = e;
        sum += e;
    }
    return sum;
}

// before[h] = maps[h][n] * shares[h], and after[g] = offset[g] + sum over h of theta[g][h] * before[h],
// for COUNT neighbouring n, which lie behind each other in `before` and `after`.
template <int COUNT>
inline void mix(const Bf16Attention& a, const Vector* maps, const Vector* shares, Vector* before,
                Vector* after) {
    const int64_t H = a.heads;
    for (int64_t h = 0; h < H; h++)
        for (int j = 0; j < COUNT; j++)
            before[h * COUNT + j] = maps[h * a.keys + j] * shares[h];
    int64_t g = 0;
    for (; g + 6 <= H; g += 6) {
        Vector sums[6][COUNT];
        for (int i = 0; i < 6; i++)
            for (int j = 0; j < COUNT; j++) sums[i][j] = Vector{} + a.offset[g + i];
        for (int64_t h = 0; h < H; h++)
#pragma GCC unroll 6
            for (int i = 0; i < 6; i++)
#pragma GCC unroll 4
                for (int j = 0; j < COUNT; j++)
                    sums[i][j] += a.theta[(g + i) * H + h] * before[h * COUNT + j];
        for (int i = 0; i < 6; i++)
            for (int j = 0; j < COUNT; j++) after[(g + i) * COUNT + j] = sums[i][j];
    }
    for (; g < H; g++)
        for (int j = 0; j < COUNT; j++) {
            Vector sum = Vector{} + a.offset[g];
            for (int64_t h = 0; h < H; h++) sum += a.theta[g * H + h] * before[h * COUNT + j];
            after[g * COUNT + j] = sum;
        }
}

// Maps [heads, keys] to pairs of keys, [heads, pairs], mixed if there is a theta. The last pair of an
// odd number of keys has a zero.
inline void pair_maps(const Bf16Attention& a, const Vector* maps, const Vector* shares,
                      Vector* before, Pairs* pairs) {
    const int64_t N = a.keys, H = a.heads, P = (N + 1) / 2;
    if (!a.theta) {
        for (int64_t h = 0; h < H; h++) {
            const Vector* map = maps + h * N;
            for (int64_t p = 0; p < N / 2; p++)
                pairs[h * P + p] = paired(map[2 * p], map[2 * p + 1]);
            if (N % 2) pairs[h * P + P - 1] = paired(map[N - 1], Vector{});
        }
        return;
    }
    Vector* after = before + 4 * H;
    int64_t n = 0;
    for (; n + 4 <= N; n += 4) {
        mix<4>(a, maps + n, shares, before, after);
        for (int64_t g = 0; g < H; g++) {
            pairs[g * P + n / 2] = paired(after[4 * g], after[4 * g + 1]);
            pairs[g * P + n / 2 + 1] = paired(after[4 * g + 2], after[4 * g + 3]);
        }
    }
    for (; n < N; n += 2) {
        mix<1>(a, maps + n, shares, before, after);
        Vector* next = after + H;
        std::fill(next, next + H, Vector{});
        if (n + 1 < N) mix<1>(a, maps + n + 1, shares, before, next);
        for (int64_t g = 0; g < H; g++) pairs[g * P + n / 2] = paired(after[g], next[g]);
    }
}

// Values [keys, columns] to pairs of keys, [pairs, columns].
inline void pair_values(const uint16_t* v, int64_t stride, int64_t keys, int64_t columns,
                        uint32_t* pairs) {
    for (int64_t n = 0; n < keys; n += 2) {
        const uint16_t *low = v + n * stride, *high = low + stride;
        uint32_t* to = pairs + n / 2 * columns;
        if (n + 1 < keys)
            for (int64_t i = 0; i < columns; i++) to[i] = low[i] | uint32_t(high[i]) << 16;
        else
            for (int64_t i = 0; i < columns; i++) to[i] = low[i];
    }
}

struct Scratch {
    uint32_t* values;  // [pairs of keys, heads * width]
    Vector* maps;      // [heads, keys]
    Vector* columns;   // [width], of queries, then of outputs
    Vector* shares;    // [heads], 1 / sums of softmax
    Vector* before;    // [heads, 4], then as many after mixing
    Pairs* pairs;      // [heads, pairs of keys]

    Scratch(const Bf16Attention& a, void* memory) {
        const int64_t H = a.heads, P = (a.keys + 1) / 2;
        maps = static_cast<Vector*>(memory);
        columns = maps + H * a.keys;
        shares = columns + a.width;
        before = shares + H;
        pairs = reinterpret_cast<Pairs*>(before + 8 * H);
        values = reinterpret_cast<uint32_t*>(pairs + H * P);
    }
    static Bytes bytes(const Bf16Attention& a) {
        const Bytes H{size_t(a.heads)}, P{size_t(a.keys + 1) / 2};
        const Bytes vectors = H * size_t(a.keys) + Bytes{size_t(a.width)} + H * 9 + H * P.count;
        return vectors * sizeof(Vector) + P * size_t(a.heads * a.width) * sizeof(uint32_t);
    }
};

void tile(const Bf16Attention& a, int64_t image, int64_t first, const Scratch& s) {
    const int64_t N = a.keys, H = a.heads, D = a.width, P = (N + 1) / 2;
    const int count = a.queries - first < LANES ? int(a.queries - first) : LANES;
    for (int64_t h = 0; h < H; h++) {
        const float* rows[LANES];  // of pairs; an incomplete tile repeats its last query
        for (int w = 0; w < LANES; w++) {
            const int64_t query = image * a.queries + first + (w < count ? w : count - 1);
            rows[w] = reinterpret_cast<const float*>(a.q + query * a.q_stride + h * D);
        }
        read_transposed(rows, D / 2, s.columns);
        const Pairs* query = reinterpret_cast<const Pairs*>(s.columns);
        const uint16_t* keys = a.k + image * N * a.k_stride + h * D;
        Vector* scores = s.maps + h * N;
        Vector most = Vector{} - __builtin_inff();
        int64_t n = 0;
        for (; n + ROWS <= N; n += ROWS)
            score<ROWS>(keys + n * a.k_stride, a.k_stride, query, D / 2, scores + n, most);
        for (; n + 4 <= N; n += 4)
            score<4>(keys + n * a.k_stride, a.k_stride, query, D / 2, scores + n, most);
        for (; n < N; n++)
            score<1>(keys + n * a.k_stride, a.k_stride, query, D / 2, scores + n, most);
        s.shares[h] = 1.0f / exponentials(scores, N, most);
    }
    pair_maps(a, s.maps, s.shares, s.before, s.pairs);
    for (int64_t h = 0; h < H; h++) {
        const uint32_t* values = s.values + h * D;
        const Pairs* map = s.pairs + h * P;
        int64_t i = 0;
        for (; i + 16 <= D; i += 16) gather<16>(map, P, values + i, H * D, s.columns + i);
        for (; i + 2 <= D; i += 2) gather<2>(map, P, values + i, H * D, s.columns + i);
        if (!a.theta)
            for (i = 0; i < D; i++) s.columns[i] *= s.shares[h];
        for (i = 0; i < D; i += 2)  // pairs of columns are written where single ones were read
            s.columns[i / 2] = (Vector)paired(s.columns[i], s.columns[i + 1]);
        float* rows[LANES];
        for (int w = 0; w < count; w++)
            rows[w] = reinterpret_cast<float*>(
                a.out + ((image * a.queries + first + w) * H + h) * D);
        write_transposed(s.columns, D / 2, rows, count);
    }
}

void tiles(const Bf16Attention& a, int64_t image, int64_t begin, int64_t end, void* memory) {
    const Scratch scratch(a, memory);
    pair_values(a.v + image * a.keys * a.v_stride, a.v_stride, a.keys, a.heads * a.width,
                scratch.values);
    for (int64_t number = begin; number < end; number++) tile(a, image, number * LANES, scratch);
}

}  // namespace

extern const Bf16Kernel BF16_ATTEND = {LANES, Scratch::bytes, tiles};
