// The layers of a block around its attention, with products in bfloat16 or in 8 bits; norms, GELU and
// what layers add to are in float. A task is some rows (tokens), whose values stay in the cache from
// the first layer to the last.
//
// Compiled once for each instruction set that is worth it, under the name that LAYERS is.

#include "layers.h"

#include <cmath>

#include "reduced_product.h"

namespace {

// Numbers in a row that is padded with zeros to whole vectors.
inline int64_t padded(int64_t width) { return (width + STEP - 1) / STEP * STEP; }

inline float total(Vector x) {
    float sum = 0;
    for (int lane = 0; lane < LANES; lane++) sum += x[lane];
    return sum;
}

// Rounds numbers of a row, from `column` on, to what a layer takes.
inline void put(uint16_t* row, int64_t column, Vector x, const Weights&) {
    store(row + column, rounded(x));
}
inline void put(uint8_t* row, int64_t column, Vector x, const Weights& layer) {
    store(row + column, to_bytes(x * load(layer.scale + column) + load(layer.offset + column)));
}

// Normalises a row of `width` numbers, which zeros pad to whole vectors, for a layer.
template <typename Number>
void normalise(const float* x, int64_t width, float epsilon, const Weights& layer, Number* out) {
    Vector sum = {}, squares = {}, inside = {};  // 1 in the lanes of the last vector that count
    for (int64_t i = 0; i < padded(width); i += LANES) sum += load(x + i);
    const float mean = total(sum) / float(width);
    for (int lane = 0; lane < LANES; lane++) inside[lane] = lane < width % LANES;
    const auto centred = [&](int64_t i) {
        if (i + LANES <= width) return load(x + i) - mean;
        return i < width ? (load(x + i) - mean) * inside : Vector{};
    };
    for (int64_t i = 0; i < padded(width); i += LANES) squares += centred(i) * centred(i);
    const float scale = 1.0f / std::sqrt(total(squares) / float(width) + epsilon);
    for (int64_t i = 0; i < padded(width); i += LANES) put(out, i, centred(i) * scale, layer);
}

// x times the normal distribution's function of x, to 7e-5. The function minus 1/2 is odd: x times a
// polynomial in its square, fitted for the smallest error up to 4.5, beyond which it changes no more.
inline Vector gelu(Vector x) {
    const Vector most = Vector{} + 4.5f;
    Vector t = x < -most ? -most : x;  // NaN passes
    t = t > most ? most : t;
    const Vector s = t * t;
    Vector p = s * 3.187396016e-11f - 3.456167033e-9f;
    p = p * s + 1.646533766e-7f;
    p = p * s - 4.570011077e-6f;
    p = p * s + 8.290529435e-5f;
    p = p * s - 1.048584752e-3f;
    p = p * s + 9.631650695e-3f;
    p = p * s - 6.608397921e-2f;
    p = p * s + 3.987915250e-1f;
    return x * (p * t + 0.5f);
}

// Copies a row and pads it with zeros.
inline void copy_row(const float* x, int64_t width, float* to) {
    std::memcpy(to, x, width * sizeof(float));
    std::memset(to + width, 0, (padded(width) - width) * sizeof(float));
}

template <typename Number>
Bytes linear_scratch(const Linear& a, int64_t rows) {
    const Bytes width{size_t(padded(a.width))};
    return width * sizeof(float) + width * size_t(rows) * sizeof(Number) + Bytes{64};
}

template <typename Number>
void linear(const Linear& a, int64_t begin, int64_t end, void* scratch) {
    const int64_t width = padded(a.width);
    float* row = static_cast<float*>(scratch);
    Number* rows = reinterpret_cast<Number*>(row + width);
    for (int64_t i = 0; i < end - begin; i++) {
        copy_row(a.x + (begin + i) * a.width, a.width, row);
        Number* to = rows + i * width;
        if (a.epsilon >= 0)
            normalise(row, a.width, a.epsilon, a.weights, to);
        else
            for (int64_t j = 0; j < width; j += LANES) put(to, j, load(row + j), a.weights);
    }
    product(Rows<Number>{rows, width, end - begin}, a.weights,
            [&](int64_t, int64_t i, int64_t column, Vector sums) {
                store(a.out + (begin + i) * a.weights.columns + column, rounded(sums));
            });
}

// Rows that attention returned, from `begin` on: as they are, or rounded into `memory`.
inline Rows<uint16_t> attended_rows(const Rest& a, int64_t begin, int64_t rows, uint16_t*) {
    return {a.attended + begin * a.attended_width, a.attended_width, rows};
}
inline Rows<uint8_t> attended_rows(const Rest& a, int64_t begin, int64_t rows, uint8_t* memory) {
    const int64_t width = a.attended_width, stride = padded(width);
    for (int64_t i = 0; i < rows; i++) {
        const uint16_t* from = a.attended + (begin + i) * width;
        for (int64_t j = 0; j < width; j += LANES) {
            Halves some = {};
            std::memcpy(&some, from + j, std::min<int64_t>(LANES, width - j) * sizeof *from);
            put(memory + i * stride, j, widened(some), a.projection);
        }
    }
    return {memory, stride, rows};
}

template <typename Number>
Bytes rest_scratch(const Rest& a, int64_t rows) {
    const Bytes width{size_t(padded(a.width))}, hidden{size_t(a.first.columns)};
    const Bytes attended{size_t(PER_WORD<Number> == 4 ? padded(a.attended_width) : 0)};
    const Bytes numbers = width + hidden + attended;
    return (width * sizeof(float) + numbers * sizeof(Number)) * size_t(rows);
}

template <typename Number>
void rest(const Rest& a, int64_t begin, int64_t end, void* scratch) {
    const int64_t width = padded(a.width), rows = end - begin, inside = a.first.columns;
    float* stream = static_cast<float*>(scratch);  // [rows, width], the residual stream
    Number* normed = reinterpret_cast<Number*>(stream + rows * width);
    Number* hidden = normed + rows * width;
    for (int64_t i = 0; i < rows; i++)
        copy_row(a.x + (begin + i) * a.width, a.width, stream + i * width);
    product(attended_rows(a, begin, rows, hidden + rows * inside), a.projection,
            [&](int64_t, int64_t i, int64_t column, Vector sums) {
                float* to = stream + i * width + column;
                sums += load(to);
                std::memcpy(to, &sums, sizeof sums);
            });
    for (int64_t i = 0; i < rows; i++)
        normalise(stream + i * width, a.width, a.epsilon, a.first, normed + i * width);
    product(Rows<Number>{normed, width, rows}, a.first,
            [&](int64_t, int64_t i, int64_t column, Vector sums) {
                put(hidden + i * inside, column, gelu(sums), a.second);
            });
    product(Rows<Number>{hidden, inside, rows}, a.second,
            [&](int64_t, int64_t i, int64_t column, Vector sums) {
                sums += load(stream + i * width + column);
                float* to = a.out + (begin + i) * a.width + column;
                const int64_t left = std::min<int64_t>(LANES, a.width - column);
                if (left > 0) std::memcpy(to, &sums, left * sizeof(float));
            });
}

template <typename Number>
constexpr LayersKernel of = {linear_scratch<Number>, linear<Number>, rest_scratch<Number>,
                             rest<Number>};

}  // namespace

extern const LayersKernels LAYERS = {of<uint16_t>, of<uint8_t>};
