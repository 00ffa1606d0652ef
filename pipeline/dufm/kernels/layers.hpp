// The layers of one member, forward and back, sample by sample through products with W_l.
//
//   forward   A_{l+1} = sigma(A_l W_l^T)       B = W_l^T, transposed once per step
//   backward  G_l = (G_{l+1} W_l) * sigma'     B = W_l
//   factor    dW_l += G_{l+1}^T A_l            B = A_l; A is read down its columns
#pragma once
#include <cmath>
#include <type_traits>

#include "tiles.hpp"

namespace {

constexpr Index CHUNK_ROWS = 128;

// What all members have in common; tensors are row-major with padded rows, see `padded`.
struct Shape {
    Index samples, depth, relu;
    Index cross_entropy;         // or else the squared error
    const Index* widths;         // d_1..d_L, K
    const void* targets;         // (N, K)
};

// Weights and the sums that move them are of type W, products and all that samples have are of type T. MASKED: units
// fire for the samples that `masks_` says, whatever they get.
template <class T, class W, bool MASKED = false>
class Layers {
protected:
    using V = typename Vector<T>::type;
    static constexpr bool mixed = !std::is_same_v<T, W>;

    // Samples first + at, ... of which the block that begins at `first` holds what layers put out.
    struct Rows {
        Index first, at, count;
    };

    // A block of samples goes through all layers before the next. In a team each thread keeps the gradients of all
    // layers.
    Layers(const Shape& shape, Index block, bool team) : shape_(shape), team_(team), factors_(shape.depth) {
        block_ = std::min(shape.samples, block);
        Index widest = 0;
        for (Index l = 0; l < shape.depth; ++l) {
            transposed_.emplace_back(width(l) * stride(l + 1));
            gradients_.emplace_back(width(l + 1) * stride(l));
            if (mixed) rounded_.emplace_back(width(l + 1) * stride(l));
            hidden_.emplace_back(block_ * stride(l + 1));
            widest = std::max({widest, stride(l), stride(l + 1)});
        }
        for (Index l = 0; l < (team ? shape.depth : 2); ++l) below_.emplace_back(block_ * widest);
    }

    Index width(Index l) const { return shape_.widths[l]; }
    Index stride(Index l) const { return padded<T>(shape_.widths[l]); }
    // What enters W_{l+1} (indices count from zero here).
    T* input(Index l, Rows rows) {
        return l == 0 ? features_ + (rows.first + rows.at) * stride(0) : hidden_[l - 1] + rows.at * stride(l);
    }
    // The gradient of what comes out of it.
    const T* above(Index l, Rows rows) {
        return (l + 1 == shape_.depth ? hidden_[l] : below(l + 1)) + rows.at * stride(l + 1);
    }
    Buffer<T>& below(Index l) { return below_[team_ ? l : l % 2]; }
    // Which units of layer l + 1 fire.
    const T* mask(Index l, Rows rows) const { return masks_[l - 1] + (rows.first + rows.at) * stride(l); }

    // A weight, which stays where it is while it is multiplied, as products want it.
    void prepare(Index l, const W* weight) {
        const Index rows = width(l + 1), columns = width(l);
        if constexpr (mixed) {
            for (Index i = 0; i < rows; ++i)
                std::copy_n(weight + i * padded<W>(columns), columns, rounded_[l] + i * stride(l));
            factors_[l] = rounded_[l];
        } else {
            factors_[l] = weight;
        }
        transpose<T>(rows, columns, factors_[l], stride(l), transposed_[l], stride(l + 1));
    }

    void forward(Rows rows) {
        for (Index l = 0; l < shape_.depth; ++l) {
            T* out = hidden_[l] + rows.at * stride(l + 1);
            const auto product = [&](auto store) {
                multiply<T>(rows.count, whole_vectors<T>(width(l + 1)), width(l), {input(l, rows), stride(l), 1},
                            transposed_[l], stride(l + 1), stride(l + 1), store);
            };
            if constexpr (MASKED) {
                if (l + 1 < shape_.depth) {
                    const T* fires = mask(l + 1, rows);
                    product([=](Index offset, V sum) {
                        *reinterpret_cast<V*>(out + offset) = sum * *reinterpret_cast<const V*>(fires + offset);
                    });
                    continue;
                }
            }
            const bool clip = shape_.relu && l + 1 < shape_.depth;
            product([=](Index offset, V sum) {
                *reinterpret_cast<V*>(out + offset) = clip ? (sum < 0 ? V{} : sum) : sum;
            });
        }
    }

