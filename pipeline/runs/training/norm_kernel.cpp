// Batch norm of maps whose channels lie side by side in memory: what native_norm.py calls, forward and backward. What
// comes behind it in a residual network, a shortcut that is added and ReLU, is done in the same passes.
//
// A map is `rows` positions (of all images) with `channels` numbers each, float32 or bfloat16. All sums are of float64,
// of pieces of rows each by itself and of these in their order, so that bits do not depend on the threads. PyTorch's own
// norm sums maps in this layout one after the other in float32.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "../../runtime/pieces.h"
#include "lanes.h"

namespace {

using pieces::Index;
constexpr Index PIECE_NUMBERS = 4096, PIECE_ROWS = 16;  // of a piece: it stays in the cache; rows at least

struct Norm {
    Index rows, channels, threads;
    Index half;             // whether maps are of bfloat16
    Index given;            // whether mean and variance are constants
    Index rectified;        // whether ReLU is behind it, or behind the sum with a shortcut
    pieces::Launch launch;  // or null
    const void *input, *gradient;
    void* output;                        // or the gradient of the input
    const void *shortcut, *activations;  // or null: what is added before ReLU; the outputs of that
    void* behind;                        // or null: where the gradient of the sum goes
    const float *weight, *bias;              // or null
    double *mean, *variance;                 // (channels); the variance is the biased one
    double *sums;                            // (2, channels): see `moments` and `gradient_sums`
    float *weight_gradient, *bias_gradient;  // or null
    float *running_mean, *running_variance;  // or null
    double count, epsilon, momentum;         // count: rows of all ranks
};

// y = (x - centre) scale + offset: what of the mean and the scale float32 cannot hold is in the offset.
struct Coefficients {
    std::vector<float> centre, scale, offset;

    explicit Coefficients(const Norm& norm) : centre(norm.channels), scale(norm.channels), offset(norm.channels) {
        for (Index c = 0; c < norm.channels; ++c) {
            const double exact = factor(norm, c);
            centre[c] = float(norm.mean[c]);
            scale[c] = float(exact);
            offset[c] = float((double(centre[c]) - norm.mean[c]) * exact + (norm.bias ? double(norm.bias[c]) : 0.0));
        }
    }

    static double factor(const Norm& norm, Index c) {
        return (norm.weight ? double(norm.weight[c]) : 1.0) / std::sqrt(norm.variance[c] + norm.epsilon);
    }
};

// The same of some channels of a row.
template <int L>
struct Affine {
    typename Lanes<L>::F centre, scale, offset;

    Affine(const Coefficients& of, Index c)
        : centre(load<L>(&of.centre[c])), scale(load<L>(&of.scale[c])), offset(load<L>(&of.offset[c])) {}

    typename Lanes<L>::F operator()(typename Lanes<L>::F x) const { return (x - centre) * scale + offset; }
};

template <class Work>
void over_pieces(const Norm& norm, Index count, const Work& work) {
    pieces::over(count, norm.threads, norm.launch, work);
}

Index rows_of_piece(const Norm& norm) { return std::max(PIECE_ROWS, PIECE_NUMBERS / std::max<Index>(1, norm.channels)); }

// How sums over rows are taken: of float32 numbers in float64; of bfloat16 ones in float32, as many at a time as are added
// without losing a digit that these have, and then in float64.
template <class T>
struct Summing {
    static constexpr bool half = std::is_same_v<T, Half>;
    static constexpr int lanes = half ? 2 * LANES : LANES;
    static constexpr Index rows = half ? 32 : PIECE_NUMBERS;
    template <int L>
    using Sum = std::conditional_t<half, typename Lanes<L>::F, typename Lanes<L>::D>;

