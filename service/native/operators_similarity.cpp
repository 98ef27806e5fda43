// Similarity, SoftmaxSimilarity and FeatureSimilarity as operators of ONNX Runtime on a processor:
// all measures of the maps of one stage, and one of outputs, with one tensor of every block as
// inputs.

#include <algorithm>
#include <atomic>
#include <vector>

#include "interface.h"
#include "processor.h"
#include "similarity.h"

extern const SimilarityKernel similarity_avx512, similarity_avx2, similarity_baseline;

namespace {

thread_local Scratch scratch, parts;

struct Work {
    const SimilarityKernel* kernel;
    Similarity similarity;
    size_t scratch_bytes;
    std::atomic<bool> out_of_memory;
};

void run_task(void* argument, size_t number) {
    Work& work = *static_cast<Work*>(argument);
    if (void* memory = scratch.of(work.scratch_bytes))
        work.kernel->task(work.similarity, int64_t(number), memory);
    else
        work.out_of_memory = true;
}

// An operator whose inputs are tensors of every block, behind others.
struct OfBlocks : Node {
    static constexpr const char* PROVIDER = "CPUExecutionProvider";
    static constexpr Element ELEMENT = FLOAT;
    static constexpr bool VARIADIC = true;

    const SimilarityKernel* kernel;

    // Of one shape, all of them.
    Status* read_blocks(const Context* context, size_t before, Tensor& first,
                        std::vector<const float*>& blocks) const {
        size_t inputs = 0;
        if (Status* s = call<INPUTS_COUNT>(api, context, &inputs)) return s;
        blocks.resize(inputs - before);
        for (size_t block = 0; block < blocks.size(); block++) {
            Tensor tensor;
            if (Status* s = read(context, before + block, tensor)) return s;
            if (!block) first = tensor;
            if (tensor.axes != first.axes || !std::equal(first.shape, first.shape + 4, tensor.shape))
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
        Work work{};
        work.kernel = kernel;
        Similarity& s = work.similarity;
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
        work.scratch_bytes = kernel->scratch_bytes(s);
        s.parts = static_cast<float*>(parts.of(kernel->parts_bytes(s)));
        if (!s.parts) return error("no memory for parts of measures");
        Status* status = call<PARALLEL_FOR>(api, asked, &run_task, size_t(kernel->tasks(s)),
                                            size_t(0), static_cast<void*>(&work));
        if (!status && work.out_of_memory) return error("no memory for a task of similarity");
        if (!status) kernel->finish(s);
        return status;
    }
};

struct CompareFeatures : OfBlocks {
    static constexpr const char* NAME = "FeatureSimilarity";
    static constexpr size_t INPUTS = 1;

    struct Work {
        const SimilarityKernel* kernel;
        Features features;
    };

    Status* prepare(const void*) {
        kernel = &CHOOSE(similarity);
        return nullptr;
    }

    Status* compute(Context* context) const {
        const Context* asked = context;
        std::vector<const float*> outputs;
        Tensor first;
        if (Status* s = read_blocks(asked, 0, first, outputs)) return s;
        if (first.axes != 3) return error("outputs must be [images, N, C]");
        const int64_t B = first.shape[1], L = int64_t(outputs.size());
        Work work{kernel, {outputs.data(), B, L, first.rows(), first.columns(), nullptr}};
        if (Status* s = allocate(context, 0, {B, L}, work.features.similarity)) return s;
        const auto run = [](void* argument, size_t number) {
            const Work& work = *static_cast<Work*>(argument);
            work.kernel->compare_features(work.features, int64_t(number));
        };
        return call<PARALLEL_FOR>(api, asked, static_cast<void (*)(void*, size_t)>(run),
                                  size_t(B * L), size_t(0), static_cast<void*>(&work));
    }
};

const Operator of_any = make<Measure<false>>(), of_softmax = make<Measure<true>>();
const Operator of_features = make<CompareFeatures>();

}  // namespace

extern const Operator* const similarities[3] = {&of_any, &of_softmax, &of_features};
