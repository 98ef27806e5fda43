// attend.cpp with products in bfloat16: Q K^T, theta maps and maps V. Softmax is in float.
//
// A tile of queries is one vector wide, as there. What is summed in pairs lies in pairs: columns of
// queries and keys as they are; heads of maps, and keys of maps and values, interleaved.
//
// Compiled once for each instruction set that is worth it, under the name that BF16_ATTEND is.

#include "bf16_attend.h"

#include <type_traits>

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
            sums[j] = add_products(sums[j], at, word_to_all(word_at(keys + j * stride + 2 * i)));
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
            sums[j] = add_products(sums[j], weight, word_to_all(value[j]));
    }
    for (int j = 0; j < COUNT; j++) columns[j] = sums[j];
}

// Re-attention's theta in pairs of heads, [heads, pairs], and its offset [heads].
struct Mixing {
    uint32_t* theta;
    float* offset;
    int64_t heads, keys;
    float uniform;

    void fill(const Bf16Attention& a) const {
        const int64_t P = (heads + 1) / 2;
        for (int64_t g = 0; g < heads; g++) {
            const float* row = a.theta + g * heads;
            offset[g] = a.offset[g];
            for (int64_t h = 0; h < heads; h++) offset[g] += row[h] * uniform;
            for (int64_t p = 0; p < P; p++) {
                const float second = 2 * p + 1 < heads ? row[2 * p + 1] : 0;
                theta[g * P + p] = paired(Vector{} + row[2 * p], Vector{} + second)[0];
            }
        }
    }
};

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

// Maps of COUNT neighbouring keys, mixed: sum over h of theta[g][h] * maps[h][n] * shares[h], plus
// offset[g]; as pairs of keys. A single key is paired with zero.
//
// What is rounded is how far a map is from uniform, 1 / keys, whose part is in the offset: where
// maps are close to uniform, Re-attention's norm magnifies that difference.
template <int COUNT>
inline void mix(const Mixing& m, const Vector* maps, const Vector* shares, Pairs* before,
                Pairs* mixed) {
    const int64_t H = m.heads, P = (H + 1) / 2, stride = (m.keys + 1) / 2;
    const auto weight = [&](int64_t h, int j) {
        return maps[h * m.keys + j] * shares[h] - m.uniform;
    };
    for (int64_t p = 0; p < P; p++)
        for (int j = 0; j < COUNT; j++)
            before[p * COUNT + j] =
                paired(weight(2 * p, j), 2 * p + 1 < H ? weight(2 * p + 1, j) : Vector{});
    const auto some = [&](int64_t g, auto heads) {
        constexpr int HEADS = decltype(heads)::value;
        Vector sums[HEADS][COUNT];
        for (int i = 0; i < HEADS; i++)
            for (int j = 0; j < COUNT; j++) sums[i][j] = Vector{} + m.offset[g + i];
        for (int64_t p = 0; p < P; p++)
#pragma GCC unroll 6
            for (int i = 0; i < HEADS; i++) {
                const Pairs theta = word_to_all(m.theta[(g + i) * P + p]);
#pragma GCC unroll 4
                for (int j = 0; j < COUNT; j++)
                    sums[i][j] = add_products(sums[i][j], before[p * COUNT + j], theta);
            }
        for (int i = 0; i < HEADS; i++)
            for (int j = 0; j < COUNT; j += 2)
                mixed[(g + i) * stride + j / 2] =
                    paired(sums[i][j], j + 1 < COUNT ? sums[i][j + 1] : Vector{});
    };
    int64_t g = 0;
    for (; g + 6 <= H; g += 6) some(g, std::integral_constant<int, 6>());
    for (; g < H; g++) some(g, std::integral_constant<int, 1>());
}

struct Scratch {
    Vector* maps;      // [heads, keys]
    Vector* columns;   // [width], of queries, then of outputs
    Vector* shares;    // [heads], 1 / sums of softmax
    Pairs* before;     // [pairs of heads, 4]
    Pairs* pairs;      // [heads, pairs of keys]
    uint32_t* values;  // [pairs of keys, heads * width]
    Mixing mixing;

    static Bytes bytes(const Bf16Attention& a) {
        const Bytes H{size_t(a.heads)}, P{size_t(a.keys + 1) / 2}, width{size_t(a.width)};
        const Bytes vectors = H * size_t(a.keys) + width + H * 3 + Bytes{2} + H * P.count;
        const Bytes theta = H * (size_t(a.heads) / 2 + 1) + H;
        return vectors * sizeof(Vector) + (P * size_t(a.heads * a.width) + theta) * 4;
    }

    Scratch(const Bf16Attention& a, void* memory) {
        const int64_t H = a.heads, P = (a.keys + 1) / 2;
        maps = static_cast<Vector*>(memory);
        columns = maps + H * a.keys;
        shares = columns + a.width;
        before = reinterpret_cast<Pairs*>(shares + H);
        pairs = before + 2 * H + 2;
        values = reinterpret_cast<uint32_t*>(pairs + H * P);
        uint32_t* theta = values + P * H * a.width;
        float* offset = reinterpret_cast<float*>(theta + H * ((H + 1) / 2));
        mixing = {theta, offset, H, a.keys, 1.0f / float(a.keys)};
    }
};

// Maps [heads, keys] to pairs of keys, [heads, pairs], mixed if there is a theta. The last pair of an
// odd number of keys has a zero.
inline void pair_maps(const Scratch& s, const Bf16Attention& a) {
    const int64_t N = a.keys, H = a.heads, P = (N + 1) / 2;
    if (!a.theta) {
        for (int64_t h = 0; h < H; h++) {
            const Vector* map = s.maps + h * N;
            for (int64_t p = 0; p < N / 2; p++)
                s.pairs[h * P + p] = paired(map[2 * p], map[2 * p + 1]);
            if (N % 2) s.pairs[h * P + P - 1] = paired(map[N - 1], Vector{});
        }
        return;
    }
    const auto some = [&](int64_t n, auto count) {
        mix<decltype(count)::value>(s.mixing, s.maps + n, s.shares, s.before, s.pairs + n / 2);
    };
    int64_t n = 0;
    for (; n + 4 <= N; n += 4) some(n, std::integral_constant<int, 4>());
    for (; n + 2 <= N; n += 2) some(n, std::integral_constant<int, 2>());
    if (n < N) some(n, std::integral_constant<int, 1>());
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
    pair_maps(s, a);
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
    if (a.theta) scratch.mixing.fill(a);
    pair_values(a.v + image * a.keys * a.v_stride, a.v_stride, a.keys, a.heads * a.width,
                scratch.values);
    for (int64_t number = begin; number < end; number++) tile(a, image, number * LANES, scratch);
}

}  // namespace

extern const Bf16Kernel BF16_ATTEND = {LANES, Scratch::bytes, tiles};
