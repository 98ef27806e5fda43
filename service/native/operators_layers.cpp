// ONNX Runtime's operators for the layers of a block, in bfloat16 and in 8 bits, on a CPU. The service
// writes them into a graph when it opens a session (inference/reduced): no file holds them.

#include "layers.h"
#include "reduced_node.h"

extern const LayersKernels layers_avx512_bf16, layers_baseline;

namespace {

constexpr int64_t GROUP = 6;         // rows that are multiplied together
constexpr int64_t MOST_GROUPS = 16;  // of a task, so that what it computes stays in the cache

// Layers that are computed row by row, with weights as inputs.
template <bool IS_INT8>
struct Layers : ReducedNode {
    static constexpr size_t PER_LAYER = IS_INT8 ? 5 : 2;  // inputs: panels, bias, steps ..

    const LayersKernel* kernel;
    float epsilon = -1;

    // What inputs are of that begin with a layer's, whose first one is panels.
    static constexpr Element layer_element(size_t i) { return i % PER_LAYER ? FLOAT : UNSIGNED; }

    Status* prepare(const void* info) {
        const LayersKernels& chosen = CHOOSE_REDUCED(layers);
        kernel = IS_INT8 ? &chosen.int8 : &chosen.bf16;
        if (Status* s = read_threads(info)) return s;
        return call<FLOAT_ATTRIBUTE>(api, info, "epsilon", &epsilon);
    }

    // A layer for rows of so many numbers.
    Status* read_layer(const Context* context, size_t index, int64_t numbers,
                       Weights& weights) const {
        if (IS_INT8) return read_weights_int8(context, index, numbers, weights);
        return read_weights(context, index, (numbers + 1) / 2, weights);
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

// x, and a layer -> rows in bfloat16.
template <bool IS_INT8>
struct LinearNode : Layers<IS_INT8> {
    using Base = Layers<IS_INT8>;
    static constexpr const char* NAME = IS_INT8 ? "Int8Linear" : "Bf16Linear";
    static constexpr size_t INPUTS = 1 + Base::PER_LAYER;
    static constexpr Element input_element(size_t i) {
        return i ? Base::layer_element(i - 1) : FLOAT;
    }
    static constexpr Element output_element() { return BFLOAT; }

    Status* compute(Context* context) const {
        Tensor x;
        Linear a{};
        if (Status* s = this->read(context, 0, x)) return s;
        if (x.axes != 2) return this->error("x must be rows");
        a.x = x.of<float>(), a.rows = x.rows(), a.width = x.columns(), a.epsilon = this->epsilon;
        if (Status* s = this->read_layer(context, 1, a.width, a.weights)) return s;
        if (Status* s = this->allocate(context, 0, {a.rows, a.weights.columns}, a.out)) return s;
        return this->run(context, a.rows,
                         this->kernel->linear_scratch(a, this->most_rows(a.rows)),
                         [&](int64_t begin, int64_t end, void* memory) {
                             this->kernel->linear(a, begin, end, memory);
                         });
    }
};

// attended, x, then the projection and both layers of the MLP -> like x.
template <bool IS_INT8>
struct RestNode : Layers<IS_INT8> {
    using Base = Layers<IS_INT8>;
    static constexpr const char* NAME = IS_INT8 ? "Int8Rest" : "Bf16Rest";
    static constexpr size_t INPUTS = 2 + 3 * Base::PER_LAYER;
    static constexpr Element input_element(size_t i) {
        return i == 0 ? BFLOAT : i == 1 ? FLOAT : Base::layer_element(i - 2);
    }

    Status* compute(Context* context) const {
        Tensor attended, x;
        Rest a{};
        if (Status* s = this->read(context, 0, attended)) return s;
        if (Status* s = this->read(context, 1, x)) return s;
        a.attended = attended.of<uint16_t>(), a.attended_width = attended.columns();
        a.x = x.of<float>(), a.rows = x.rows(), a.width = x.columns(), a.epsilon = this->epsilon;
        if (!are_rows(attended, a.rows) || !are_rows(x, a.rows) || a.attended_width % 2 ||
            a.epsilon < 0)
            return this->error("attended and x do not fit each other");
        const auto layer = [&](size_t number, int64_t numbers, Weights& weights) {
            return this->read_layer(context, 2 + number * Base::PER_LAYER, numbers, weights);
        };
        if (Status* s = layer(0, a.attended_width, a.projection)) return s;
        if (Status* s = layer(1, a.width, a.first)) return s;
        if (Status* s = layer(2, a.first.columns, a.second)) return s;
        const int64_t padded = (a.width + 15) / 16 * 16;
        if (a.projection.columns != padded || a.second.columns != padded)
            return this->error("layers do not return what they add to");
        if (Status* s = this->allocate(context, 0, {a.rows, a.width}, a.out)) return s;
        return this->run(context, a.rows, this->kernel->rest_scratch(a, this->most_rows(a.rows)),
                         [&](int64_t begin, int64_t end, void* memory) {
                             this->kernel->rest(a, begin, end, memory);
                         });
    }
};

const Operator linear = make<LinearNode<false>>(), rest = make<RestNode<false>>();
const Operator linear_int8 = make<LinearNode<true>>(), rest_int8 = make<RestNode<true>>();

}  // namespace

extern const Operator* const layer_operators[] = {&linear, &rest, &linear_int8, &rest_int8};
