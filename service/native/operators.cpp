// ONNX Runtime's operators ReAttention and Attention on a CPU, and their forms that also return
// attention maps.

#include "attend.h"
#include "instruction_set.h"
#include "interface.h"
#include "sources.h"
#include "tasks.h"

extern const Kernel attend_avx512, attend_avx2, attend_baseline;
extern const Operator* const similarities[3];
extern const Operator* const bf16_operators[3];
extern const Operator* const layer_operators[4];

namespace {

// OPEN also writes the softmax maps, and the maps after Re-attention, if the graph uses them.
template <bool MIXES, bool OPEN = false>
struct Attend : AttentionNode {
    static constexpr const char* NAME = OPEN ? MIXES ? "OpenReAttention" : "OpenAttention"
                                             : MIXES ? "ReAttention" : "Attention";
    static constexpr const char* PROVIDER = "CPUExecutionProvider";
    static constexpr size_t INPUTS = MIXES ? 5 : 3, OUTPUTS = OPEN ? MIXES ? 3 : 2 : 1;
    static constexpr bool CHOICE = OPEN;

    const Kernel* kernel;

    Status* prepare(const void* info) {
        kernel = &CHOOSE(attend);
        return read_shapes(info);
    }

    Status* compute(Context* context) const {
        calls++;
        Tensor q, k, v, theta, offset;
        Tensor* inputs[] = {&q, &k, &v, &theta, &offset};
        for (size_t i = 0; i < INPUTS; i++)
            if (Status* s = read(context, i, *inputs[i])) return s;
        const int64_t images = k.rows() / keys.tokens;
        if (!queries.fits(q) || !keys.fits(k) || !keys.fits(v) || v.rows() != k.rows() ||
            q.rows() != images * queries.tokens)
            return error("q, k and v do not fit each other and their shapes");
        if (MIXES && !fit(theta, offset))
            return error("theta or offset does not fit the number of heads");
        Attention a{};
        a.q = q.of<float>(), a.k = k.of<float>(), a.v = v.of<float>();
        a.theta = theta.of<float>(), a.offset = offset.of<float>();
        a.images = images, a.queries = queries.tokens, a.keys = keys.tokens;
        a.heads = keys.heads, a.width = keys.width;
        float** const maps[] = {&a.softmax, &a.reattention};
        for (size_t i = 0; i + 1 < OUTPUTS; i++)
            if (Status* s = allocate(context, i, {images, a.heads, a.queries, a.keys}, *maps[i],
                                     /* optional = */ true))
                return s;
        if (Status* s = allocate(context, OUTPUTS - 1, {q.rows(), q.columns()}, a.out)) return s;
        const int64_t lanes = kernel->lanes, tiles = (queries.tokens + lanes - 1) / lanes;
        return run_tasks(
            *this, context, images * tiles, kernel->scratch_bytes(a),
            [&](int64_t number, void* scratch) { kernel->tile(a, number, scratch); });
    }
};

const Operator reattention = make<Attend<true>>(), attention = make<Attend<false>>();
const Operator open_reattention = make<Attend<true, true>>();
const Operator open_attention = make<Attend<false, true>>();

}  // namespace

// Sessions that are opened from now on take no better copy of the kernels than `best`, which is one
// of `InstructionSet`.
extern "C" VISIBLE void deepvit_allow(int best) { best_allowed = InstructionSet(best); }

// The copy that sessions take that are opened now.
extern "C" VISIBLE const char* deepvit_instruction_set() {
    return choose<const char*>("avx512", "avx2", "baseline");
}

// Whether this processor multiplies bfloat16 by itself, and may use that.
extern "C" VISIBLE bool deepvit_has_bf16() { return has_bf16(); }

extern "C" VISIBLE int64_t deepvit_attention_calls() { return AttentionNode::calls; }

Status* RegisterCustomOps(void* options, const ApiBase* base) {
    return add_operators(options, base,
                         {&reattention, &attention, &open_reattention, &open_attention,
                          similarities[0], similarities[1], similarities[2], bf16_operators[0],
                          bf16_operators[1], bf16_operators[2], layer_operators[0],
                          layer_operators[1], layer_operators[2], layer_operators[3]});
}
