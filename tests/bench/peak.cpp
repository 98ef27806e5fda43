// Multiplications and additions a second of each instruction for products, on some threads at once:
// prints a line for each, with its name and a number of 10^9 operations, a multiplication being one.

#include <immintrin.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

namespace {

constexpr int CHAINS = 12;  // more than an instruction's latency, fewer than there are registers
constexpr int STEPS = 16;   // between values that are written to memory
constexpr long ROUNDS = 5'000'000;

double now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Runs `step` on chains that do not wait for each other. Nothing of them may be optimised away.
template <typename Value, typename Step>
void chains(Value start, Step step) {
    Value v[CHAINS];
    for (Value& one : v) one = start;
    for (long round = 0; round < ROUNDS; round++) {
#pragma GCC unroll 16
        for (int step_number = 0; step_number < STEPS; step_number++)
#pragma GCC unroll 12
            for (int i = 0; i < CHAINS; i++) v[i] = step(v[i]);
        asm volatile("" : "+v"(v[0]), "+v"(v[1]), "+v"(v[2]), "+v"(v[3]), "+v"(v[4]), "+v"(v[5]),
                          "+v"(v[6]), "+v"(v[7]), "+v"(v[8]), "+v"(v[9]), "+v"(v[10]), "+v"(v[11]));
    }
}

template <typename Work>
void measure(const char* name, int operations, int threads, Work work) {
    std::vector<std::thread> others;
    const double started = now();
    for (int i = 1; i < threads; i++) others.emplace_back(work);
    work();
    for (std::thread& other : others) other.join();
    const double done = double(ROUNDS) * STEPS * CHAINS * operations * threads;
    std::printf("%s %.1f\n", name, done / (now() - started) / 1e9);
    std::fflush(stdout);
}

}  // namespace

int main(int, char** arguments) {
    const int threads = std::atoi(arguments[1]);
#if defined(__AVX512F__)
    const __m512 half = _mm512_set1_ps(0.5f);
    measure("float32", 2 * 16, threads, [=] {
        chains(half, [=](__m512 sum) { return _mm512_fmadd_ps(sum, half, half); });
    });
#elif defined(__FMA__)
    const __m256 half = _mm256_set1_ps(0.5f);
    measure("float32", 2 * 8, threads, [=] {
        chains(half, [=](__m256 sum) { return _mm256_fmadd_ps(sum, half, half); });
    });
#endif
#if defined(__AVX512BF16__)
    const __m512 zero = _mm512_setzero_ps();
    measure("bfloat16", 2 * 32, threads, [=] {
        chains(zero, [=](__m512 sum) { return _mm512_dpbf16_ps(sum, __m512bh(half), __m512bh(half)); });
    });
#endif
#if defined(__AVX512VNNI__)
    const __m512i ones = _mm512_set1_epi8(1);
    measure("int8", 2 * 64, threads, [=] {
        chains(ones, [=](__m512i sum) { return _mm512_dpbusd_epi32(sum, ones, ones); });
    });
#endif
}