    template <int L>
    static Sum<L> exact(typename Lanes<L>::F value) {
        if constexpr (half) return value;
        else return __builtin_convertvector(value, typename Lanes<L>::D);
    }
};

// Calls work(number of lanes, first channel) for all channels.
template <int L, class Work>
void over_channels(Index channels, const Work& work) {
    Index c = 0;
    for (; c + L <= channels; c += L) work(std::integral_constant<int, L>(), c);
    for (; c < channels; ++c) work(std::integral_constant<int, 1>(), c);
}

// Two sums for each channel over all rows, into `sums`. work(lanes, channel) returns a function of where a row's numbers
// for these channels are, and of two sums, to which it adds.
template <class T, class Work>
void summed(const Norm& norm, const Work& work) {
    const Index channels = norm.channels, most = rows_of_piece(norm), count = (norm.rows + most - 1) / most;
    thread_local std::vector<double> kept;  // memory is dear to get anew
    if (Index(kept.size()) < 2 * channels * count) kept.resize(2 * channels * count);
    double* const parts = kept.data();
    over_pieces(norm, count, [&](Index piece) {
        const Index first = piece * most, end = std::min(norm.rows, first + most);
        double* const part = parts + 2 * channels * piece;
        std::fill_n(part, 2 * channels, 0.0);
        over_channels<Summing<T>::lanes>(channels, [&](auto lanes, Index c) {
            constexpr int L = lanes.value;
            using Sum = typename Summing<T>::template Sum<L>;
            const auto add = work(lanes, c);
            for (Index from = first; from < end; from += Summing<T>::rows) {
                const Index to = std::min(end, from + Summing<T>::rows);
                Sum one[2] = {}, other[2] = {};  // two of each, for an addition waits for the one before it
                Index row = from;
                for (; row + 1 < to; row += 2) {
                    add(row * channels + c, one[0], other[0]);
                    add((row + 1) * channels + c, one[1], other[1]);
                }
                if (row < to) add(row * channels + c, one[0], other[0]);
                const Sum ones = one[0] + one[1], others = other[0] + other[1];
                for (int lane = 0; lane < L; ++lane) {
                    part[c + lane] += double(ones[lane]);
                    part[channels + c + lane] += double(others[lane]);
                }
            }
        });
    });
    std::fill_n(norm.sums, 2 * channels, 0.0);
    for (Index piece = 0; piece < count; ++piece)
        for (Index i = 0; i < 2 * channels; ++i) norm.sums[i] += parts[2 * channels * piece + i];
}

template <class T>
void moments(const Norm& norm) {
    const Index channels = norm.channels;
    const T* input = static_cast<const T*>(norm.input);
    std::vector<float> shift(channels);  // the first row, so that no digit of a small variance is lost
    for (Index c = 0; c < channels; ++c) shift[c] = load<1>(input + c)[0];
    summed<T>(norm, [&](auto lanes, Index c) {
        constexpr int L = lanes.value;
        using Sum = typename Summing<T>::template Sum<L>;
        const Sum by = Summing<T>::template exact<L>(load<L>(&shift[c]));
        return [input, by](Index at, Sum& sum, Sum& square) {
            const Sum off = Summing<T>::template exact<L>(load<L>(input + at)) - by;
            sum += off;
            square += off * off;
        };
    });
    for (Index c = 0; c < channels; ++c) {
        const double off = norm.sums[c] / double(norm.rows);
        norm.sums[c] = shift[c] + off;
        norm.sums[channels + c] = std::max(0.0, norm.sums[channels + c] / double(norm.rows) - off * off);
    }
}

// What is behind the norm.
enum Behind { NOTHING, RELU, SUM_AND_RELU };

// The gradient of what the norm makes of some channels, from that of what is behind it. The norm is made once more, which
// takes less time than to read what ReLU left of it.
template <class T, int L, Behind BEHIND>
struct Gradient {
    const T *input, *gradient, *activations;
    const Affine<L> affine;

    Gradient(const Norm& norm, const Coefficients& coefficients, Index c)
        : input(static_cast<const T*>(norm.input)),
          gradient(static_cast<const T*>(norm.gradient)),
          activations(static_cast<const T*>(norm.activations)),
          affine(coefficients, c) {}

