// The interface between ONNX Runtime and custom operators.
//
// ONNX Runtime's packages have no C headers, so what is used of version 17 of its C API, which will
// not change, is declared here: the table of an operator's functions, and indices into OrtApi.

#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <mutex>
#include <new>

#define VISIBLE __attribute__((visibility("default")))  // from outside the library

constexpr uint32_t API_VERSION = 17;
// No tensor's axis, and none in an attribute, is longer: the product of two then fits into int64_t.
constexpr int64_t LONGEST = 1 << 30;
enum Element { FLOAT = 1, BYTE = 2, HALF = 10, UNSIGNED = 12, BFLOAT = 16 };  // ONNXTensorElementDataType
enum Characteristic { REQUIRED = 0, OPTIONAL = 1, VARIADIC = 2 };

struct Status;
struct Context;

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

// Calls a function of OrtApi by its index.
template <int INDEX, typename... Arguments>
Status* call(const void* const* api, Arguments... arguments) {
    using Function = Status* (*)(Arguments...);
    return reinterpret_cast<Function>(const_cast<void*>(api[INDEX]))(arguments...);
}
enum Index {
    CREATE_STATUS = 0,
    CREATE_DOMAIN = 26,
    ADD_OPERATOR = 27,
    ADD_DOMAIN = 28,
    TENSOR_DATA = 51,
    DIMENSIONS_COUNT = 61,
    DIMENSIONS = 62,
    TENSOR_INFO = 65,
    FLOAT_ATTRIBUTE = 85,
    INTEGER_ATTRIBUTE = 86,
    INPUTS_COUNT = 88,
    INPUT = 90,
    OUTPUT = 91,
    RELEASE_TENSOR_INFO = 99,
    INTEGERS_ATTRIBUTE = 163,
    GPU_STREAM = 193,
    PARALLEL_FOR = 274,
};

inline Status* failure(const void* const* api, const char* message) {
    constexpr int FAIL = 1;
    return call<CREATE_STATUS>(api, FAIL, message);
}

// What body() returns, or the status of an exception, which must not reach ONNX Runtime: its
// interface is that of C.
template <typename Body>
Status* guarded(const void* const* api, const Body& body) noexcept {
    try {
        return body();
    } catch (const std::bad_alloc&) {
        return failure(api, "no memory for an operator");
    } catch (...) {
        return failure(api, "an operator failed");
    }
}

struct Tensor {
    void* data = nullptr;
    size_t axes = 0;
    int64_t shape[4] = {1, 1, 1, 1};  // aligned right: a vector is one row
    int64_t rows() const { return shape[2]; }
    int64_t columns() const { return shape[3]; }
    template <typename Element>
    Element* of() const {
        return static_cast<Element*>(data);
    }
};

// One operator in a graph.
struct Node {
    static constexpr size_t OUTPUTS = 1;
    static constexpr bool VARIADIC = false;  // the last input may be repeated
    static constexpr bool CHOICE = false;    // outputs before the last are optional
    static constexpr Element input_element(size_t) { return FLOAT; }
    static constexpr Element output_element() { return FLOAT; }

    const void* const* api;

    Status* error(const char* message) const { return failure(api, message); }

    Status* read(const Context* context, size_t index, Tensor& tensor) const {
        const void* value = nullptr;
        void* info = nullptr;
        if (Status* s = call<INPUT>(api, context, index, &value)) return s;
        if (!value) return error("an input is missing");
        if (Status* s = call<TENSOR_INFO>(api, value, &info)) return s;
        tensor = {};
        Status* status =
            call<DIMENSIONS_COUNT>(api, static_cast<const void*>(info), &tensor.axes);
        if (!status && tensor.axes <= 4)
            status = call<DIMENSIONS>(api, static_cast<const void*>(info),
                                      tensor.shape + 4 - tensor.axes, tensor.axes);
        using Release = void (*)(void*);
        reinterpret_cast<Release>(const_cast<void*>(api[RELEASE_TENSOR_INFO]))(info);
        if (status) return status;
        if (tensor.axes > 4) return error("an input has more than four axes");
        for (const int64_t length : tensor.shape)
            if (length < 0 || length > LONGEST) return error("an axis of an input is too long");
        return call<TENSOR_DATA>(api, const_cast<void*>(value), &tensor.data);
    }

    // `data` becomes null if the output is optional and the graph does not use it.
    template <typename Element>
    Status* allocate(Context* context, size_t index, std::initializer_list<int64_t> shape,
                     Element*& data, bool optional = false) const {
        void *value = nullptr, *found = nullptr;
        if (Status* s = call<OUTPUT>(api, context, index, shape.begin(), shape.size(), &value))
            return s;
        if (!value && !optional) return error("an output is missing");
        Status* status = value ? call<TENSOR_DATA>(api, value, &found) : nullptr;
        data = static_cast<Element*>(found);
        return status;
    }
};

