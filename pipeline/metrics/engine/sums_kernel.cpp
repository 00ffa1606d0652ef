// Sums over labelled rows about an anchor of each class: what native_sums.py calls for each tile of rows.
//
// One pass over the rows as they come does what takes PyTorch eight: it converts to double, makes the first row of a
// class its anchor, takes the anchor off, keeps the deviation for the product that follows (if there is one), adds it to
// the sum of the class and its square to that of the row, and counts entries that are not zero.
#include <cstdint>
#include <cstring>

#include "../../runtime/vectors.h"

namespace {

using Index = std::int64_t;

typedef double Doubles __attribute__((vector_size(LANES * sizeof(double))));
typedef Index Indices __attribute__((vector_size(LANES * sizeof(Index))));

template <class T>
struct Vector {
    typedef T type __attribute__((vector_size(LANES * sizeof(T))));
};

template <class T, bool KEEP>
Index sum_row(const T* row, const double* anchor, double* deviation, double* sum, double* square, Index width) {
    Doubles squares = {};
    Indices nonzero = {};
    Index column = 0;
    for (; column + LANES <= width; column += LANES) {
        const Doubles value = __builtin_convertvector(raw<typename Vector<T>::type>(row + column), Doubles);
        const Doubles off = value - raw<Doubles>(anchor + column);
        const Doubles total = raw<Doubles>(sum + column) + off;
        std::memcpy(sum + column, &total, sizeof(total));
        if (KEEP) std::memcpy(deviation + column, &off, sizeof(off));
        squares += off * off;
        nonzero -= value != 0;  // a lane is -1 where it holds
    }
    double of_row = 0;
    Index count = 0;
    for (Index lane = 0; lane < LANES; ++lane) {
        of_row += squares[lane];
        count += nonzero[lane];
    }
    for (; column < width; ++column) {
        const double value = row[column], off = value - anchor[column];
        sum[column] += off;
        if (KEEP) deviation[column] = off;
        of_row += off * off;
        count += value != 0;
    }
    *square += of_row;
    return count;
}

template <class T>
Index sum_rows(const T* rows, const Index* labels, Index samples, Index width, Index classes, double* deviations,
               double* counts, double* anchors, double* sums, double* squares) {
    Index nonzero = 0;
    for (Index sample = 0; sample < samples; ++sample) {
        const T* row = rows + sample * width;
        const Index label = labels[sample];
        const bool known = label >= 0 && label < classes;
        const Index bin = known ? label : classes;  // of rows without class, about some anchor
        double* anchor = anchors + (known ? label : 0) * width;
        if (known && counts[label]++ == 0)
            for (Index column = 0; column < width; ++column) anchor[column] = row[column];
        double unwanted = 0, *sum = sums + bin * width, *square = squares ? squares + bin : &unwanted;
        nonzero += deviations ? sum_row<T, true>(row, anchor, deviations + sample * width, sum, square, width)
                              : sum_row<T, false>(row, anchor, nullptr, sum, square, width);
    }
    return nonzero;
}

template <class T>
void minus_rows(const T* rows, const Index* labels, Index samples, Index width, const double* table, double* to) {
    for (Index sample = 0; sample < samples; ++sample, rows += width, to += width) {
        const double* own = table + labels[sample] * width;
        for (Index column = 0; column < width; ++column) to[column] = rows[column] - own[column];
    }
}

}  // namespace

extern "C" {

Index sum_rows_float32(const float* rows, const Index* labels, Index samples, Index width, Index classes,
                       double* deviations, double* counts, double* anchors, double* sums, double* squares) {
    return sum_rows(rows, labels, samples, width, classes, deviations, counts, anchors, sums, squares);
}

Index sum_rows_float64(const double* rows, const Index* labels, Index samples, Index width, Index classes,
                       double* deviations, double* counts, double* anchors, double* sums, double* squares) {
    return sum_rows(rows, labels, samples, width, classes, deviations, counts, anchors, sums, squares);
}

void minus_rows_float32(const float* rows, const Index* labels, Index samples, Index width, const double* table,
                        double* to) {
    minus_rows(rows, labels, samples, width, table, to);
}

void minus_rows_float64(const double* rows, const Index* labels, Index samples, Index width, const double* table,
                        double* to) {
    minus_rows(rows, labels, samples, width, table, to);
}
}
