// Some float32 numbers at a time, which lie in memory as such or as bfloat16.
#pragma once

#include <cstdint>
#include <cstring>
#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

#include "../../runtime/vectors.h"

namespace {

using Half = std::uint16_t;  // the upper half of a float32

template <int L>
struct Lanes {
    typedef float F __attribute__((vector_size(L * sizeof(float))));
    typedef double D __attribute__((vector_size(L * sizeof(double))));
    typedef std::int32_t I __attribute__((vector_size(L * sizeof(std::int32_t))));
    typedef std::uint32_t U __attribute__((vector_size(L * sizeof(std::uint32_t))));
    typedef Half H __attribute__((vector_size(L * sizeof(Half))));
};

template <int L>
inline typename Lanes<L>::F load(const float* from) {
    return raw<typename Lanes<L>::F>(from);
}

template <int L>
inline typename Lanes<L>::F load(const Half* from) {
    using U = typename Lanes<L>::U;
    return (typename Lanes<L>::F)(__builtin_convertvector(raw<typename Lanes<L>::H>(from), U) << 16);
}

template <int L>
inline void store(float* to, typename Lanes<L>::F value) {
    std::memcpy(to, &value, sizeof(value));
}

template <int L>
inline void store(Half* to, typename Lanes<L>::F value) {  // rounded to the nearest, ties to even; NaN stays NaN
    using U = typename Lanes<L>::U;
    const U bits = (U)value, is_number = (U)(value == value);
    const U rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    const auto narrow = __builtin_convertvector((rounded & is_number) | (~is_number & 0x7fc0), typename Lanes<L>::H);
    std::memcpy(to, &narrow, sizeof(narrow));
}

#if defined(__AVX512BF16__)
template <>
inline void store<16>(Half* to, Lanes<16>::F value) {  // the same, but for numbers below 2^-126, which become 0
    const auto narrow = _mm512_cvtneps_pbh((__m512)value);
    std::memcpy(to, &narrow, sizeof(narrow));
}
#endif

template <int L>
inline typename Lanes<L>::F where_positive(typename Lanes<L>::F output, typename Lanes<L>::F value) {  // NaN counts
    return output <= 0 ? typename Lanes<L>::F{} : value;
}

}  // namespace
