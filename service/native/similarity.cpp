// Eq. 2 and its companions (export/cosines.py), entropy, attention distance and features
// (export/measures.py).
//
// What is compared is brought to the cache for a few columns or rows of all blocks, and multiplied
// pair by pair in registers. A lane is one column, as those lie side by side; rows, of which only
// the mean of all cosines is asked for, are scaled to unit length and multiplied as they lie. Each
// map is read once by columns, once by rows, and once more to compare its heads.
//
// Compiled once for each kind of processor, under the name in SIMILARITY.

#include <cmath>
#include <cstdint>
#include <cstring>

#include "products.h"
#include "similarity.h"

namespace {

constexpr float NOISE = 1e-6f;   // below this share of its length, a centred column is rounding
constexpr int QUERIES = 32;      // of all heads, whose columns stay in the nearest cache

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

// Of every block what is compared, [N] vectors, and what is known of it, in one thread's scratch.
struct Compared {
    int64_t stride;
    Vector *all, *mean, *unit, *loud, *products;
    Compared(const Similarity& s, void* scratch) {
        stride = s.tokens | 1;  // powers of two would share few places of the cache
        all = static_cast<Vector*>(scratch);
        mean = all + s.blocks * stride;
        unit = mean + s.blocks;
        loud = unit + s.blocks;
        products = loud + s.blocks;  // of heads
    }
    static size_t bytes(const Similarity& s) {
        return size_t(s.blocks * ((s.tokens | 1) + 3) + s.heads * s.heads) * sizeof(Vector);
    }
    Vector operator()(int64_t block, int64_t n) const { return all[block * stride + n]; }

    // Columns less their mean, which is kept beside them, at right angles to what is left.
    void take_columns(int64_t index, const float* maps, const float* next, const Columns& columns,
                      int64_t N, Vector mask) {
        Vector* to = all + index * stride;
        const Vector middle = columns.read(maps, next, to);
        const Vector apart = sum(N, [&](int64_t q) {
            to[q] -= middle;
            return to[q] * to[q];
        });
        const Vector whole = apart + middle * middle * float(N);
        mean[index] = middle * std::sqrt(float(N));
        unit[index] = inverse(whole) * mask;
        loud[index] = apart > NOISE * NOISE * whole ? inverse(apart) * mask : Vector{};
    }
};

// Where tasks of one image leave what they found.
struct Parts {
    int64_t L, places;
    float *sums, *entropy, *distance;
    Parts(const Similarity& s, int64_t image) : L(s.blocks), places(s.heads * s.tokens) {
        sums = s.parts + image * size(s);
        entropy = sums + groups(places) * 3 * L * L;  // [L, H * N]
        distance = entropy + L * places;              // [L, H * N]
    }
    float* matrix(int64_t group, int variant) const {  // [L, L], column, centred and row
        return sums + (group * 3 + variant) * L * L;
    }
    static int64_t size(const Similarity& s) {
        const int64_t L = s.blocks, places = s.heads * s.tokens;
        return groups(places) * 3 * L * L + (s.reach ? 2 * L * places : 0);
    }
};

void compare_columns(const Similarity& s, int64_t image, int64_t number, Compared compared) {
    const int64_t L = s.blocks, N = s.tokens, places = s.heads * N;
    const Group group(number, places);
    const Columns columns(group, N);
    const Parts parts(s, image);
    const auto of_block = [&](int64_t l) { return s.maps[l] + image * places * N; };
    for (int64_t l = 0; l < L; l++)
        compared.take_columns(l, of_block(l), of_block((l + 1) % L), columns, N, group.mask());
    float *column = parts.matrix(number, 0), *centred = parts.matrix(number, 1);
    std::memset(column, 0, size_t(2 * L * L) * sizeof(float));
    float* neighbours = s.neighbours + image * (L - 1) * places;
    Totals totals;
    pairs(L, N, compared, [&](int64_t i, int64_t j, Vector product) {
        const Vector whole = product + compared.mean[i] * compared.mean[j];
        const Vector cosine = whole * (compared.unit[i] * compared.unit[j]);
        totals.add(cosine, column + i * L + j);
        totals.add(product * (compared.loud[i] * compared.loud[j]), centred + i * L + j);
        if (i + 1 == j) group.write(cosine, neighbours + i * places);
    });
    totals.flush();
}

void compare_rows(const Similarity& s, int64_t image, int64_t number, Compared compared) {
    const int64_t L = s.blocks, N = s.tokens, places = s.heads * N;
    const Group group(number, places);
    const Parts parts(s, image);
    const Rows rows(group, N, (s.images - image) * places);
    for (int64_t l = 0; l < L; l++) {
        const float* maps = s.maps[l] + image * places * N;
        const float* next = s.maps[(l + 1) % L] + image * places * N;
        rows.scale(maps, next, group.mask(), compared.all + l * compared.stride);
        if (!s.reach) continue;
        Vector entropy, distance;
        rows.look(maps, s.reach, s.prefix, entropy, distance);
        group.write(entropy, parts.entropy + l * places);
        group.write(distance, parts.distance + l * places);
    }
    float* row = parts.matrix(number, 2);
    std::memset(row, 0, size_t(L * L) * sizeof(float));
    Totals totals;
    pairs(L, N, compared,
          [&](int64_t i, int64_t j, Vector product) { totals.add(product, row + i * L + j); });
    totals.flush();
}

// Of one block; lanes are tokens, whose columns are multiplied where they lie.
template <typename At>
void compare_heads(int64_t H, int64_t N, const Group& group, At at, Vector* products, float* out) {
    std::memset(products, 0, size_t(H * H) * sizeof(Vector));
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
    std::memset(out, 0, size_t(H * H) * sizeof(float));
    for (int64_t number = 0; number < groups(N); number++) {
        const Group group(number, N);
        const auto near = [&](int64_t h, int64_t q) {
            return load(maps + (h * N + q) * N + group.first);
        };
        const auto few = [&](int64_t h, int64_t q) {
            Vector columns;
            for (int w = 0; w < LANES; w++) columns[w] = maps[(h * N + q) * N + group.place(w)];
            return columns;
        };
        if (N < LANES)
            compare_heads(H, N, group, few, compared.products, out);
        else
            compare_heads(H, N, group, near, compared.products, out);
    }
    for (int64_t i = 0; i < H; i++)
        for (int64_t j = i; j < H; j++) out[i * H + j] = out[j * H + i] = out[i * H + j] / float(N);
}

// Columns and rows of one group after each other, so that a head's maps may still be in a cache.
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
            const int64_t P = s.prefix, place = image * L * H + map;
            s.entropy[place] = float(mean(parts.entropy + map * N, N));
            s.distance[place] = float(mean(parts.distance + map * N + P, N - P));
        }
    }
}

