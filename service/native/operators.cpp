// ReAttention and Attention, also laid open, as operators of ONNX Runtime on a processor, which
// chooses the kernel; DEEPVIT_KERNEL names a lesser one.

#include <atomic>

#include "attend.h"
#include "interface.h"
#include "processor.h"

extern const Kernel attend_avx512, attend_avx2, attend_baseline;
extern const Operator* const similarities[3];

namespace {

thread_local Scratch scratch;

struct Work {
    const Kernel* kernel;
    Attention attention;
    size_t scratch_bytes;
    std::atomic<bool> out_of_memory;
};

void run_tile(void* argument, size_t number) {
    Work& work = *static_cast<Work*>(argument);
    if (void* memory = scratch.of(work.scratch_bytes))
        work.kernel->tile(work.attention, int64_t(number), memory);
    else
        work.out_of_memory = true;
}

// OPEN also writes the softmax map, and what Re-attention makes of it, where they are asked for.
template <bool MIXES, bool OPEN = false>
struct Attend : AttentionNode {
    static constexpr const char* NAME = OPEN ? MIXES ? "OpenReAttention" : "OpenAttention"
                                             : MIXES ? "ReAttention" : "Attention";
    static constexpr const char* PROVIDER = "CPUExecutionProvider";
    static constexpr Element ELEMENT = FLOAT;
    static constexpr size_t INPUTS = MIXES ? 5 : 3, OUTPUTS = OPEN ? MIXES ? 3 : 2 : 1;
    static constexpr bool CHOICE = OPEN;

    const Kernel* kernel;

    Status* prepare(const void* info) {
        kernel = &CHOOSE(attend);
        return read_shapes(info);
    }

    Status* compute(Context* context) const {
        Tensor q, k, v, theta, offset;
        Tensor* inputs[] = {&q, &k, &v, &theta, &offset};
        for (size_t i = 0; i < INPUTS; i++)
            if (Status* s = read(context, i, *inputs[i])) return s;
        const int64_t images = k.rows() / keys.tokens;
        if (!queries.of(q) || !keys.of(k) || !keys.of(v) || v.rows() != k.rows() ||
            q.rows() != images * queries.tokens)
            return error("q, k and v do not fit each other and their shapes");
        if (MIXES && !mixes(theta, offset))
            return error("theta or offset does not fit the number of heads");
        Work work{};
        work.kernel = kernel;
        Attention& a = work.attention;
        a.q = q.of<float>(), a.k = k.of<float>(), a.v = v.of<float>();
        a.theta = theta.of<float>(), a.offset = offset.of<float>();
        a.images = images, a.queries = queries.tokens, a.keys = keys.tokens;
        a.heads = keys.heads, a.width = keys.width;
        float** const maps[] = {&a.softmax, &a.reattention};
        for (size_t i = 0; i + 1 < OUTPUTS; i++)
            if (Status* s = allocate(context, i, {images, a.heads, a.queries, a.keys}, *maps[i]))
                return s;
        if (Status* s = allocate(context, OUTPUTS - 1, {q.rows(), q.columns()}, a.out)) return s;
        work.scratch_bytes = kernel->scratch_bytes(a);
        const int64_t lanes = kernel->lanes, tiles = (queries.tokens + lanes - 1) / lanes;
        Status* status = call<PARALLEL_FOR>(api, static_cast<const Context*>(context), &run_tile,
                                            size_t(images * tiles), size_t(0),
                                            static_cast<void*>(&work));
        if (!status && work.out_of_memory) return error("no memory for a tile of attention");
        return status;
    }
};

const Operator reattention = make<Attend<true>>(), attention = make<Attend<false>>();
const Operator open_reattention = make<Attend<true, true>>();
const Operator open_attention = make<Attend<false, true>>();

}  // namespace

Status* RegisterCustomOps(void* options, const ApiBase* base) {
    return add_operators(options, base, {&reattention, &attention, &open_reattention, &open_attention,
                                         similarities[0], similarities[1], similarities[2]});
}
