// How many float64 numbers a vector of this processor has, and vectors from anywhere in memory.
#pragma once

#include <cstring>

namespace {

#if defined(__AVX512F__)
constexpr int LANES = 8;
#elif defined(__AVX__)
constexpr int LANES = 4;
#else
constexpr int LANES = 2;
#endif

template <class V, class T>
inline V raw(const T* from) {
    V value;
    std::memcpy(&value, from, sizeof(V));
    return value;
}

}  // namespace
