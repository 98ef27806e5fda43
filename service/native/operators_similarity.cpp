// ONNX Runtime's operators Similarity, SoftmaxSimilarity and FeatureSimilarity on a CPU: all
// measures of the maps of one stage, and one of the blocks' outputs. Every block's tensor is an
// input.

#include <algorithm>
#include <vector>

#include "features.h"
#include "instruction_set.h"
#include "interface.h"
#include "similarity.h"
#include "tasks.h"

extern const SimilarityKernel similarity_avx512, similarity_avx2, similarity_baseline;
extern const FeaturesKernel features_avx512, features_avx2, features_baseline;

namespace {

thread_local Scratch parts;

// An operator whose last inputs are one tensor of each block.
struct OfBlocks : Node {
    static constexpr const char* PROVIDER = "CPUExecutionProvider";
    static constexpr bool VARIADIC = true;

    // The blocks' tensors, which must have one shape, after `before` other inputs.
    Status* read_blocks(const Context* context, size_t before, Tensor& first,
                        std::vector<const float*>& blocks) const {
        size_t inputs = 0;
        if (Status* s = call<INPUTS_COUNT>(api, context, &inputs)) return s;
        if (inputs <= before) return error("tensors of blocks are missing");
        blocks.resize(inputs - before);
        for (size_t block = 0; block < blocks.size(); block++) {
            Tensor tensor;
            if (Status* s = read(context, before + block, tensor)) return s;
            if (!block) first = tensor;
            if (tensor.axes != first.axes ||
                !std::equal(first.shape, first.shape + 4, tensor.shape))
                return error("tensors of blocks do not fit each other");
            blocks[block] = tensor.of<float>();
        }
        return nullptr;
    }
};

template <bool SOFTMAX>
struct Measure : OfBlocks {
    static constexpr const char* NAME = SOFTMAX ? "SoftmaxSimilarity" : "Similarity";
    static constexpr size_t INPUTS = SOFTMAX ? 2 : 1, OUTPUTS = SOFTMAX ? 7 : 5;

    const SimilarityKernel* kernel;
    int64_t prefix = 0;

    Status* prepare(const void* info) {
        kernel = &CHOOSE(similarity);
        return SOFTMAX ? call<INTEGER_ATTRIBUTE>(api, info, "prefix", &prefix) : nullptr;
    }

    Status* compute(Context* context) const {
        const Context* asked = context;
        std::vector<const float*> maps;
        Tensor first, reach;
        if (Status* s = read_blocks(asked, INPUTS - 1, first, maps)) return s;
        const int64_t L = int64_t(maps.size()), B = first.shape[0], H = first.shape[1];
        const int64_t N = first.shape[3];
        if (first.axes != 4 || first.shape[2] != N)
            return error("maps must be [images, heads, N, N]");
        if (SOFTMAX) {
            if (Status* s = read(asked, 0, reach)) return s;
            if (reach.axes != 2 || reach.rows() != N || reach.columns() != N || prefix < 0 ||
                prefix >= N)
                return error("reach or prefix does not fit the maps");
        }
        Similarity s{};
        s.reach = reach.of<float>();
        s.maps = maps.data();
        s.images = B, s.blocks = L, s.heads = H, s.tokens = N, s.prefix = prefix;
        const struct { float*& data; std::initializer_list<int64_t> shape; } outputs[] = {
            {s.column, {B, L, L}},           {s.row, {B, L, L}},
            {s.centred, {B, L, L}},          {s.neighbours, {B, L - 1, H, N}},
            {s.between_heads, {B, L, H, H}}, {s.entropy, {B, L, H}},
            {s.distance, {B, L, H}},
        };
        for (size_t i = 0; i < OUTPUTS; i++)
            if (Status* status = allocate(context, i, outputs[i].shape, outputs[i].data))
                return status;
        s.parts = static_cast<float*>(parts.of(kernel->parts_bytes(s)));
        if (!s.parts) return error("no memory for parts of measures");
        Status* status = run_tasks(
            *this, asked, kernel->tasks(s), kernel->scratch_bytes(s),
            [&](int64_t number, void* scratch) { kernel->task(s, number, scratch); });
        if (!status) kernel->finish(s);
        return status;
    }
};

struct CompareFeatures : OfBlocks {
    static constexpr const char* NAME = "FeatureSimilarity";
    static constexpr size_t INPUTS = 1;

    const FeaturesKernel* kernel;

    Status* prepare(const void*) {
        kernel = &CHOOSE(features);
        return nullptr;
    }

    Status* compute(Context* context) const {
        const Context* asked = context;
        std::vector<const float*> outputs;
        Tensor first;
        if (Status* s = read_blocks(asked, 0, first, outputs)) return s;
        if (first.axes != 3) return error("outputs must be [images, N, C]");
        const int64_t B = first.shape[1], L = int64_t(outputs.size());
        Features f{outputs.data(), B, L, first.rows(), first.columns(), nullptr};
        if (Status* s = allocate(context, 0, {B, L}, f.similarity)) return s;
        return run_tasks(*this, asked, B * L, Bytes{0},
                         [&](int64_t number, void*) { kernel->compare(f, number); });
    }
};

const Operator of_any = make<Measure<false>>(), of_softmax = make<Measure<true>>();
const Operator of_features = make<CompareFeatures>();

}  // namespace

extern const Operator* const similarities[3] = {&of_any, &of_softmax, &of_features};
