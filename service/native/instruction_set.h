// Which copy of a kernel runs: there is one for each instruction set.

#pragma once

#include <cstdlib>
#include <string_view>

// The best copy that this processor can run. DEEPVIT_KERNEL names the best one to consider: avx512,
// avx2 or baseline; one that the processor lacks gives way to the next lower.
template <typename Kernel>
const Kernel& choose(const Kernel& avx512, const Kernel& avx2, const Kernel& baseline) {
#if defined(__x86_64__)
    const char* given = std::getenv("DEEPVIT_KERNEL");
    const std::string_view most = given ? given : "avx512";
    if (most == "avx512" && __builtin_cpu_supports("x86-64-v4")) return avx512;
    if (most != "baseline" && __builtin_cpu_supports("x86-64-v3")) return avx2;
#endif
    return baseline;
}
#if defined(__x86_64__)
#define CHOOSE(NAME) choose(NAME##_avx512, NAME##_avx2, NAME##_baseline)
#else
#define CHOOSE(NAME) (NAME##_baseline)
#endif