    typename Lanes<L>::F operator()(Index at, typename Lanes<L>::F x) const {
        const auto own = load<L>(gradient + at);
        if constexpr (BEHIND == RELU) return where_positive<L>(affine(x), own);
        else if constexpr (BEHIND == SUM_AND_RELU) return where_positive<L>(load<L>(activations + at), own);
        else return own;
    }
};

template <class T, Behind BEHIND>
void gradient_sums(const Norm& norm) {
    const Index channels = norm.channels;
    const T* input = static_cast<const T*>(norm.input);
    T* behind = static_cast<T*>(norm.behind);
    const Coefficients coefficients(norm);
    summed<T>(norm, [&](auto lanes, Index c) {
        constexpr int L = lanes.value;
        using Sum = typename Summing<T>::template Sum<L>;
        const Sum centre = Summing<T>::template exact<L>(load<L>(&coefficients.centre[c]));
        const Gradient<T, L, BEHIND> gradient(norm, coefficients, c);
        return [input, behind, gradient, centre](Index at, Sum& sum, Sum& product) {
            const auto x = load<L>(input + at), found = gradient(at, x);
            if constexpr (BEHIND == SUM_AND_RELU) store<L>(behind + at, found);
            const Sum own = Summing<T>::template exact<L>(found);
            sum += own;
            product += own * (Summing<T>::template exact<L>(x) - centre);
        };
    });
    for (Index c = 0; c < channels; ++c) {
        const double root = std::sqrt(norm.variance[c] + norm.epsilon);
        norm.sums[channels + c] += (double(coefficients.centre[c]) - norm.mean[c]) * norm.sums[c];
        if (norm.bias_gradient) norm.bias_gradient[c] = float(norm.sums[c]);
        if (norm.weight_gradient) norm.weight_gradient[c] = float(norm.sums[channels + c] / root);
    }
}

template <class T, Behind BEHIND>
void normalise(const Norm& norm) {
    const Index channels = norm.channels, most = rows_of_piece(norm), count = (norm.rows + most - 1) / most;
    const Coefficients coefficients(norm);
    over_pieces(norm, count, [&](Index piece) {
        const Index row = piece * most, rows = std::min(most, norm.rows - row);
        over_channels<2 * LANES>(channels, [&](auto lanes, Index c) {
            constexpr int L = lanes.value;
            const Affine<L> affine(coefficients, c);
            const T *input = static_cast<const T*>(norm.input), *shortcut = static_cast<const T*>(norm.shortcut);
            T* output = static_cast<T*>(norm.output);
            const Index first = row * channels + c;
            for (Index at = first; at < first + rows * channels; at += channels) {
                auto y = affine(load<L>(input + at));
                if constexpr (BEHIND == SUM_AND_RELU) y += load<L>(shortcut + at);
                store<L>(output + at, BEHIND == NOTHING ? y : where_positive<L>(y, y));
            }
        });
    });
}

// dx = scale (g - mean g - (x - mean) k), with k = mean(g (x - mean)) / (variance + epsilon).
template <class T, Behind BEHIND>
void gradient_of_input(const Norm& norm) {
    const Index channels = norm.channels, most = rows_of_piece(norm), count = (norm.rows + most - 1) / most;
    const Coefficients coefficients(norm);
    std::vector<float> level(channels), slope(channels), rest(channels);
    for (Index c = 0; c < channels && !norm.given; ++c) {
        const double mean = norm.sums[c] / norm.count;
        const double k = norm.sums[channels + c] / norm.count / (norm.variance[c] + norm.epsilon);
        level[c] = float(mean);
        slope[c] = float(k);
        const double off = double(level[c]) - mean - k * (double(coefficients.centre[c]) - norm.mean[c]);
        rest[c] = float(Coefficients::factor(norm, c) * off);
    }
    over_pieces(norm, count, [&](Index piece) {
        const Index row = piece * most, rows = std::min(most, norm.rows - row);
        over_channels<2 * LANES>(channels, [&](auto lanes, Index c) {
            constexpr int L = lanes.value;
            const Gradient<T, L, BEHIND> gradient(norm, coefficients, c);
            const auto low = load<L>(&level[c]), steep = load<L>(&slope[c]), more = load<L>(&rest[c]);
            const T* input = static_cast<const T*>(norm.input);
            T* output = static_cast<T*>(norm.output);
            const Index first = row * channels + c;
            for (Index at = first; at < first + rows * channels; at += channels) {
                const auto x = load<L>(input + at), own = gradient(at, x);
                const auto off = (own - low) - (x - gradient.affine.centre) * steep;
                store<L>(output + at, off * gradient.affine.scale + more);
            }
        });
    });
}

// Calls run(a number of the maps' type, what is behind the norm).
template <class Run>
void dispatch(const Norm& norm, Behind behind, const Run& run) {
    const auto with = [&](auto number) {
        if (behind == NOTHING) run(number, std::integral_constant<Behind, NOTHING>());
        else if (behind == RELU) run(number, std::integral_constant<Behind, RELU>());
        else run(number, std::integral_constant<Behind, SUM_AND_RELU>());
    };
    norm.half ? with(Half()) : with(float());
}

Behind behind(const Norm& norm) { return !norm.rectified ? NOTHING : norm.shortcut ? SUM_AND_RELU : RELU; }

}  // namespace

extern "C" {

// Mean and variance of the rows of this rank: `sums`.
void norm_moments(const Norm* norm) { norm->half ? moments<Half>(*norm) : moments<float>(*norm); }

// `output` from mean and variance; running statistics move towards them.
void norm_forward(const Norm* norm) {
    dispatch(*norm, behind(*norm), [norm](auto number, auto behind) {
        normalise<decltype(number), decltype(behind)::value>(*norm);
    });
    const double own = norm->momentum, kept = 1 - own;
    for (Index c = 0; c < norm->channels && norm->running_mean; ++c) {
        const double unbiased = norm->variance[c] * norm->count / std::max(1.0, norm->count - 1);
        norm->running_mean[c] = float(own * norm->mean[c] + kept * double(norm->running_mean[c]));
        norm->running_variance[c] = float(own * unbiased + kept * double(norm->running_variance[c]));
    }
}

// The sums of the norm's gradient, and of it times what is off the mean, over the rows of this rank: `sums`; from these
// the gradients of weight and bias. And the gradient of a sum with a shortcut.
void norm_gradient_sums(const Norm* norm) {
    dispatch(*norm, behind(*norm), [norm](auto number, auto behind) {
        gradient_sums<decltype(number), decltype(behind)::value>(*norm);
    });
}

// The gradient of the input, from the sums over all ranks.
void norm_backward(const Norm* norm) {
    Norm own = *norm;
    if (norm->behind) {  // the gradient of the sum is there already
        own.gradient = norm->behind;
        own.rectified = 0;
    }
    dispatch(own, behind(own), [&own](auto number, auto behind) {
        gradient_of_input<decltype(number), decltype(behind)::value>(own);
    });
}
}
