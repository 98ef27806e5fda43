// Eq. 2 and its companions (models/cosines.py), entropy and attention distance
// (models/measures.py).
//
// A task copies a few columns or rows of all blocks into the cache, and multiplies every pair of
// blocks in registers. For columns, a lane is one column, as neighbours lie side by side in memory.
// Of rows, only the mean of all cosines is needed, so they are scaled to unit length and multiplied
// as they lie. Each map is read once by columns, once by rows, and once to compare its heads.
//
// A column or row of zeros has no direction: its cosines are 0, and those of nearly as short ones go
// to 0, because their squares leave the range of float32. NaN in a map makes every cosine
// that involves it NaN, and so the means of that image, but of no other.
//
// Compiled once for each instruction set, under the name that SIMILARITY stands for.

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "map_vectors.h"
#include "products.h"
#include "similarity.h"

namespace {

// A centred column shorter than this share of the whole one is nothing but rounding errors.
constexpr float NOISE = 1e-6f;
constexpr int QUERIES = 32;  // compared at a time, so that all heads' columns stay in the L1 cache

// In one thread's scratch memory: [N] vectors of every block, to be compared, and their norms.
struct Compared {
    int64_t stride;
    Vector *vectors, *mean, *unit, *centred_unit, *products;
    Compared(const Similarity& s, void* scratch) {
        stride = s.tokens | 1;  // powers of two would map to few sets of the cache
        vectors = static_cast<Vector*>(scratch);
        mean = vectors + s.blocks * stride;
        unit = mean + s.blocks;
        centred_unit = unit + s.blocks;
        products = centred_unit + s.blocks;  // of heads
    }
    static Bytes bytes(const Similarity& s) {
        const Bytes of_blocks = Bytes{size_t(s.tokens | 1) + 3} * size_t(s.blocks);
        return (of_blocks + Bytes{size_t(s.heads)} * size_t(s.heads)) * sizeof(Vector);
    }
    Vector operator()(int64_t block, int64_t n) const { return vectors[block * stride + n]; }

