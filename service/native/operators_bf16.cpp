// ONNX Runtime's operators for stems and blocks in bfloat16, on a CPU. The service writes them into a
// graph when it opens a session (inference/bf16): no file holds them.

#include <algorithm>
#include <numeric>

#include "bf16_attend.h"
#include "bf16_layers.h"
#include "bf16_stem.h"
#include "instruction_set.h"
#include "interface.h"
#include "tasks.h"

extern const Bf16Kernel bf16_attend_avx512_bf16, bf16_attend_baseline;
extern const LayersKernel bf16_layers_avx512_bf16, bf16_layers_baseline;
extern const StemKernel bf16_stem_avx512_bf16, bf16_stem_baseline;

#if defined(__x86_64__)
#define CHOOSE_BF16(NAME) (has_bf16() ? NAME##_avx512_bf16 : NAME##_baseline)
#else
#define CHOOSE_BF16(NAME) (NAME##_baseline)
#endif

namespace {

constexpr int64_t GROUP = 6;         // rows that are multiplied together
constexpr int64_t MOST_GROUPS = 16;  // of a task, so that what it computes stays in the cache

struct Bf16Node : Node {
    static constexpr const char* PROVIDER = "CPUExecutionProvider";

    int64_t threads = 1;

    Status* read_threads(const void* info) {
        if (Status* s = call<INTEGER_ATTRIBUTE>(api, info, "threads", &threads)) return s;
        return threads > 0 && threads <= LONGEST ? nullptr : error("threads must be positive");
    }

    // The weights of a layer, which are two inputs of the operator.
    Status* read_weights(const Context* context, size_t index, int64_t pairs,
                         Weights& weights) const {
        Tensor panels, bias;
        if (Status* s = read(context, index, panels)) return s;
        if (Status* s = read(context, index + 1, bias)) return s;
        weights = {panels.of<uint32_t>(), bias.of<float>(), pairs, bias.columns()};
        const bool fit = panels.axes == 2 && panels.rows() == pairs && bias.axes == 1 &&
                         panels.columns() == weights.columns && weights.columns % 16 == 0;
        return fit ? nullptr : error("weights do not fit their input and their bias");
    }
};

// Layers that are computed row by row, with weights as inputs.
struct Layers : Bf16Node {
    const LayersKernel* kernel;
    float epsilon = -1;

    Status* prepare(const void* info) {
        kernel = &CHOOSE_BF16(bf16_layers);
        if (Status* s = read_threads(info)) return s;
        return call<FLOAT_ATTRIBUTE>(api, info, "epsilon", &epsilon);
    }

    // As many tasks as threads, or a multiple; all about as large, in whole groups of rows.
    template <typename Task>
    Status* run(const Context* context, int64_t rows, Bytes scratch, const Task& task) const {
        const int64_t groups = (rows + GROUP - 1) / GROUP, most = threads * MOST_GROUPS;
        const int64_t tasks = std::min(groups, (groups + most - 1) / most * threads);
        return run_tasks(*this, context, tasks, scratch, [&](int64_t number, void* memory) {
            const int64_t begin = groups * number / tasks * GROUP;
            task(begin, std::min(rows, groups * (number + 1) / tasks * GROUP), memory);
        });
    }
    static int64_t most_rows(int64_t rows) { return std::min(rows, MOST_GROUPS * GROUP); }
};

bool are_rows(const Tensor& tensor, int64_t rows) {
    return tensor.axes == 2 && tensor.rows() == rows;
}

// x, weights, bias -> rows in bfloat16.
struct LinearNode : Layers {
    static constexpr const char* NAME = "Bf16Linear";
    static constexpr size_t INPUTS = 3;
    static constexpr Element input_element(size_t i) { return i == 1 ? UNSIGNED : FLOAT; }
    static constexpr Element output_element() { return BFLOAT; }

    Status* compute(Context* context) const {
        Tensor x;
        Linear a{};
        if (Status* s = read(context, 0, x)) return s;
        if (x.axes != 2) return error("x must be rows");
        a.x = x.of<float>(), a.rows = x.rows(), a.width = x.columns(), a.epsilon = epsilon;
        if (Status* s = read_weights(context, 1, (a.width + 1) / 2, a.weights)) return s;
        if (Status* s = allocate(context, 0, {a.rows, a.weights.columns}, a.out)) return s;
        return run(context, a.rows, kernel->linear_scratch(a, most_rows(a.rows)),
                   [&](int64_t begin, int64_t end, void* memory) {
                       kernel->linear(a, begin, end, memory);
                   });
    }
};

// attended, x, then weights and bias of the projection and of both layers of the MLP -> like x.
struct RestNode : Layers {
    static constexpr const char* NAME = "Bf16Rest";
    static constexpr size_t INPUTS = 8;
    static constexpr Element input_element(size_t i) {
        return i == 0 ? BFLOAT : i >= 2 && i % 2 == 0 ? UNSIGNED : FLOAT;
    }