    // What these samples' outputs cost.
    double fit(Rows rows) {
        const Index row = stride(shape_.depth), classes = width(shape_.depth);
        const T* target = static_cast<const T*>(shape_.targets) + (rows.first + rows.at) * row;
        const T* output = hidden_[shape_.depth - 1] + rows.at * row;
        double cost = 0;
        for (Index i = 0; i < rows.count; ++i, output += row, target += row) {
            const double highest = *std::max_element(output, output + classes);
            double sum = 0, all = 0;
            for (Index k = 0; k < classes; ++k) {
                const double off = shape_.cross_entropy ? output[k] - highest : output[k] - target[k];
                cost += shape_.cross_entropy ? -target[k] * off : off * off / 2;
                sum += shape_.cross_entropy ? std::exp(off) : 0;
                all += target[k];
            }
            if (shape_.cross_entropy) cost += all * std::log(sum);
        }
        return cost / shape_.samples;
    }

    void output_gradient(Rows rows) {
        const Index row = stride(shape_.depth), length = rows.count * row;
        const T* target = static_cast<const T*>(shape_.targets) + (rows.first + rows.at) * row;
        T* output = hidden_[shape_.depth - 1] + rows.at * row;
        const T scale = T(1) / T(shape_.samples);
        if (shape_.cross_entropy) {
            for (Index i = 0; i < length; i += row) softmax_gradient(output + i, target + i, scale);
            return;
        }
        for (Index i = 0; i < length; ++i) output[i] = (output[i] - target[i]) * scale;
    }

    // z <- (softmax(z) - target) scale of one sample; the padding stays zero.
    void softmax_gradient(T* z, const T* target, T scale) const {
        const Index classes = width(shape_.depth), whole = whole_vectors<T>(classes);
        T highest = z[0], sum = 0;
        for (Index k = 1; k < classes; ++k) highest = std::max(highest, z[k]);
        for (Index k = 0; k < whole; k += Vector<T>::length) {
            V& here = *reinterpret_cast<V*>(z + k);
            here = exponential<T>(here - highest);
        }
        for (Index k = 0; k < classes; ++k) sum += z[k];
        for (Index k = 0; k < whole; k += Vector<T>::length) {
            V& here = *reinterpret_cast<V*>(z + k);
            here = (here / sum - *reinterpret_cast<const V*>(target + k)) * scale;
        }
        std::fill(z + classes, z + whole, T(0));
    }

    // The gradient of W_{l+1} by these samples, as more of the sum that stands at `from`, if anything does.
    template <class Store>
    void weight_gradient(Index l, Rows rows, Store store, const T* from = nullptr) {
        multiply<T>(width(l + 1), whole_vectors<T>(width(l)), rows.count, {above(l, rows), 1, stride(l + 1)},
                    input(l, rows), stride(l), stride(l), store, from);
    }

    // The same, added to what samples of other chunks have, or kept alone if these are the `first`.
    void add_weight_gradient(Index l, Rows rows, bool first) {
        W* gradient = gradients_[l];
        if (first) weight_gradient(l, rows, [=](Index at, V sum) { keep(gradient + at, sum); });
        else weight_gradient(l, rows, [=](Index at, V sum) { keep(gradient + at, sum, gradient + at); });
    }

    template <class Store>
    void into_below(Index l, Rows rows, Store store) {
        multiply<T>(rows.count, whole_vectors<T>(width(l)), width(l + 1), {above(l, rows), stride(l + 1), 1},
                    factors_[l], stride(l), stride(l), store);
    }

    void gradient_below(Index l, Rows rows) {
        T* out = below(l) + rows.at * stride(l);
        const T* in = input(l, rows);
        if constexpr (MASKED) {
            const T* fires = mask(l, rows);
            into_below(l, rows, [=](Index offset, V sum) {
                *reinterpret_cast<V*>(out + offset) = sum * *reinterpret_cast<const V*>(fires + offset);
            });
        } else if (shape_.relu) {
            into_below(l, rows, [=](Index offset, V sum) {
                *reinterpret_cast<V*>(out + offset) = *reinterpret_cast<const V*>(in + offset) > 0 ? sum : V{};
            });
        } else {
            into_below(l, rows, [=](Index offset, V sum) { *reinterpret_cast<V*>(out + offset) = sum; });
        }
    }

    const Shape& shape_;
    const bool team_;
    Index block_;
    T* features_ = nullptr;
    std::vector<W*> weights_;
    std::vector<const T*> masks_;  // of what enters W_2..W_L, (N, d) each
    std::vector<const T*> factors_;  // weights as they are multiplied from the right
    std::vector<Buffer<T>> transposed_, rounded_, hidden_, below_;
    std::vector<Buffer<W>> gradients_;
};

}  // namespace
