// Vectors, products and what else the kernels of this package are made of.
//
// Every product is C = A B with B and C read and written along rows of whole vectors: tensors come with their rows
// zero-padded to whole cache lines (an odd number of them, so that columns do not fall into the same cache sets).
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>
#if defined(__SSE__)
#include <immintrin.h>
#endif

namespace {

using Index = std::int64_t;

#if defined(__AVX512F__)
constexpr Index VECTOR_BYTES = 64, TILE_ROWS = 8;  // 16 sums + 2 of B in 32 registers
#elif defined(__AVX__)
constexpr Index VECTOR_BYTES = 32, TILE_ROWS = 6;  // 12 sums + 2 of B + 1 of A in 16 registers
#else
constexpr Index VECTOR_BYTES = 16, TILE_ROWS = 6;
#endif
constexpr Index CACHE_LINE = 64;

template <class T>
struct Vector {
    typedef T type __attribute__((vector_size(VECTOR_BYTES), may_alias));
    static constexpr Index length = VECTOR_BYTES / sizeof(T);
};

// exp x = 2^n exp r with n = round(x / log 2), r = x - n log 2. The upper part of log 2 ends in zeros, so that n times
// it is exact; adding `magic` rounds x / log 2 to an integer that then stands in the low bits; the Taylor series of
// exp r for |r| <= 0.35 is cut where the rest is far below rounding. `lowest` is where 2^n would become subnormal.
template <class T>
struct Exponential;

template <>
struct Exponential<double> {
    typedef std::int64_t Bits __attribute__((vector_size(VECTOR_BYTES)));
    static constexpr double magic = 0x1.8p52, log2_upper = 0x1.62e42feep-1, log2_lower = 0x1.a39ef35793c76p-33;
    static constexpr double lowest = -708;
    static constexpr int bias = 1023, mantissa = 52, terms = 13;
};

template <>
struct Exponential<float> {
    typedef std::int32_t Bits __attribute__((vector_size(VECTOR_BYTES)));
    static constexpr float magic = 0x1.8p23f, log2_upper = 0x1.63p-1f, log2_lower = -0x1.bd0106p-13f;
    static constexpr float lowest = -87;
    static constexpr int bias = 127, mantissa = 23, terms = 7;
};

// exp x for x <= 0, within 1 ulp; 0 below `lowest`, NaN for NaN.
template <class T>
inline typename Vector<T>::type exponential(typename Vector<T>::type x) {
    using V = typename Vector<T>::type;
    using E = Exponential<T>;
    const V bounded = x < E::lowest ? V{} + E::lowest : x;
    const V shifted = bounded * T(1.4426950408889634) + E::magic;
    const V n = shifted - E::magic;
    const V r = (bounded - n * E::log2_upper) - n * E::log2_lower;
    T factorial[E::terms + 1] = {1};
    for (int i = 1; i <= E::terms; ++i) factorial[i] = factorial[i - 1] * T(i);
    V series = V{} + 1 / factorial[E::terms];
#pragma GCC unroll 16
    for (int i = E::terms - 1; i >= 2; --i) series = series * r + 1 / factorial[i];
    typename E::Bits power;
    std::memcpy(&power, &shifted, sizeof power);
    power = (power + E::bias) << E::mantissa;
    V scale;
    std::memcpy(&scale, &power, sizeof scale);
    const V result = ((series * r) * r + r + T(1)) * scale;
    return x < E::lowest ? V{} : result;
}

// *at = value, past this core's cache: to write a line that another core has read takes ten times as long as to send it
// to memory, from where the other core reads it as fast. `at` is a whole vector; see `Buffer` and `settle`.
template <class V>
inline void publish(V* at, V value) {
#if defined(__AVX512F__)
    _mm512_stream_si512(reinterpret_cast<__m512i*>(at), (__m512i)value);
#elif defined(__AVX__)
    _mm256_stream_si256(reinterpret_cast<__m256i*>(at), (__m256i)value);
#elif defined(__SSE2__)
    _mm_stream_si128(reinterpret_cast<__m128i*>(at), (__m128i)value);
#else
    *at = value;
#endif
}

// What was published so far is written before whatever comes next.
inline void settle() {
#if defined(__SSE__)
    _mm_sfence();
#endif
}

// to[i] = before[i] + sum[i], before or not, published or not; what is kept may be wider than what was summed.
template <class T, class V>
inline void keep(T* to, V sum, const T* before = nullptr, bool published = false) {
    if constexpr (sizeof(V) / sizeof(sum[0]) > Vector<T>::length) {
        typedef float Half __attribute__((vector_size(VECTOR_BYTES / 2)));
        Half halves[2];
        std::memcpy(halves, &sum, sizeof sum);
        for (Index i = 0, at = 0; i < 2; ++i, at += Vector<T>::length)
            keep(to + at, __builtin_convertvector(halves[i], typename Vector<T>::type), before ? before + at : nullptr,
                 published);
    } else {
        const V value = before ? *reinterpret_cast<const V*>(before) + sum : sum;
        if (published) publish(reinterpret_cast<V*>(to), value);
        else *reinterpret_cast<V*>(to) = value;
    }
}

// to[j][i] = from[i][j], by blocks of 4 x 4 where the compiler has a word for it.
template <class T>
void transpose(Index rows, Index columns, const T* from, Index from_row, T* to, Index to_row) {
    constexpr Index block = 4;
    Index i = 0;
    for (; i + block <= rows; i += block, from += block * from_row, to += block) {
        Index j = 0;
#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
        typedef T Four __attribute__((vector_size(block * sizeof(T)), may_alias, aligned(sizeof(T))));
        for (; j + block <= columns; j += block) {
            const auto row = [=](Index i) { return *reinterpret_cast<const Four*>(from + i * from_row + j); };
            const auto column = [=](Index k) -> Four& { return *reinterpret_cast<Four*>(to + (j + k) * to_row); };
            const Four a = row(0), b = row(1), c = row(2), d = row(3);
            const Four even = __builtin_shufflevector(a, b, 0, 4, 2, 6), odd = __builtin_shufflevector(a, b, 1, 5, 3, 7);
            const Four even2 = __builtin_shufflevector(c, d, 0, 4, 2, 6), odd2 = __builtin_shufflevector(c, d, 1, 5, 3, 7);
            column(0) = __builtin_shufflevector(even, even2, 0, 1, 4, 5);
            column(1) = __builtin_shufflevector(odd, odd2, 0, 1, 4, 5);
            column(2) = __builtin_shufflevector(even, even2, 2, 3, 6, 7);
            column(3) = __builtin_shufflevector(odd, odd2, 2, 3, 6, 7);
        }
#endif
#endif
        for (; j < columns; ++j)
            for (Index k = 0; k < block; ++k) to[j * to_row + k] = from[k * from_row + j];
    }
    for (; i < rows; ++i, from += from_row, ++to)
        for (Index j = 0; j < columns; ++j) to[j * to_row] = from[j];
}

// Rows of `width` numbers, padded to an odd number of cache lines.
template <class T>
Index padded(Index width) {
    const Index per_line = CACHE_LINE / sizeof(T);
    return ((width + per_line - 1) / per_line | 1) * per_line;
}

template <class T>
Index whole_vectors(Index width) {
    return (width + Vector<T>::length - 1) / Vector<T>::length * Vector<T>::length;
}

template <class T>
struct Operand {  // element (i, k) is data[i * row + k * column]
    const T* data;
    Index row, column;
};

// ROWS x VECTORS vectors of A B at (row, column), handed to `store(offset into C, sum)` while still in registers. They are
// added to what C has, in the order of one longer sum, if `before` says where that is.
template <class T, Index ROWS, Index VECTORS, class Store>
inline void tile(Operand<T> a, const T* b, Index b_row, Index depth, Index offset, Index c_row, Store store,
                 const T* before) {
    using V = typename Vector<T>::type;
    V sum[ROWS][VECTORS] = {};
    if (before)
        for (Index i = 0; i < ROWS; ++i)
            for (Index j = 0; j < VECTORS; ++j)
                sum[i][j] = *reinterpret_cast<const V*>(before + offset + i * c_row + j * Vector<T>::length);
    for (Index k = 0; k < depth; ++k) {
        V right[VECTORS];
        for (Index j = 0; j < VECTORS; ++j)
            right[j] = *reinterpret_cast<const V*>(b + k * b_row + j * Vector<T>::length);
#pragma GCC unroll 8
        for (Index i = 0; i < ROWS; ++i) {
            const T left = a.data[i * a.row + k * a.column];
#pragma GCC unroll 2
            for (Index j = 0; j < VECTORS; ++j) sum[i][j] += left * right[j];
        }
    }
#pragma GCC unroll 8
    for (Index i = 0; i < ROWS; ++i)
#pragma GCC unroll 2
        for (Index j = 0; j < VECTORS; ++j) store(offset + i * c_row + j * Vector<T>::length, sum[i][j]);
}

template <class T, Index ROWS, Index VECTORS, class Store>
inline void strip(Index row, Index rows, Operand<T> a, const T* b, Index b_row, Index depth, Index column, Index c_row,
                  Store store, const T* before) {
    for (; row + ROWS <= rows; row += ROWS)
        tile<T, ROWS, VECTORS>({a.data + row * a.row, a.row, a.column}, b, b_row, depth, row * c_row + column, c_row,
                               store, before);
    if constexpr (ROWS > 1) strip<T, ROWS - 1, VECTORS>(row, rows, a, b, b_row, depth, column, c_row, store, before);
}

// C = A B, C (rows x columns), inner dimension `depth`; C is known to `store` alone.
template <class T, class Store>
void multiply(Index rows, Index columns, Index depth, Operand<T> a, const T* b, Index b_row, Index c_row, Store store,
              const T* before = nullptr) {
    constexpr Index length = Vector<T>::length;
    Index column = 0;
    for (; column + length < columns; column += 2 * length)
        strip<T, TILE_ROWS, 2>(0, rows, a, b + column, b_row, depth, column, c_row, store, before);
    if (column < columns)
        strip<T, TILE_ROWS, 1>(0, rows, a, b + column, b_row, depth, column, c_row, store, before);
}

struct Free {
    void operator()(void* pointer) const { std::free(pointer); }
};

template <class T>
class Buffer {
public:
    explicit Buffer(Index size) : size_(size) {
        const std::size_t bytes = (size * sizeof(T) + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE;
        data_.reset(static_cast<T*>(std::aligned_alloc(CACHE_LINE, bytes)));
        std::fill_n(data_.get(), size, T(0));
    }
    operator T*() const { return data_.get(); }
    Index size() const { return size_; }

private:
    Index size_;
    std::unique_ptr<T, Free> data_;
};

// While one lives, subnormal numbers are zero: members decaying towards zero would otherwise crawl through them, a
// hundred times slower.
class Flushed {
#if defined(__SSE__)
public:
    Flushed() { _mm_setcsr(mode_ | 0x8040); }
    ~Flushed() { _mm_setcsr(mode_); }

private:
    const unsigned mode_ = _mm_getcsr();
#endif
};

template <class Work>
void on_threads(Index threads, Work work) {
    std::vector<std::thread> others;
    for (Index i = 1; i < threads; ++i) others.emplace_back(work, i);
    work(0);
    for (auto& thread : others) thread.join();
}

}  // namespace
