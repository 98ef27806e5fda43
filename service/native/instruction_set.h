// Which copy of a kernel runs: there is one for each instruction set.

#pragma once

#include <atomic>

enum InstructionSet { BASELINE, AVX2, AVX512 };

// The best copy to consider; the service may choose a lower one.
inline std::atomic<InstructionSet> best_allowed{AVX512};

// The best copy that may run and that this processor can run.
template <typename Kernel>
const Kernel& choose(const Kernel& avx512, const Kernel& avx2, const Kernel& baseline) {
#if defined(__x86_64__)
    if (best_allowed >= AVX512 && __builtin_cpu_supports("x86-64-v4")) return avx512;
    if (best_allowed >= AVX2 && __builtin_cpu_supports("x86-64-v3")) return avx2;
#endif
    return baseline;
}

// Whether to use AVX512-BF16 and VNNI, which some processors with AVX-512 have: all with the first
// have the second.
inline bool has_bf16() {
#if defined(__x86_64__)
    return best_allowed >= AVX512 && __builtin_cpu_supports("x86-64-v4") &&
           __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni");
#else
    return false;
#endif
}

#if defined(__x86_64__)
#define CHOOSE(NAME) choose(NAME##_avx512, NAME##_avx2, NAME##_baseline)
#else
#define CHOOSE(NAME) (NAME##_baseline)
#endif
