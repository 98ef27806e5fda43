// Which copy of a kernel this processor runs.

#pragma once

#include <cstdlib>
#include <string_view>

// Of the copies of a kernel; DEEPVIT_KERNEL names a lesser one than the best.
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