    // Subtracts each column's mean, and keeps it: the mean's part of a column is orthogonal to the
    // rest, so a product of whole columns is that of the rests plus that of the means.
    void take_columns(int64_t index, const float* maps, const float* next, const Columns& columns,
                      int64_t N, Vector mask) {
        Vector* to = vectors + index * stride;
        const Vector average = columns.read(maps, next, to);
        const Vector centred = sum(N, [&](int64_t q) {
            to[q] -= average;
            return to[q] * to[q];
        });
        const Vector whole = centred + average * average * float(N);
        mean[index] = average * std::sqrt(float(N));
        unit[index] = inverse(whole) * mask;
        centred_unit[index] = centred > NOISE * NOISE * whole ? inverse(centred) * mask : Vector{};
    }
};

// Partial results of one image, from its tasks to `finish`.
struct Parts {
    int64_t L, rows;  // of all heads, as many as columns
    float *sums, *entropy, *distance;
    Parts(const Similarity& s, int64_t image) : L(s.blocks), rows(s.heads * s.tokens) {
        sums = s.parts + image * size(s);
        entropy = sums + groups(rows) * 3 * L * L;  // [L, H * N]
        distance = entropy + L * rows;              // [L, H * N]
    }
    float* matrix(int64_t group, int variant) const {  // [L, L], column, centred and row
        return sums + (group * 3 + variant) * L * L;
    }
    static int64_t size(const Similarity& s) {
        const int64_t L = s.blocks, rows = s.heads * s.tokens;
        return groups(rows) * 3 * L * L + (s.reach ? 2 * L * rows : 0);
    }
    static Bytes bytes(const Similarity& s) {
        const size_t L = size_t(s.blocks), rows = size_t(s.heads * s.tokens);
        const Bytes matrices = Bytes{size_t(groups(int64_t(rows)))} * 3 * L * L;
        return (matrices + Bytes{s.reach ? 2u : 0u} * L * rows) * size_t(s.images) * sizeof(float);
    }
};

void compare_columns(const Similarity& s, int64_t image, int64_t number, Compared compared) {
    const int64_t L = s.blocks, N = s.tokens, all = s.heads * N;
    const Group group(number, all);
    const Columns columns(group, N);
    const Parts parts(s, image);
    const auto of_block = [&](int64_t l) { return s.maps[l] + image * all * N; };
    for (int64_t l = 0; l < L; l++)
        compared.take_columns(l, of_block(l), of_block((l + 1) % L), columns, N, group.mask());
    float *column = parts.matrix(number, 0), *centred = parts.matrix(number, 1);
    std::fill_n(column, 2 * L * L, 0.0f);
    float* neighbours = s.neighbours + image * (L - 1) * all;
    Totals totals;
    pairs(L, N, compared, [&](int64_t i, int64_t j, Vector product) {
        const Vector whole = product + compared.mean[i] * compared.mean[j];
        const Vector cosine = whole * (compared.unit[i] * compared.unit[j]);
        totals.add(cosine, column + i * L + j);
        totals.add(product * (compared.centred_unit[i] * compared.centred_unit[j]),
                   centred + i * L + j);
        if (i + 1 == j) group.write(cosine, neighbours + i * all);
    });
    totals.flush();
}

void compare_rows(const Similarity& s, int64_t image, int64_t number, Compared compared) {
    const int64_t L = s.blocks, N = s.tokens, all = s.heads * N;
    const Group group(number, all);
    const Parts parts(s, image);
    const Rows rows(group, N, (s.images - image) * all);
    for (int64_t l = 0; l < L; l++) {
        const float* maps = s.maps[l] + image * all * N;
        const float* next = s.maps[(l + 1) % L] + image * all * N;
        rows.scale(maps, next, group.mask(), compared.vectors + l * compared.stride);
        if (!s.reach) continue;
        Vector entropy, distance;
        rows.measure(maps, s.reach, s.prefix, entropy, distance);
        group.write(entropy, parts.entropy + l * all);
        group.write(distance, parts.distance + l * all);
    }
    float* row = parts.matrix(number, 2);
    std::fill_n(row, L * L, 0.0f);
    Totals totals;
    pairs(L, N, compared,
          [&](int64_t i, int64_t j, Vector product) { totals.add(product, row + i * L + j); });
    totals.flush();
}

// Between the heads of one block; a lane is a key, whose columns are multiplied where they lie.
template <typename At>
void compare_heads(int64_t H, int64_t N, const Group& group, At at, Vector* products, float* out) {
    std::fill_n(products, H * H, Vector{});
    for (int64_t first = 0; first < N; first += QUERIES)
        pairs(
            H, N - first < QUERIES ? N - first : QUERIES,
            [&](int64_t h, int64_t q) { return at(h, first + q); },
            [&](int64_t i, int64_t j, Vector product) { products[i * H + j] += product; });
    Totals totals;
    for (int64_t i = 0; i < H; i++) {
        const Vector unit = inverse(products[i * (H + 1)]) * group.mask();
        for (int64_t j = i; j < H; j++) {
            const Vector other = inverse(products[j * (H + 1)]);
            totals.add(products[i * H + j] * (unit * other), out + i * H + j);
        }
    }
    totals.flush();
}

void compare_heads(const Similarity& s, int64_t image, int64_t block, Compared compared) {
    const int64_t H = s.heads, N = s.tokens;
    const float* maps = s.maps[block] + image * H * N * N;
    float* out = s.between_heads + (image * s.blocks + block) * H * H;
    std::fill_n(out, H * H, 0.0f);
    for (int64_t number = 0; number < groups(N); number++) {
        const Group group(number, N);
        const auto consecutive = [&](int64_t h, int64_t q) {
            return load(maps + (h * N + q) * N + group.first);
        };
        const auto one_by_one = [&](int64_t h, int64_t q) {
            Vector columns;
            for (int w = 0; w < LANES; w++) columns[w] = maps[(h * N + q) * N + group.index(w)];
            return columns;
        };
        if (N < LANES)
            compare_heads(H, N, group, one_by_one, compared.products, out);
        else
            compare_heads(H, N, group, consecutive, compared.products, out);
    }
    for (int64_t i = 0; i < H; i++)
        for (int64_t j = i; j < H; j++) out[i * H + j] = out[j * H + i] = out[i * H + j] / float(N);
}

// Columns and rows of a group are compared one after the other, while its maps may be in a cache.
int64_t tasks_of_image(const Similarity& s) { return 2 * groups(s.heads * s.tokens) + s.blocks; }

void task(const Similarity& s, int64_t number, void* scratch) {
    const int64_t image = number / tasks_of_image(s), of_image = number % tasks_of_image(s);
    const int64_t both = 2 * groups(s.heads * s.tokens);
    const Compared compared(s, scratch);
    if (of_image >= both)
        compare_heads(s, image, of_image - both, compared);
    else if (of_image % 2)
        compare_rows(s, image, of_image / 2, compared);
    else
        compare_columns(s, image, of_image / 2, compared);
}

double mean(const float* from, int64_t count) {
    double sums[4] = {};
    for (int64_t i = 0; i < count; i++) sums[i % 4] += from[i];
    return (sums[0] + sums[1] + sums[2] + sums[3]) / double(count);
}

void finish(const Similarity& s) {
    const int64_t L = s.blocks, H = s.heads, N = s.tokens, all = groups(H * N);
    for (int64_t image = 0; image < s.images; image++) {
        const Parts parts(s, image);
        float* matrices[] = {s.column, s.centred, s.row};
        for (int variant = 0; variant < 3; variant++) {
            float* out = matrices[variant] + image * L * L;
            for (int64_t i = 0; i < L; i++) {
                for (int64_t j = i; j < L; j++) out[i * L + j] = 0;
                for (int64_t group = 0; group < all; group++)
                    for (int64_t j = i; j < L; j++)
                        out[i * L + j] += parts.matrix(group, variant)[i * L + j];
                for (int64_t j = i; j < L; j++)
                    out[j * L + i] = out[i * L + j] = out[i * L + j] / float(H * N);
            }
        }
        if (!s.reach) continue;
        for (int64_t map = 0; map < L * H; map++) {
            const int64_t P = s.prefix, index = image * L * H + map;
            s.entropy[index] = float(mean(parts.entropy + map * N, N));
            s.distance[index] = float(mean(parts.distance + map * N + P, N - P));
        }
    }
}

}  // namespace

extern const SimilarityKernel SIMILARITY = {
    Parts::bytes,
    Compared::bytes,
    [](const Similarity& s) { return s.images * tasks_of_image(s); },
    task,
    finish,
};
