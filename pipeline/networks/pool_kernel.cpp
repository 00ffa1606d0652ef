// What is taken of activations as they pass, in one pass over memory: what pooling.py calls.
//
// How many numbers of a sample are not zero, for which PyTorch needs three passes and writes one of them; and where
// channels lie side by side, their means over positions, for which it needs one more.
#include <cstring>

#include "../runtime/pieces.h"

namespace {

using pieces::Index;

// Vectors of numbers, and of counts of as many.
constexpr Index LONG = 16, SHORT = 8;
typedef float Long __attribute__((vector_size(LONG * sizeof(float))));
typedef float Short __attribute__((vector_size(SHORT * sizeof(float))));
typedef std::int32_t LongCount __attribute__((vector_size(LONG * sizeof(std::int32_t))));
typedef std::int32_t ShortCount __attribute__((vector_size(SHORT * sizeof(std::int32_t))));
constexpr Index BLOCK = 4096 * LONG;  // whose lanes cannot overflow

template <class V>
inline V load(const float* from) {
    V value;
    std::memcpy(&value, from, sizeof(value));
    return value;
}

// How many numbers were not zero, lane by lane.
template <class V, class Count>
struct Counted {
    Count lanes = {};
    void look_at(V value) { lanes -= (Count)(value != 0.0f); }  // -1 in a lane where it holds
    Index total() const {
        Index found = 0;
        for (Index lane = 0; lane < Index(sizeof(V) / sizeof(float)); ++lane) found += lanes[lane];
        return found;
    }
};
template <>
struct Counted<float, Index> {
    Index found = 0;
    void look_at(float value) { found += value != 0.0f; }
    Index total() const { return found; }
};

Index not_zero(const float* from, Index count) {
    Index found = 0, at = 0;
    while (at + LONG <= count) {
        const Index end = std::min(count - LONG + 1, at + BLOCK);
        Counted<Long, LongCount> counted;
        for (; at < end; at += LONG) counted.look_at(load<Long>(from + at));
        found += counted.total();
    }
    for (; at < count; ++at) found += from[at] != 0.0f;
    return found;
}

// Four sums at once, of what lies `apart`, over rows that lie `stride` apart: first of 16 rows, then of 16 such sums, and
// so on, so that rounding grows with the logarithm of their number. This is how PyTorch adds (its SumKernel.cpp); so the
// means are the same bits with this kernel and without.
constexpr Index STEP_BITS = 4, STEP = 1 << STEP_BITS, LEVELS = 4, SUMS = 4;

template <class V, class Counts>
inline void four_sums(const float* from, Index rows, Index stride, Index apart, V* sums, Counts& counted) {
    V levels[LEVELS][SUMS] = {};
    Index row = 0;
    const auto add_row = [&] {
        for (Index i = 0; i < SUMS; ++i) {
            const V value = load<V>(from + row * stride + i * apart);
            levels[0][i] += value;
            counted.look_at(value);
        }
        ++row;
    };
    while (row + STEP <= rows) {
        for (Index end = row + STEP; row < end;) add_row();
        for (Index level = 1; level < LEVELS; ++level) {
            for (Index i = 0; i < SUMS; ++i) {
                levels[level][i] += levels[level - 1][i];
                levels[level - 1][i] = V{};
            }
            if (row >> (level * STEP_BITS) & (STEP - 1)) break;
        }
    }
    while (row < rows) add_row();
    for (Index i = 0; i < SUMS; ++i) {
        sums[i] = levels[0][i];
        for (Index level = 1; level < LEVELS; ++level) sums[i] += levels[level][i];
    }
}

// The sum of one column, or of as many as V holds: of rows 0, 4, 8, .., of rows 1, 5, .., and so on, added up.
template <class V, class Counts>
inline V column_sum(const float* from, Index rows, Index stride, Counts& counted) {
    V sums[SUMS];
    four_sums(from, rows / SUMS, SUMS * stride, stride, sums, counted);
    for (Index row = rows / SUMS * SUMS; row < rows; ++row) {
        const V value = load<V>(from + row * stride);
        sums[0] += value;
        counted.look_at(value);
    }
    return sums[0] + sums[1] + sums[2] + sums[3];
}

// Means of columns over rows of `width` numbers.
struct Means {
    const float* from;
    Index rows, width;
    float* means;
    Index column = 0, found = 0;

    // Of the next columns, as long as there are enough of them for V, one by one or four at a time.
    template <class V, class Count>
    void add(bool in_fours) {
        constexpr Index LANES = sizeof(V) / sizeof(float), AT_ONCE = SUMS * LANES;
        Counted<V, Count> counted;
        for (V sums[SUMS]; in_fours && column + AT_ONCE <= width;) {
            four_sums(from + column, rows, width, LANES, sums, counted);
            for (const V& sum : sums) keep(sum);
        }
        while (!in_fours && column + LANES <= width) keep(column_sum<V>(from + column, rows, width, counted));
        found += counted.total();
    }

    template <class V>
    void keep(V sum) {
        sum /= float(rows);
        std::memcpy(means + column, &sum, sizeof(sum));
        column += sizeof(V) / sizeof(float);
    }
};

}  // namespace

extern "C" {

void count_not_zero(const float* from, Index samples, Index numbers, double* counts, Index threads,
                    pieces::Launch launch) {
    pieces::over(samples, threads, launch, [=](Index sample) {
        counts[sample] = double(not_zero(from + sample * numbers, numbers));
    });
}

// from (samples, rows, columns); means (samples, columns); active (samples), how many are not zero, per row.
void pool(const float* from, Index samples, Index rows, Index columns, float* means, double* active, Index threads,
          pieces::Launch launch) {
    pieces::over(samples, threads, launch, [=](Index sample) {
        Means own{from + sample * rows * columns, rows, columns, means + sample * columns};
        if (columns >= SHORT) {
            own.add<Short, ShortCount>(true);
            own.add<Long, LongCount>(false);
            own.add<Short, ShortCount>(false);
        } else {
            own.add<float, Index>(true);
        }
        own.add<float, Index>(false);
        active[sample] = double(own.found) / double(rows);
    });
}
}
