// What operators in bfloat16 or in 8 bits have in common.

#pragma once

#include <algorithm>

#include "instruction_set.h"
#include "interface.h"
#include "tasks.h"
#include "weights.h"

#if defined(__x86_64__)
#define CHOOSE_REDUCED(NAME) (has_bf16() ? NAME##_avx512_bf16 : NAME##_baseline)
#else
#define CHOOSE_REDUCED(NAME) (NAME##_baseline)
#endif

inline bool are_rows(const Tensor& tensor, int64_t rows) {
    return tensor.axes == 2 && tensor.rows() == rows;
}

struct ReducedNode : Node {
    static constexpr const char* PROVIDER = "CPUExecutionProvider";

    int64_t threads = 1;

    Status* read_threads(const void* info) {
        if (Status* s = call<INTEGER_ATTRIBUTE>(api, info, "threads", &threads)) return s;
        return threads > 0 && threads <= LONGEST ? nullptr : error("threads must be positive");
    }

    // The weights of a layer in bfloat16, which are two inputs of the operator.
    Status* read_weights(const Context* context, size_t index, int64_t words,
                         Weights& weights) const {
        Tensor panels, bias;
        if (Status* s = read(context, index, panels)) return s;
        if (Status* s = read(context, index + 1, bias)) return s;
        weights = {panels.of<uint32_t>(), bias.of<float>(), words, bias.columns()};
        const bool fit = panels.axes == 2 && panels.rows() == words && bias.axes == 1 &&
                         panels.columns() == weights.columns && weights.columns % 16 == 0;
        return fit ? nullptr : error("weights do not fit their input and their bias");
    }

    // Those of a layer in 8 bits, which are five, for rows of so many numbers.
    Status* read_weights_int8(const Context* context, size_t index, int64_t numbers,
                              Weights& weights) const {
        if (Status* s = read_weights(context, index, (numbers + 3) / 4, weights)) return s;
        const int64_t padded = (numbers + 15) / 16 * 16;
        const int64_t lengths[] = {weights.columns, padded, padded};
        const float** const to[] = {&weights.steps, &weights.scale, &weights.offset};
        for (size_t i = 0; i < 3; i++) {
            Tensor found;
            if (Status* s = read(context, index + 2 + i, found)) return s;
            if (found.axes != 1 || found.columns() != lengths[i])
                return error("steps, scale or offset do not fit the weights");
            *to[i] = found.of<float>();
        }
        return nullptr;
    }
};