    Status* compute(Context* context) const {
        Tensor attended, x;
        Rest a{};
        if (Status* s = read(context, 0, attended)) return s;
        if (Status* s = read(context, 1, x)) return s;
        a.attended = attended.of<uint16_t>(), a.attended_width = attended.columns();
        a.x = x.of<float>(), a.rows = x.rows(), a.width = x.columns(), a.epsilon = epsilon;
        if (!are_rows(attended, a.rows) || !are_rows(x, a.rows) || a.attended_width % 2 ||
            epsilon < 0)
            return error("attended and x do not fit each other");
        if (Status* s = read_weights(context, 2, a.attended_width / 2, a.projection)) return s;
        if (Status* s = read_weights(context, 4, (a.width + 1) / 2, a.first)) return s;
        if (Status* s = read_weights(context, 6, a.first.columns / 2, a.second)) return s;
        const int64_t padded = (a.width + 15) / 16 * 16;
        if (a.projection.columns != padded || a.second.columns != padded)
            return error("layers do not return what they add to");
        if (Status* s = allocate(context, 0, {a.rows, a.width}, a.out)) return s;
        return run(context, a.rows, kernel->rest_scratch(a, most_rows(a.rows)),
                   [&](int64_t begin, int64_t end, void* memory) {
                       kernel->rest(a, begin, end, memory);
                   });
    }
};

// q, k and v, each in the columns of its tensor that begin at `columns`; theta and offset.
template <bool MIXES>
struct Bf16Attend : Bf16Node {
    static constexpr const char* NAME = MIXES ? "Bf16ReAttention" : "Bf16Attention";
    static constexpr size_t INPUTS = MIXES ? 5 : 3;
    static constexpr Element input_element(size_t i) { return i < 3 ? BFLOAT : FLOAT; }
    static constexpr Element output_element() { return BFLOAT; }

    const Bf16Kernel* kernel;
    AttentionNode shapes;
    int64_t columns[3];

    Status* prepare(const void* info) {
        kernel = &CHOOSE_BF16(bf16_attend);
        if (Status* s = read_threads(info)) return s;
        shapes.api = api;
        if (Status* s = shapes.read_shapes(info)) return s;
        if (shapes.keys.width % 2) return error("heads must have an even width");
        size_t count = 3;
        int64_t* const to = columns;
        if (Status* s = call<INTEGERS_ATTRIBUTE>(api, info, "columns", to, &count)) return s;
        for (const int64_t column : columns)
            if (count != 3 || column < 0 || column > LONGEST)
                return error("columns must be those of q, k and v");
        return nullptr;
    }

    Status* compute(Context* context) const {
        AttentionNode::calls++;
        Tensor q, k, v, theta, offset;
        Tensor* inputs[] = {&q, &k, &v, &theta, &offset};
        for (size_t i = 0; i < INPUTS; i++)
            if (Status* s = read(context, i, *inputs[i])) return s;
        const Shape &queries = shapes.queries, &keys = shapes.keys;
        const int64_t images = k.rows() / keys.tokens, D = keys.heads * keys.width;
        if (!are_rows(k, images * keys.tokens) || !are_rows(v, k.rows()) ||
            !are_rows(q, images * queries.tokens) || q.columns() < columns[0] + D ||
            k.columns() < columns[1] + D || v.columns() < columns[2] + D)
            return error("q, k and v do not fit each other and their shapes");
        if (MIXES && !shapes.fit(theta, offset))
            return error("theta or offset does not fit the number of heads");
        Bf16Attention a{};
        a.q = q.of<uint16_t>() + columns[0], a.q_stride = q.columns();
        a.k = k.of<uint16_t>() + columns[1], a.k_stride = k.columns();
        a.v = v.of<uint16_t>() + columns[2], a.v_stride = v.columns();
        a.theta = theta.of<float>(), a.offset = offset.of<float>();
        a.images = images, a.queries = queries.tokens, a.keys = keys.tokens;
        a.heads = keys.heads, a.width = keys.width;
        if (Status* s = allocate(context, 0, {q.rows(), D}, a.out)) return s;
        // Whole images, or as many parts of each as all threads need to have the same work.
        const int64_t tiles = (queries.tokens + kernel->lanes - 1) / kernel->lanes;
        const bool many = images >= 4 * threads;
        const int64_t even = many ? 1 : threads / std::gcd(images, threads);
        const int64_t parts = std::min(tiles, even);
        return run_tasks(*this, context, images * parts, kernel->scratch_bytes(a),
                         [&](int64_t number, void* memory) {
                             const int64_t part = number % parts, end = tiles * (part + 1) / parts;
                             kernel->tiles(a, number / parts, tiles * part / parts, end, memory);
                         });
    }
};

// images, offset, then weights and bias of three convolutions -> features of patches.
struct StemNode : Bf16Node {
    static constexpr const char* NAME = "Bf16Stem";
    static constexpr size_t INPUTS = 8;
    static constexpr Element input_element(size_t i) {
        return i == 0 ? BYTE : i >= 2 && i % 2 == 0 ? UNSIGNED : FLOAT;
    }

