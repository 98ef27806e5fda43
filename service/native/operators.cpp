// ReAttention and Attention as operators of ONNX Runtime on a processor, which chooses the kernel;
// DEEPVIT_KERNEL names a lesser one.

#include <atomic>
#include <cstdlib>
#include <string_view>

#include "attend.h"
#include "interface.h"

#if defined(__x86_64__)
extern const Kernel attend_avx512, attend_avx2;
#endif
extern const Kernel attend_baseline;

namespace {

// Of this processor.
const Kernel& choose() {
#if defined(__x86_64__)
    const char* given = std::getenv("DEEPVIT_KERNEL");
    const std::string_view most = given ? given : "avx512";
    if (most == "avx512" && __builtin_cpu_supports("x86-64-v4")) return attend_avx512;
    if (most != "baseline" && __builtin_cpu_supports("x86-64-v3")) return attend_avx2;
#endif
    return attend_baseline;
}

// One thread's, kept for the next call.
struct Scratch {
    void* memory = nullptr;
    size_t bytes = 0;
    ~Scratch() { std::free(memory); }
    void* of(size_t wanted) {
        if (wanted > bytes) {
            std::free(memory);
            bytes = (wanted + 63) / 64 * 64;
            memory = std::aligned_alloc(64, bytes);
            if (!memory) bytes = 0;
        }
        return memory;
    }
};
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

template <bool MIXES>
struct Attend : Node {
    static constexpr const char* NAME = MIXES ? "ReAttention" : "Attention";
    static constexpr const char* PROVIDER = "CPUExecutionProvider";
    static constexpr Element ELEMENT = FLOAT;
    static constexpr size_t INPUTS = MIXES ? 5 : 3;

    const Kernel* kernel;

    Status* prepare() {
        kernel = &choose();
        return nullptr;
    }

    Status* compute(Context* context) const {
        Tensor q, k, v, theta, offset;
        Tensor* inputs[] = {&q, &k, &v, &theta, &offset};
        for (size_t i = 0; i < INPUTS; i++)
            if (Status* s = read(context, i, *inputs[i])) return s;
        const int64_t heads = keys.heads, images = k.rows / keys.tokens;
        if (!queries.of(q) || !keys.of(k) || !keys.of(v) || v.rows != k.rows ||
            q.rows != images * queries.tokens)
            return error("q, k and v do not fit each other and their shapes");
        if (MIXES && (theta.rows != heads || theta.columns != heads || offset.columns != heads))
            return error("theta or offset does not fit the number of heads");
        Tensor out{nullptr, q.rows, q.columns};
        if (Status* s = allocate(context, out)) return s;
        const auto floats = [](const Tensor& tensor) { return static_cast<float*>(tensor.data); };
        Work work{};
        work.kernel = kernel;
        work.attention = {floats(q),      floats(k),   floats(v), floats(theta), floats(offset),
                          floats(out),    images,      queries.tokens, keys.tokens,
                          heads,          keys.width};
        work.scratch_bytes = kernel->scratch_bytes(work.attention);
        const int64_t lanes = kernel->lanes, tiles = (queries.tokens + lanes - 1) / lanes;
        Status* status = call<PARALLEL_FOR>(api, static_cast<const Context*>(context), &run_tile,
                                            size_t(images * tiles), size_t(0),
                                            static_cast<void*>(&work));
        if (!status && work.out_of_memory) return error("no memory for a tile of attention");
        return status;
    }
};

const Operator reattention = make<Attend<true>>(), attention = make<Attend<false>>();

}  // namespace

Status* RegisterCustomOps(void* options, const ApiBase* base) {
    return add_operators(options, base, {&reattention, &attention});
}
