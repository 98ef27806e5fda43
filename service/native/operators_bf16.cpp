// ONNX Runtime's operators for stems and attention in bfloat16, on a CPU. The service writes them into
// a graph when it opens a session (inference/reduced): no file holds them.

#include <numeric>

#include "bf16_attend.h"
#include "bf16_stem.h"
#include "reduced_node.h"

extern const Bf16Kernel bf16_attend_avx512_bf16, bf16_attend_baseline;
extern const StemKernel bf16_stem_avx512_bf16, bf16_stem_baseline;

namespace {

// q, k and v, each in the columns of its tensor that begin at `columns`; theta and offset.
template <bool MIXES>
struct Bf16Attend : ReducedNode {
    static constexpr const char* NAME = MIXES ? "Bf16ReAttention" : "Bf16Attention";
    static constexpr size_t INPUTS = MIXES ? 5 : 3;
    static constexpr Element input_element(size_t i) { return i < 3 ? BFLOAT : FLOAT; }
    static constexpr Element output_element() { return BFLOAT; }

    const Bf16Kernel* kernel;
    AttentionNode shapes;
    int64_t columns[3];

    Status* prepare(const void* info) {
        kernel = &CHOOSE_REDUCED(bf16_attend);
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
struct StemNode : ReducedNode {
    static constexpr const char* NAME = "Bf16Stem";
    static constexpr size_t INPUTS = 8;
    static constexpr Element input_element(size_t i) {
        return i == 0 ? BYTE : i >= 2 && i % 2 == 0 ? UNSIGNED : FLOAT;
    }

    const StemKernel* kernel;
    Convolution convolutions[3];
    int64_t features = 0;

    Status* prepare(const void* info) {
        kernel = &CHOOSE_REDUCED(bf16_stem);
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

const Operator stem = make<StemNode>();
const Operator attention = make<Bf16Attend<false>>(), reattention = make<Bf16Attend<true>>();

}  // namespace

extern const Operator* const bf16_operators[] = {&stem, &attention, &reattention};
