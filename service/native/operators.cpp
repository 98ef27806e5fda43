// ReAttention and Attention as operators of ONNX Runtime.
//
// Its packages come without C headers, so the part of the interface that is used is declared here,
// as version 17 of the C API froze it: the operator's table of functions, and places of functions
// in OrtApi. Which kernel runs is chosen by the processor; DEEPVIT_KERNEL names a lesser one.

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <initializer_list>
#include <mutex>
#include <new>
#include <string_view>

#include "attend.h"

#if defined(__x86_64__)
extern const Kernel attend_avx512, attend_avx2;
#endif
extern const Kernel attend_baseline;

namespace {

constexpr uint32_t API_VERSION = 17;
constexpr int FLOAT = 1;  // ONNXTensorElementDataType

struct Status;
struct Context;
struct Operator;

struct ApiBase {
    const void* const* (*get_api)(uint32_t);
    const char* (*get_version)();
};

struct Operator {  // OrtCustomOp
    uint32_t version;
    void* (*create)(const Operator*, const void* const*, const void*);
    const char* (*name)(const Operator*);
    const char* (*provider)(const Operator*);
    int (*input_type)(const Operator*, size_t);
    size_t (*input_count)(const Operator*);
    int (*output_type)(const Operator*, size_t);
    size_t (*output_count)(const Operator*);
    void (*compute)(void*, Context*);
    void (*destroy)(void*);
    int (*input_characteristic)(const Operator*, size_t);
    int (*output_characteristic)(const Operator*, size_t);
    int (*input_memory)(const Operator*, size_t);
    int (*variadic_input_min)(const Operator*);
    int (*variadic_input_homogeneous)(const Operator*);
    int (*variadic_output_min)(const Operator*);
    int (*variadic_output_homogeneous)(const Operator*);
    Status* (*create_with_status)(const Operator*, const void* const*, const void*, void**);
    Status* (*compute_with_status)(void*, Context*);
    Status* (*infer_shape)(const Operator*, void*);
    int (*start_version)(const Operator*);
    int (*end_version)(const Operator*);
    size_t (*may_inplace)(int**, int**);
    void (*release_may_inplace)(int*, int*);
    size_t (*alias_map)(int**, int**);
    void (*release_alias_map)(int*, int*);
};
static_assert(sizeof(Operator) == 208, "as ONNX Runtime 1.17 has it");

// Functions of OrtApi by their place.
template <int PLACE, typename... Arguments>
Status* call(const void* const* api, Arguments... arguments) {
    using Function = Status* (*)(Arguments...);
    return reinterpret_cast<Function>(const_cast<void*>(api[PLACE]))(arguments...);
}
enum Place {
    CREATE_STATUS = 0,
    CREATE_DOMAIN = 26,
    ADD_OPERATOR = 27,
    ADD_DOMAIN = 28,
    TENSOR_DATA = 51,
    DIMENSIONS_COUNT = 61,
    DIMENSIONS = 62,
    TENSOR_INFO = 65,
    INPUT = 90,
    OUTPUT = 91,
    RELEASE_TENSOR_INFO = 99,
    INTEGERS_ATTRIBUTE = 163,
    PARALLEL_FOR = 274,
};

struct Tensor {
    float* data = nullptr;
    int64_t rows = 1, columns = 1;
};

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

// As a reshape of rows [images * tokens, heads * width] takes them apart.
struct Shape {
    int64_t images, tokens, heads, width;
    bool of(const Tensor& tensor) const {
        return tensor.columns == heads * width && tensor.rows % tokens == 0;
    }
};

struct Node {
    const void* const* api;
    const Kernel* kernel;
    bool mixes;
    Shape queries, keys;

    Status* error(const char* message) const {
        constexpr int FAIL = 1;
        return call<CREATE_STATUS>(api, FAIL, message);
    }

    Status* read(const void* info, const char* name, Shape& shape) const {
        size_t size = 4;
        return call<INTEGERS_ATTRIBUTE>(api, info, name, &shape.images, &size);
    }

    Status* read(const Context* context, size_t index, Tensor& tensor) const {
        const void* value = nullptr;
        void* info = nullptr;
        size_t axes = 0;
        int64_t shape[2] = {1, 1};
        if (Status* s = call<INPUT>(api, context, index, &value)) return s;
        if (Status* s = call<TENSOR_INFO>(api, value, &info)) return s;
        Status* status = call<DIMENSIONS_COUNT>(api, static_cast<const void*>(info), &axes);
        if (!status && axes <= 2)
            status = call<DIMENSIONS>(api, static_cast<const void*>(info), shape + 2 - axes, axes);
        using Release = void (*)(void*);
        reinterpret_cast<Release>(const_cast<void*>(api[RELEASE_TENSOR_INFO]))(info);
        if (status) return status;
        if (axes > 2) return error("an input has more than two axes");
        tensor.rows = shape[0];
        tensor.columns = shape[1];
        return call<TENSOR_DATA>(api, const_cast<void*>(value), reinterpret_cast<void**>(&tensor.data));
    }

