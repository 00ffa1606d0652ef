// The multiply-add rate of a core by itself: sums that stay in registers, no memory, compiled as the descent's kernel.
//
// As many sums as the kernel's tile has, each waiting for its own last value alone.
#include <cstdint>

namespace {

#if defined(__AVX512F__)
constexpr int BYTES = 64, SUMS = 16;
#elif defined(__AVX__)
constexpr int BYTES = 32, SUMS = 12;
#else
constexpr int BYTES = 16, SUMS = 12;
#endif

// Returns the floating-point operations done; `factor` is 1, which the compiler does not know.
template <class T>
double run(std::int64_t rounds, T factor, T* out) {
    typedef T V __attribute__((vector_size(BYTES)));
    constexpr int length = BYTES / sizeof(T);
    V sum[SUMS];
    for (int i = 0; i < SUMS; ++i) sum[i] = V{} + factor * T(i);  // not alike, or one would stand for all
    const V left = V{} + factor, right = V{} + factor;
    for (std::int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 16
        for (int i = 0; i < SUMS; ++i) sum[i] = sum[i] * left + right;
    }
    V total = V{};
    for (int i = 0; i < SUMS; ++i) total += sum[i];
    *out = total[0];
    return 2.0 * SUMS * length * rounds;
}

}  // namespace

extern "C" {
double peak_float32(std::int64_t rounds, float factor, float* out) { return run(rounds, factor, out); }
double peak_float64(std::int64_t rounds, double factor, double* out) { return run(rounds, factor, out); }
}
