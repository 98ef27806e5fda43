// ONNX Runtime's operators ReAttention and Attention on an NVIDIA GPU, in half precision. Their
// Packed forms take queries, keys and values as one tensor, as a single linear layer writes them.

#include "attend_cuda.h"
#include "interface.h"
#include "sources.h"

namespace {

template <bool MIXES, bool PACKED>
struct Attend : AttentionNode {
    static constexpr const char* NAME = PACKED ? (MIXES ? "PackedReAttention" : "PackedAttention")
                                               : (MIXES ? "ReAttention" : "Attention");
    static constexpr const char* PROVIDER = "CUDAExecutionProvider";
    static constexpr Element input_element(size_t) { return HALF; }
    static constexpr Element output_element() { return HALF; }
    static constexpr size_t OWN = PACKED ? 2 : 3;  // qkv and a bias, or q, k and v
    static constexpr size_t INPUTS = OWN + (MIXES ? 2 : 0);

    Status* prepare(const void* info) {
        if (Status* s = read_shapes(info)) return s;
        if (!fits(keys.heads, keys.tokens, keys.width))
            return error("the kernel does not support this shape, or not on this GPU");
        return nullptr;
    }

    Status* compute(Context* context) const {
        calls++;
        Tensor inputs[INPUTS];
        for (size_t i = 0; i < INPUTS; i++)
            if (Status* s = read(context, i, inputs[i])) return s;
        const int64_t heads = keys.heads, columns = heads * keys.width;
        CudaAttention a{};
        const int64_t images = inputs[PACKED ? 0 : 1].rows() / keys.tokens;
        if (PACKED) {
            const Tensor &qkv = inputs[0], &bias = inputs[1];
            if (queries.tokens != keys.tokens || qkv.axes != 2 || bias.axes != 1 ||
                qkv.rows() != images * keys.tokens || qkv.columns() != 3 * columns ||
                bias.columns() != columns)
                return error("qkv and its bias do not fit each other and their shape");
            a.q = qkv.of<__half>(), a.k = a.q + columns, a.v = a.k + columns;
            a.q_bias = bias.of<__half>();
        } else {
            const Tensor &q = inputs[0], &k = inputs[1], &v = inputs[2];
            if (!queries.fits(q) || !keys.fits(k) || !keys.fits(v) || v.rows() != k.rows() ||
                q.rows() != images * queries.tokens)
                return error("q, k and v do not fit each other and their shapes");
            a.q = q.of<__half>(), a.k = k.of<__half>(), a.v = v.of<__half>();
        }
        if (MIXES) {
            const Tensor &theta = inputs[INPUTS - 2], &offset = inputs[INPUTS - 1];
            if (!fit(theta, offset))
                return error("theta or offset does not fit the number of heads");
            a.theta = theta.of<__half>(), a.offset = offset.of<__half>();
        }
        if (Status* s = allocate(context, 0, {inputs[0].rows(), columns}, a.out)) return s;
        void* stream = nullptr;
        if (Status* s = call<GPU_STREAM>(api, static_cast<const Context*>(context), &stream))
            return s;
        a.q_stride = a.k_stride = a.v_stride = PACKED ? 3 * columns : columns;
        a.images = int(images), a.queries = int(queries.tokens), a.keys = int(keys.tokens);
        a.heads = int(heads), a.width = int(keys.width);
        const char* failure = images ? attend_cuda(a, stream) : nullptr;
        return failure ? error(failure) : nullptr;
    }
};

const Operator reattention = make<Attend<true, false>>(), attention = make<Attend<false, false>>(),
               packed_reattention = make<Attend<true, true>>(),
               packed_attention = make<Attend<false, true>>();

}  // namespace

extern "C" VISIBLE int64_t deepvit_attention_calls() { return AttentionNode::calls; }

Status* RegisterCustomOps(void* options, const ApiBase* base) {
    return add_operators(options, base,
                         {&reattention, &attention, &packed_reattention, &packed_attention});
}