    Status* compute(Context* context) const {
        Tensor q, k, v, theta, offset;
        Tensor* inputs[] = {&q, &k, &v, &theta, &offset};
        for (size_t i = 0; i < (mixes ? 5 : 3); i++)
            if (Status* s = read(context, i, *inputs[i])) return s;
        const int64_t heads = keys.heads, images = k.rows / keys.tokens;
        if (!queries.of(q) || !keys.of(k) || !keys.of(v) || v.rows != k.rows || q.rows != images * queries.tokens)
            return error("q, k and v do not fit each other and their shapes");
        if (mixes && (theta.rows != heads || theta.columns != heads || offset.columns != heads))
            return error("theta or offset does not fit the number of heads");
        const int64_t shape[] = {q.rows, q.columns};
        void* output = nullptr;
        float* out = nullptr;
        if (Status* s = call<OUTPUT>(api, context, size_t(0), &shape[0], size_t(2), &output)) return s;
        if (Status* s = call<TENSOR_DATA>(api, output, reinterpret_cast<void**>(&out))) return s;
        Work work{};
        work.kernel = kernel;
        work.attention = {q.data, k.data, v.data, mixes ? theta.data : nullptr, offset.data, out,
                          images, queries.tokens, keys.tokens, heads, keys.width};
        work.scratch_bytes = kernel->scratch_bytes(work.attention);
        const int64_t lanes = kernel->lanes, tiles = (queries.tokens + lanes - 1) / lanes;
        Status* status = call<PARALLEL_FOR>(api, static_cast<const Context*>(context), &run_tile,
                                            size_t(images * tiles), size_t(0),
                                            static_cast<void*>(&work));
        if (!status && work.out_of_memory) return error("no memory for a tile of attention");
        return status;
    }
};

template <int INPUTS>
Operator make() {
    Operator op{};
    op.version = API_VERSION;
    op.name = [](const Operator*) { return INPUTS == 5 ? "ReAttention" : "Attention"; };
    op.provider = [](const Operator*) { return "CPUExecutionProvider"; };
    op.input_type = [](const Operator*, size_t) { return FLOAT; };
    op.input_count = [](const Operator*) { return size_t(INPUTS); };
    op.output_type = [](const Operator*, size_t) { return FLOAT; };
    op.output_count = [](const Operator*) { return size_t(1); };
    op.destroy = [](void* node) { delete static_cast<Node*>(node); };
    op.input_characteristic = [](const Operator*, size_t) { return 0; };
    op.output_characteristic = [](const Operator*, size_t) { return 0; };
    op.input_memory = [](const Operator*, size_t) { return 0; };
    op.variadic_input_min = [](const Operator*) { return 1; };
    op.variadic_input_homogeneous = [](const Operator*) { return 1; };
    op.variadic_output_min = [](const Operator*) { return 1; };
    op.variadic_output_homogeneous = [](const Operator*) { return 1; };
    op.create_with_status = [](const Operator*, const void* const* api, const void* info,
                               void** node) -> Status* {
        Node made{api, &choose(), INPUTS == 5, {}, {}};
        if (Status* s = made.read(info, "queries", made.queries)) return s;
        if (Status* s = made.read(info, "keys", made.keys)) return s;
        const Shape &q = made.queries, &k = made.keys;
        if (q.tokens < 1 || k.tokens < 1 || k.heads < 1 || k.width < 1 || q.heads != k.heads ||
            q.width != k.width)
            return made.error("queries and keys must be [-1, tokens, heads, width]");
        *node = new Node(made);
        return nullptr;
    };
    op.compute_with_status = [](void* node, Context* context) {
        return static_cast<Node*>(node)->compute(context);
    };
    op.start_version = [](const Operator*) { return 1; };
    op.end_version = [](const Operator*) { return INT32_MAX; };
    return op;
}

const Operator reattention = make<5>(), attention = make<3>();

}  // namespace

// One domain for all sessions, which hold on to it: made once, and never released.
extern "C" __attribute__((visibility("default"))) Status* RegisterCustomOps(void* options,
                                                                            const ApiBase* base) {
    static std::mutex one_at_a_time;
    static void* domain = nullptr;
    const std::lock_guard<std::mutex> lock(one_at_a_time);
    const void* const* api = base->get_api(API_VERSION);
    if (!domain) {
        void* made = nullptr;
        if (Status* s = call<CREATE_DOMAIN>(api, "deepvit", &made)) return s;
        for (const Operator* op : {&reattention, &attention})
            if (Status* s = call<ADD_OPERATOR>(api, made, op)) return s;
        domain = made;
    }
    return call<ADD_DOMAIN>(api, options, domain);
}
