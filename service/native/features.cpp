// The similarity of blocks' outputs (models/measures.py, feature_similarity).
//
// Compiled once for each instruction set, under the name that FEATURES stands for.

#include "features.h"

#include "products.h"

namespace {

// The cosine between a block's output and the last one's, averaged over tokens (Fig. 4). A token
// that is zero in either counts as 0; NaN in a token makes the average NaN.
void compare(const Features& f, int64_t number) {
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
    float sum = 0;
    for (int lane = 0; lane < LANES; lane++) sum += total[lane];
    f.similarity[number] = sum / float(f.tokens);
}

}  // namespace

extern const FeaturesKernel FEATURES = {compare};
