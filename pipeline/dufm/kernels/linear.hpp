// One member's linear layers, Z = H (W_L .. W_1)^T: weights are multiplied first, so that a hidden layer costs K d^2
// multiply-adds and not N d^2. Samples lie along vectors, and the softmax needs no sums within one.
//
//   P_l = W_L .. W_l      (K x d_l)      A = P_{l+1}, B = W_l
//   Z^T = P_1 H^T         (K x N)        A = P_1, B = H^T
//   dH^T = P_1^T G^T      (d_1 x N)      A = P_1, read down its columns, B = G^T, the gradient of Z
//   E_1 = G^T H, E_{l+1} = E_l W_l^T     products of rows
//   dW_l = P_{l+1}^T E_l                 A = P_{l+1}, read down its columns, B = E_l
#pragma once
#include <cmath>

#include "layers.hpp"

namespace {

#if defined(__AVX512F__)
constexpr Index DOT_ROWS = 4, DOT_COLUMNS = 4;
#else
constexpr Index DOT_ROWS = 2, DOT_COLUMNS = 4;
#endif

// The sum of the numbers of a vector of so many bytes, by halves.
template <class T, Index BYTES = VECTOR_BYTES, class Numbers>
inline T lanes(Numbers v) {
    if constexpr (BYTES == sizeof(T)) {
        return v[0];
    } else {
        typedef T Half __attribute__((vector_size(BYTES / 2)));
        Half halves[2];
        std::memcpy(halves, &v, sizeof v);
        return lanes<T, BYTES / 2>(halves[0] + halves[1]);
    }
}

// Products of rows of A and B, C = A B^T (rows x columns), of so many numbers: `store(i, j, sum)`.
template <class T, Index ROWS, Index COLUMNS, class Store>
inline void dot_strip(Index row, Index rows, Index column, const T* a, Index a_row, const T* b, Index b_row,
                      Index numbers, Store store) {
    using V = typename Vector<T>::type;
    for (; row + ROWS <= rows; row += ROWS) {
        V sum[ROWS][COLUMNS] = {};
        for (Index k = 0; k < numbers; k += Vector<T>::length) {
            V right[COLUMNS];
            for (Index j = 0; j < COLUMNS; ++j) right[j] = *reinterpret_cast<const V*>(b + (column + j) * b_row + k);
#pragma GCC unroll 4
            for (Index i = 0; i < ROWS; ++i) {
                const V left = *reinterpret_cast<const V*>(a + (row + i) * a_row + k);
#pragma GCC unroll 4
                for (Index j = 0; j < COLUMNS; ++j) sum[i][j] += left * right[j];
            }
        }
#pragma GCC unroll 4
        for (Index i = 0; i < ROWS; ++i)
#pragma GCC unroll 4
            for (Index j = 0; j < COLUMNS; ++j) store(row + i, column + j, lanes<T>(sum[i][j]));
    }
    if constexpr (ROWS > 1)
        dot_strip<T, ROWS - 1, COLUMNS>(row, rows, column, a, a_row, b, b_row, numbers, store);
}

template <class T, Index COLUMNS = DOT_COLUMNS, class Store>
void dots(Index rows, Index columns, const T* a, Index a_row, const T* b, Index b_row, Index numbers, Store store,
          Index column = 0) {
    for (; column + COLUMNS <= columns; column += COLUMNS)
        dot_strip<T, DOT_ROWS, COLUMNS>(0, rows, column, a, a_row, b, b_row, numbers, store);
    if constexpr (COLUMNS > 1)
        if (column < columns) dots<T, COLUMNS - 1>(rows, columns, a, a_row, b, b_row, numbers, store, column);
}

template <class T>
class LinearLayers {
    using V = typename Vector<T>::type;

public:
    explicit LinearLayers(const Shape& shape)
        : shape_(shape),
          classes_(shape.widths[shape.depth]),
          block_(std::min(shape.samples, CHUNK_ROWS)),
          row_(padded<T>(block_)),
          blocks_((shape.samples + block_ - 1) / block_),
          targets_(blocks_ * classes_ * row_),
          scale_(blocks_ * row_),
          outputs_(classes_ * row_) {
        into_columns(static_cast<const T*>(shape.targets), classes_, targets_);
        for (Index i = 0; i < shape.samples; ++i) scale_[i / block_ * row_ + i % block_] = T(1) / T(shape.samples);
        for (Index l = 0; l < shape.depth; ++l) {
            products_.emplace_back(l + 1 < shape.depth ? classes_ * stride(l) : 0);
            entering_.emplace_back(classes_ * stride(l));
        }
    }

    // Of H^T, in blocks of samples.
    Index size() const { return blocks_ * shape_.widths[0] * row_; }

    void into_columns(const T* rows, Index width, T* columns) const {
        const Index stride = padded<T>(width);
        for (Index i = 0; i < shape_.samples; ++i)
            for (Index j = 0; j < width; ++j) columns[place(i, j, width)] = rows[i * stride + j];
    }

    void into_rows(const T* columns, Index width, T* rows) const {
        const Index stride = padded<T>(width);
        for (Index i = 0; i < shape_.samples; ++i)
            for (Index j = 0; j < width; ++j) rows[i * stride + j] = columns[place(i, j, width)];
    }