// Cosine of one block's output to the last one's, mean over tokens (Fig. 4).
void compare_features(const Features& f, int64_t number) {
    const int64_t image = number / f.blocks, block = number % f.blocks, C = f.width;
    const auto token = [&](int64_t of_block, int64_t t) {
        return f.outputs[of_block] + (image * f.tokens + t) * C;
    };
    Vector total = {};
    for (int64_t first = 0; first < f.tokens; first += LANES) {
        const int count = f.tokens - first < LANES ? int(f.tokens - first) : LANES;
        Vector products[LANES] = {}, squares[LANES] = {}, of_last[LANES] = {};
        for (int t = 0; t < count; t++) {
            const float *x = token(block, first + t), *last = token(f.blocks - 1, first + t);
            Vector product = {}, square = {}, other = {};
            int64_t i = 0;
            for (; i + LANES <= C; i += LANES) {
                const Vector a = load(x + i), b = load(last + i);
                product += a * b;
                square += a * a;
                other += b * b;
            }
            for (; i < C; i++) {
                product[0] += x[i] * last[i];
                square[0] += x[i] * x[i];
                other[0] += last[i] * last[i];
            }
            products[t] = product, squares[t] = square, of_last[t] = other;
        }
        total += across(products) * inverse(across(squares)) * inverse(across(of_last));
    }
    f.similarity[number] = 0;
    Totals totals;
    totals.add(total / float(f.tokens), f.similarity + number);
    totals.flush();
}

}  // namespace

extern const SimilarityKernel SIMILARITY = {
    [](const Similarity& s) { return size_t(s.images * Parts::size(s)) * sizeof(float); },
    Compared::bytes,
    [](const Similarity& s) { return s.images * tasks_of_image(s); },
    task,
    finish,
    compare_features,
};