// The shape that rows [images * tokens, heads * width] are reshaped to.
struct Shape {
    int64_t tokens, heads, width;
    bool fits(const Tensor& tensor) const {
        return tensor.axes == 2 && tensor.columns() == heads * width && tensor.rows() % tokens == 0;
    }
};

// An attention operator, with or without Re-attention.
struct AttentionNode : Node {
    // How often such an operator has run on this thread, which is that of the session's caller. It
    // tells whether a graph uses the kernels at all.
    static inline thread_local int64_t calls = 0;

    Shape queries, keys;

    Status* read_shapes(const void* info) {
        if (Status* s = read_shape(info, "queries", queries)) return s;
        if (Status* s = read_shape(info, "keys", keys)) return s;
        return queries.heads == keys.heads && queries.width == keys.width
                   ? nullptr
                   : error("queries and keys differ in heads or width");
    }

    bool fit(const Tensor& theta, const Tensor& offset) const {
        const int64_t H = keys.heads;
        return theta.axes == 2 && theta.rows() == H && theta.columns() == H && offset.axes == 1 &&
               offset.columns() == H;
    }

private:
    Status* read_shape(const void* info, const char* name, Shape& shape) const {
        int64_t axes[4] = {}, *const to = axes;
        size_t count = 4;
        if (Status* s = call<INTEGERS_ATTRIBUTE>(api, info, name, to, &count)) return s;
        for (const int64_t length : {axes[1], axes[2], axes[3]})
            if (count != 4 || length < 1 || length > LONGEST)
                return error("queries and keys must be [-1, tokens, heads, width]");
        shape = {axes[1], axes[2], axes[3]};
        return nullptr;
    }
};

// Kernel is a Node with `Status* prepare(const void* info)`, which reads attributes, and
// `Status* compute(Context*)`.
template <typename Kernel>
Operator make() {
    Operator op{};
    op.version = API_VERSION;
    op.name = [](const Operator*) { return Kernel::NAME; };
    op.provider = [](const Operator*) { return Kernel::PROVIDER; };
    op.input_type = [](const Operator*, size_t index) {
        return int(Kernel::input_element(index));
    };
    op.input_count = [](const Operator*) { return Kernel::INPUTS; };
    op.output_type = [](const Operator*, size_t) { return int(Kernel::output_element()); };
    op.output_count = [](const Operator*) { return Kernel::OUTPUTS; };
    op.destroy = [](void* kernel) { delete static_cast<Kernel*>(kernel); };
    op.input_characteristic = [](const Operator*, size_t index) {
        return Kernel::VARIADIC && index + 1 == Kernel::INPUTS ? int(VARIADIC) : int(REQUIRED);
    };
    op.output_characteristic = [](const Operator*, size_t index) {
        return Kernel::CHOICE && index + 1 < Kernel::OUTPUTS ? int(OPTIONAL) : int(REQUIRED);
    };
    op.input_memory = [](const Operator*, size_t) { return 0; };
    op.variadic_input_min = [](const Operator*) { return 1; };
    op.variadic_input_homogeneous = [](const Operator*) { return 1; };
    op.variadic_output_min = [](const Operator*) { return 1; };
    op.variadic_output_homogeneous = [](const Operator*) { return 1; };
    op.create_with_status = [](const Operator*, const void* const* api, const void* info,
                               void** kernel) {
        return guarded(api, [=]() -> Status* {
            Kernel made{};
            made.api = api;
            if (Status* s = made.prepare(info)) return s;
            *kernel = new Kernel(made);
            return nullptr;
        });
    };
    op.compute_with_status = [](void* kernel, Context* context) {
        const Kernel& made = *static_cast<Kernel*>(kernel);
        return guarded(made.api, [&] { return made.compute(context); });
    };
    op.start_version = [](const Operator*) { return 1; };
    op.end_version = [](const Operator*) { return INT32_MAX; };
    return op;
}

// Sessions keep a pointer to their domain, so one serves them all: made once, never released.
template <size_t COUNT>
Status* add_operators(void* options, const ApiBase* base,
                      const Operator* const (&operators)[COUNT]) {
    static std::mutex one_at_a_time;
    static void* domain = nullptr;
    const void* const* api = base->get_api(API_VERSION);
    if (!api)  // the first version has the function that makes a status, and is always there
        return failure(base->get_api(1), "the kernels need ONNX Runtime 1.17 or newer");
    return guarded(api, [&]() -> Status* {
        const std::lock_guard<std::mutex> lock(one_at_a_time);
        if (!domain) {
            void* made = nullptr;
            if (Status* s = call<CREATE_DOMAIN>(api, "deepvit", &made)) return s;
            for (const Operator* op : operators)
                if (Status* s = call<ADD_OPERATOR>(api, made, op)) return s;
            domain = made;
        }
        return call<ADD_DOMAIN>(api, options, domain);
    });
}

// The function that ONNX Runtime looks up in a library of operators.
extern "C" VISIBLE Status* RegisterCustomOps(void*, const ApiBase*);