    // Hands gradients to `of_features(offset into H^T, sum)` and `of_weight(l, offset, sum)` as they come: nothing is
    // read any more there. Returns what the outputs cost, if that is wanted.
    template <bool VALUE, class FeatureStore, class WeightStore>
    double pass(const T* features, const std::vector<T*>& weights, FeatureStore of_features, WeightStore of_weight) {
        const Index last = shape_.depth - 1;
        const T* product = weights[last];
        for (Index l = last - 1; l >= 0; --l) {
            T* out = products_[l];
            multiply<T>(classes_, whole_vectors<T>(width(l)), width(l + 1), {product, stride(l + 1), 1}, weights[l],
                        stride(l), stride(l), [=](Index at, V sum) { *reinterpret_cast<V*>(out + at) = sum; });
            product = out;
        }
        T* entering = entering_[0];
        std::fill_n(entering, classes_ * stride(0), T(0));
        double cost = 0;
        for (Index block = 0; block < blocks_; ++block) {
            const Index count = whole_vectors<T>(std::min(block_, shape_.samples - block * block_));
            const Index begin = block * width(0) * row_;
            T* outputs = outputs_;
            multiply<T>(classes_, count, width(0), {product, stride(0), 1}, features + begin, row_, row_,
                        [=](Index at, V sum) { *reinterpret_cast<V*>(outputs + at) = sum; });
            cost += output_gradient<VALUE>(block, count);
            dots<T>(classes_, width(0), outputs, row_, features + begin, row_, count,
                    [entering, row = stride(0)](Index i, Index j, T sum) { entering[i * row + j] += sum; });
            multiply<T>(width(0), count, classes_, {product, 1, stride(0)}, outputs, row_, row_,
                        [=](Index at, V sum) { of_features(begin + at, sum); });
        }
        for (Index l = 0; l < last; ++l) {
            T* after = entering_[l + 1];
            dots<T>(classes_, width(l + 1), entering_[l], stride(l), weights[l], stride(l), whole_vectors<T>(width(l)),
                    [after, row = stride(l + 1)](Index i, Index j, T sum) { after[i * row + j] = sum; });
            multiply<T>(width(l + 1), whole_vectors<T>(width(l)), classes_, {above(l, weights), 1, stride(l + 1)},
                        entering_[l], stride(l), stride(l), [=](Index at, V sum) { of_weight(l, at, sum); });
        }
        for (Index i = 0; i < classes_; ++i)
            for (Index j = i * stride(last); j < i * stride(last) + width(last); j += Vector<T>::length)
                of_weight(last, j, *reinterpret_cast<const V*>(entering_[last] + j));
        return cost / shape_.samples;
    }

private:
    Index place(Index sample, Index j, Index width) const {
        return (sample / block_ * width + j) * row_ + sample % block_;
    }
    Index width(Index l) const { return shape_.widths[l]; }
    Index stride(Index l) const { return padded<T>(shape_.widths[l]); }
    // P_{l+2}, as indices count from zero here.
    const T* above(Index l, const std::vector<T*>& weights) const {
        return l + 2 == shape_.depth ? weights[l + 1] : products_[l + 1];
    }

    // Z^T <- G^T of a block; what it costs, times N.
    template <bool VALUE>
    double output_gradient(Index block, Index count) {
        const T* targets = targets_ + block * classes_ * row_;
        V cost{};
        double logarithms = 0;
        for (Index i = 0; i < count; i += Vector<T>::length) {
            const V scale = *reinterpret_cast<const V*>(scale_ + block * row_ + i);
            const auto z = [=](Index k) -> V& { return *reinterpret_cast<V*>(outputs_ + k * row_ + i); };
            const auto target = [=](Index k) { return *reinterpret_cast<const V*>(targets + k * row_ + i); };
            if (!shape_.cross_entropy) {
                for (Index k = 0; k < classes_; ++k) {
                    const V off = z(k) - target(k);
                    if constexpr (VALUE) cost += off * off * T(0.5);
                    z(k) = off * scale;
                }
                continue;
            }
            V highest = z(0), sum{}, all{};
            for (Index k = 1; k < classes_; ++k) highest = z(k) > highest ? z(k) : highest;
            for (Index k = 0; k < classes_; ++k) {
                const V off = z(k) - highest, power = exponential<T>(off);
                if constexpr (VALUE) cost -= target(k) * off, all += target(k);
                sum += power;
                z(k) = power;
            }
            const V share = scale / sum;  // one division, and not one a class
            for (Index k = 0; k < classes_; ++k) z(k) = z(k) * share - target(k) * scale;
            if constexpr (VALUE)
                for (Index lane = 0; lane < Vector<T>::length; ++lane)
                    if (all[lane] != 0) logarithms += all[lane] * std::log(double(sum[lane]));
        }
        return VALUE ? lanes<T>(cost) + logarithms : 0;
    }

    const Shape& shape_;
    const Index classes_, block_, row_, blocks_;
    Buffer<T> targets_, scale_, outputs_;
    std::vector<Buffer<T>> products_, entering_;
};

}  // namespace