    const StemKernel* kernel;
    Convolution convolutions[3];
    int64_t features = 0;

    Status* prepare(const void* info) {
        kernel = &CHOOSE_BF16(bf16_stem);
        if (Status* s = read_threads(info)) return s;
        if (Status* s = call<INTEGER_ATTRIBUTE>(api, info, "features", &features)) return s;
        for (const char* name : {"windows", "strides", "paddings"}) {
            int64_t values[3] = {}, *const to = values;
            size_t count = 3;
            if (Status* s = call<INTEGERS_ATTRIBUTE>(api, info, name, to, &count)) return s;
            const int64_t least = *name == 'p' ? 0 : 1;
            for (int i = 0; i < 3; i++) {
                if (count != 3 || values[i] < least || values[i] > MOST)
                    return error("windows, strides and paddings are those of three convolutions");
                Convolution& c = convolutions[i];
                (*name == 'w' ? c.window : *name == 's' ? c.stride : c.padding) = values[i];
            }
        }
        return nullptr;
    }

    Status* compute(Context* context) const {
        Tensor images, offset;
        if (Status* s = read(context, 0, images)) return s;
        if (Status* s = read(context, 1, offset)) return s;
        Stem a{};
        a.images = images.of<uint8_t>(), a.offset = offset.of<float>(), a.features = features;
        a.images_count = images.shape[0], a.height = images.shape[1], a.width = images.shape[2];
        a.channels = images.shape[3];
        if (images.axes != 4 || offset.axes != 1 || offset.columns() != a.channels ||
            a.channels < 1 || a.channels > MOST_CHANNELS)
            return error("images must be [images, height, width, channels], as many as in offset");
        int64_t channels = a.channels, height = a.height, width = a.width;
        for (size_t i = 0; i < 3; i++) {
            const Convolution& c = a.convolutions[i] = convolutions[i];
            const int64_t pairs = c.window * ((c.window * channels + 1) / 2);
            if (Status* s = read_weights(context, 2 + 2 * i, pairs, a.weights[i])) return s;
            if (height + 2 * c.padding < c.window || width + 2 * c.padding < c.window)
                return error("images are smaller than a convolution's window");
            channels = a.weights[i].columns, height = c.out_of(height), width = c.out_of(width);
        }
        if (features < 1 || features > channels) return error("features do not fit the weights");
        a.rows_of_patches = height, a.patches_of_row = width;
        if (Status* s = allocate(context, 0, {a.images_count, height * width, features}, a.out))
            return s;
        // Rows whose convolutions stay in the cache, or fewer if threads would have nothing to do.
        const Bytes a_row = kernel->scratch_bytes(a, 1);
        const int64_t cached = std::max<int64_t>(1, KEPT_BYTES / int64_t(a_row.count));
        int64_t parts = (height + cached - 1) / cached;
        if (a.images_count < threads) parts = std::max(parts, std::min(height, 2 * threads));
        return run_tasks(*this, context, a.images_count * parts,
                         kernel->scratch_bytes(a, (height + parts - 1) / parts),
                         [&](int64_t number, void* memory) {
                             const int64_t part = number % parts, end = height * (part + 1) / parts;
                             kernel->rows(a, number / parts, height * part / parts, end, memory);
                         });
    }

private:
    static constexpr int64_t MOST = 1024;  // of a window, a stride or a padding
    static constexpr int64_t KEPT_BYTES = 512 * 1024;
};

const Operator linear = make<LinearNode>(), stem = make<StemNode>();
const Operator rest = make<RestNode>();
const Operator attention = make<Bf16Attend<false>>(), reattention = make<Bf16Attend<true>>();

}  // namespace

extern const Operator* const bf16_operators[] = {&stem, &linear, &rest, &attention, &reattention};
