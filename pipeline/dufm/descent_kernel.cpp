// Gradient descent on DUFMs, squared error or cross-entropy, each member on one thread and inside its cache; where
// there are more threads than members, a team of them takes the steps of each.
//
// Weights, velocities and the sums that move them are of type W, products and all that samples have are of type T: the
// same, or double and float for frozen features ("mixed"; a copy of the weights is then rounded once per step).
//
// Built once per machine by descent_native.py. Members never wait for each other, and within a member the samples pass
// in chunks through all layers forward and back before the next chunk is touched, so activations live in L1/L2 only.
#include <atomic>

#include "kernels/layers.hpp"
#include "kernels/linear.hpp"

extern "C" {
// All tensors are row-major with padded rows; see `padded`.
struct Problem {
    Shape shape;
    Index steps, shared_features, threads;
    Index nonnegative;           // features are clamped at 0 after every step
    const Index* chosen;         // of the members, those that descend
    Index num_chosen;
    void* features;              // (S, N, d_1), or (N, d_1) where shared
    void* feature_velocity;      // (S, N, d_1)
    void* const* weights;        // L times (S, d_{l+1}, d_l)
    void* const* velocities;     // like the weights
    const double* lr;            // (S,)
    const double* weight_decay;  // (S, L)
    const double* feature_decay; // (S,), null where the features are frozen
    double momentum;             // velocities may be null where it is zero
};
}

namespace {

template <class T>
T* at(void* base, Index offset) {
    return base ? static_cast<T*>(base) + offset : nullptr;
}

// Of a step of one member, roughly.
Index multiply_adds(const Shape& shape) {
    Index sum = 0;
    for (Index l = 0; l < shape.depth; ++l) sum += 3 * shape.widths[l] * shape.widths[l + 1];
    return sum * shape.samples;
}

constexpr Index WORTH_A_TEAM = 300'000;  // multiply-adds of a step: below, threads would wait longer than they work

// Whether weights are multiplied first; the same for any number of threads. Squared error keeps the rounding that its
// published numbers have.
bool weights_first(const Problem& problem) {
    const Shape& shape = problem.shape;
    if (!shape.cross_entropy || !problem.feature_decay || (shape.relu && shape.depth > 1)) return false;
    if (shape.depth == 1) return multiply_adds(shape) < WORTH_A_TEAM;
    const Index classes = shape.widths[shape.depth];
    Index sum = 3 * shape.samples * shape.widths[0] * classes;
    for (Index l = 0; l + 1 < shape.depth; ++l) sum += 3 * classes * shape.widths[l] * shape.widths[l + 1];
    return 2 * sum < multiply_adds(shape);
}

// p <- p - lr (g + decay p), or the same through a velocity as torch.optim.SGD does it.
template <class T>
struct Rule {
    T lr, decay, keep, momentum;

    Rule(double lr, double decay, double momentum)
        : lr(T(lr)), decay(T(decay)), keep(T(1 - lr * decay)), momentum(T(momentum)) {}

    template <class V>
    void apply(V& parameter, V* velocity, V gradient) const {
        if (velocity) {
            *velocity = momentum * *velocity + gradient + decay * parameter;
            parameter -= lr * *velocity;
        } else {
            parameter = keep * parameter - lr * gradient;
        }
    }
};

// What the threads that take the steps of one member together hand to each other, by layer: the gradient of a weight,
// as far as it is summed, and the weight itself once it has moved.
template <class T, class W>
class Relay {
public:
    Relay(const Problem& problem, Index member) : times_(problem.shape.depth) {
        for (Index l = 0; l < problem.shape.depth; ++l) {
            const Index rows = problem.shape.widths[l + 1], columns = problem.shape.widths[l];
            gradients_.emplace_back(rows * padded<T>(columns));
            for (auto& weights : weights_) weights.emplace_back(rows * padded<W>(columns));
            const Index size = weights_[0][l].size();
            std::copy_n(at<W>(problem.weights[l], member * size), size, (W*)weights_[1][l]);
        }
    }

    // Where to publish what is then handed on.
    W* gradient_place(Index l) { return gradients_[l]; }
    W* weight_place(Index l, Index step) { return weights_[step % 2][l]; }
    void hand_on(Index l) {
        settle();
        times_[l].count.fetch_add(1, std::memory_order_release);
    }

    // What has been handed on once anything of W_{l+1} was for that many times. The next gradient is handed on after
    // this one has been used. A weight stays until the end of the next step, whose own has another place.
    const W* gradient(Index l, Index times) const { return taken(l, times, gradients_[l]); }
    const W* weight(Index l, Index step, Index times) const { return taken(l, times, weights_[step % 2][l]); }
    const W* first_weight(Index l) const { return weights_[1][l]; }

private:
    static constexpr int PATIENCE = 2000;
    static void pause() {
#if defined(__SSE__)
        _mm_pause();
#endif
    }

    // Reads once straight through, at the pace of memory: whoever reads by rows and columns would wait for every line.
    const W* taken(Index l, Index times, const Buffer<W>& from) const {
        wait(l, times);
        const volatile W* numbers = from;
        for (Index at = 0; at < from.size(); at += CACHE_LINE / sizeof(W)) static_cast<void>(numbers[at]);
        return from;
    }

    void wait(Index l, Index times) const {
        for (int turn = 0; times_[l].count.load(std::memory_order_acquire) < times; ++turn)
            if (turn < PATIENCE) pause();
            else std::this_thread::yield();
    }

    struct Times {
        alignas(CACHE_LINE) std::atomic<Index> count{0};
    };
    std::vector<Buffer<W>> gradients_, weights_[2];
    std::vector<Times> times_;
};

// What moves the parameters of a member.
template <class T, class W>
class Moving : protected Layers<T, W> {
protected:
    using Base = Layers<T, W>;
    using typename Base::Rows;
    using typename Base::V;
    using Base::features_, Base::gradients_, Base::shape_, Base::weights_, Base::stride, Base::width;

    Moving(const Problem& problem, Index member, Index block, bool team)
        : Base(problem.shape, block, team), problem_(problem), frozen_(problem.feature_decay == nullptr) {
        const Index depth = shape_.depth, samples = shape_.samples;
        features_ = at<T>(problem.features, problem.shared_features ? 0 : member * samples * stride(0));
        feature_velocity_ = at<T>(problem.feature_velocity, member * samples * stride(0));
        if (!frozen_) feature_rule_.emplace_back(problem.lr[member], problem.feature_decay[member], problem.momentum);
        for (Index l = 0; l < depth; ++l) {
            const Index size = width(l + 1) * padded<W>(width(l));
            weights_.push_back(at<W>(problem.weights[l], member * size));
            velocities_.push_back(at<W>(problem.velocities ? problem.velocities[l] : nullptr, member * size));
            rules_.emplace_back(problem.lr[member], problem.weight_decay[member * depth + l], problem.momentum);
        }
    }

    // What moves features at an offset from these rows, given their gradient.
    auto feature_step(Rows rows) {
        const Index begin = (rows.first + rows.at) * stride(0);
        T* feature = features_ + begin;
        T* velocity = feature_velocity_ ? feature_velocity_ + begin : nullptr;
        return [feature, velocity, rule = feature_rule_[0], clip = problem_.nonnegative](Index offset, V sum) {
            V& here = *reinterpret_cast<V*>(feature + offset);
            rule.apply(here, velocity ? reinterpret_cast<V*>(velocity + offset) : nullptr, sum);
            if (clip) here = here < 0 ? V{} : here;
        };
    }

    // Moves a weight by its gradient, and publishes it if somebody waits for it.
    void move_weight(Index l, W* published = nullptr) {
        using Wide = typename Vector<W>::type;
        const Index columns = width(l), from = stride(l), to = padded<W>(columns);
        for (Index i = 0; i < width(l + 1); ++i)
            for (Index j = 0; j < columns; j += Vector<W>::length) {
                Wide& weight = *reinterpret_cast<Wide*>(weights_[l] + i * to + j);
                rules_[l].apply(weight, velocities_[l] ? reinterpret_cast<Wide*>(velocities_[l] + i * to + j) : nullptr,
                                *reinterpret_cast<const Wide*>(gradients_[l] + i * from + j));
                if (published) publish(reinterpret_cast<Wide*>(published + i * to + j), weight);
            }
    }

    const Problem& problem_;
    const bool frozen_;

private:
    T* feature_velocity_;
    std::vector<W*> velocities_;
    std::vector<Rule<W>> rules_;
    std::vector<Rule<T>> feature_rule_;
};

// A member that one thread moves.
template <class T, class W>
class Member : Moving<T, W> {
    using Base = Moving<T, W>;
    using typename Base::Rows;
    using Base::block_, Base::frozen_, Base::problem_, Base::shape_, Base::weights_;

public:
    Member(const Problem& problem, Index member) : Base(problem, member, CHUNK_ROWS, false) {
        for (Index l = 0; l < shape_.depth; ++l) this->prepare(l, weights_[l]);
    }

    void run() {
        for (Index step = 0; step < problem_.steps; ++step) {
            for (Index row = 0; row < shape_.samples; row += block_) {
                const Rows rows{row, 0, std::min(block_, shape_.samples - row)};
                this->forward(rows);
                this->output_gradient(rows);
                for (Index l = shape_.depth - 1; l >= 0; --l) {
                    this->add_weight_gradient(l, rows, row == 0);
                    if (l > 0) this->gradient_below(l, rows);
                    else if (!frozen_) this->into_below(0, rows, this->feature_step(rows));
                }
            }
            for (Index l = 0; l < shape_.depth; ++l) {
                this->move_weight(l);
                this->prepare(l, weights_[l]);
            }
        }
    }
};

// One thread of the team that takes the same steps to the bit. It takes samples of its own forward and back. Gradients
// of weights go from thread to thread, each adding what its samples have, in the order of one thread; the last moves the
// weight and hands it to all.
template <class T, class W>
class Teammate : Moving<T, W> {
    using Base = Moving<T, W>;
    using typename Base::Rows, typename Base::V;
    using Base::frozen_, Base::gradients_, Base::problem_, Base::shape_, Base::stride, Base::weights_;

public:
    Teammate(const Problem& problem, Index member, Relay<T, W>& relay, Index number, Index threads)
        : Base(problem, member, CHUNK_ROWS, true),
          relay_(relay),
          number_(number),
          threads_(threads),
          parts_(std::max(threads, (shape_.samples + CHUNK_ROWS - 1) / CHUNK_ROWS)) {
        for (Index l = 0; l < shape_.depth; ++l)
            this->prepare(l, moves_weights() ? weights_[l] : relay_.first_weight(l));
    }

    void run() {
        for (Index step = 0; step < problem_.steps; ++step) {
            for (Index part = number_; part < parts_; part += threads_) take(part, step);
            for (Index l = shape_.depth - 1; l >= 0; --l)
                this->prepare(l, moves_weights() ? weights_[l] : relay_.weight(l, step, (step + 1) * parts_));
        }
    }

private:
    // A chunk, or part of one.
    Rows rows(Index part) const {
        const Index samples = shape_.samples;
        if (samples > CHUNK_ROWS) return {part * CHUNK_ROWS, 0, std::min(CHUNK_ROWS, samples - part * CHUNK_ROWS)};
        const auto begin = [=](Index part) {  // the last one, who also moves weights, has whole tiles
            const Index after = parts_ - part, tiles = (samples * after / parts_ + TILE_ROWS / 2) / TILE_ROWS;
            return part == 0 ? 0 : samples - std::min(samples, tiles * TILE_ROWS);
        };
        return {begin(part), 0, begin(part + 1) - begin(part)};
    }

    bool moves_weights() const { return number_ == (parts_ - 1) % threads_; }

    void take(Index part, Index step) {
        const Rows rows = this->rows(part);
        const bool last = part + 1 == parts_;  // would wait for the others at first, and has something else to do
        this->forward(rows);
        this->output_gradient(rows);
        for (Index l = shape_.depth - 1; l >= 0; --l) {
            if (!last) add_gradient(l, rows, part, step);
            if (l > 0) this->gradient_below(l, rows);
        }
        T* gradient = this->below(0);
        if (!frozen_)
            this->into_below(0, rows, [=](Index at, V sum) { *reinterpret_cast<V*>(gradient + at) = sum; });
        if (last)
            for (Index l = shape_.depth - 1; l >= 0; --l) add_gradient(l, rows, part, step);
        if (frozen_) return;
        const auto move = this->feature_step(rows);
        for (Index at = 0; at < rows.count * stride(0); at += Vector<T>::length)
            move(at, *reinterpret_cast<const V*>(gradient + at));
    }

    void add_gradient(Index l, Rows rows, Index part, Index step) {
        const bool last = part + 1 == parts_;
        const W* before = part > 0 ? relay_.gradient(l, step * parts_ + part) : nullptr;
        const T* from = nullptr;
        if constexpr (std::is_same_v<T, W>)
            if (shape_.samples <= CHUNK_ROWS) std::swap(from, before);  // one sum, as of one thread
        W* to = last ? gradients_[l] : relay_.gradient_place(l);
        const auto store = [=](Index at, V sum) { keep(to + at, sum, before ? before + at : nullptr, !last); };
        this->weight_gradient(l, rows, store, from);
        if (last) this->move_weight(l, relay_.weight_place(l, step));
        relay_.hand_on(l);
    }

    Relay<T, W>& relay_;
    const Index number_, threads_, parts_;
};

// A member whose weights are multiplied first; its features lie in columns while it descends.
template <class T>
class LinearMember : LinearLayers<T> {
    using Base = LinearLayers<T>;
    using V = typename Vector<T>::type;

public:
    LinearMember(const Problem& problem, Index member)
        : Base(problem.shape),
          problem_(problem),
          rule_(problem.lr[member], problem.feature_decay[member], problem.momentum),
          columns_(this->size()),
          column_velocity_(problem.feature_velocity ? this->size() : 0) {
        const Shape& shape = problem.shape;
        const Index size = shape.samples * padded<T>(shape.widths[0]);
        features_ = at<T>(problem.features, member * size);
        velocity_ = at<T>(problem.feature_velocity, member * size);
        for (Index l = 0; l < shape.depth; ++l) {
            const Index size = shape.widths[l + 1] * padded<T>(shape.widths[l]);
            weights_.push_back(at<T>(problem.weights[l], member * size));
            velocities_.push_back(at<T>(problem.velocities ? problem.velocities[l] : nullptr, member * size));
            rules_.emplace_back(problem.lr[member], problem.weight_decay[member * shape.depth + l], problem.momentum);
        }
    }

    void run() {
        const Index width = problem_.shape.widths[0];
        this->into_columns(features_, width, columns_);
        if (velocity_) this->into_columns(velocity_, width, column_velocity_);
        T* columns = columns_;
        T* velocity = velocity_ ? (T*)column_velocity_ : nullptr;
        const auto move_features = [=, rule = rule_, clip = problem_.nonnegative](Index offset, V sum) {
            V& here = *reinterpret_cast<V*>(columns + offset);
            rule.apply(here, velocity ? reinterpret_cast<V*>(velocity + offset) : nullptr, sum);
            if (clip) here = here < 0 ? V{} : here;
        };
        const auto move_weight = [this](Index l, Index offset, V sum) {
            T* velocity = velocities_[l];
            rules_[l].apply(*reinterpret_cast<V*>(weights_[l] + offset),
                            velocity ? reinterpret_cast<V*>(velocity + offset) : nullptr, sum);
        };
        for (Index step = 0; step < problem_.steps; ++step)
            this->template pass<false>(columns, weights_, move_features, move_weight);
        this->into_rows(columns, width, features_);
        if (velocity_) this->into_rows(velocity, width, velocity_);
    }

private:
    const Problem& problem_;
    const Rule<T> rule_;
    Buffer<T> columns_, column_velocity_;
    T* features_;
    T* velocity_;
    std::vector<T*> weights_, velocities_;
    std::vector<Rule<T>> rules_;
};

template <class T, class W>
void descend(const Problem& problem) {
    constexpr bool exact = std::is_same_v<T, double> && std::is_same_v<T, W>;  // others are not worth their compilation
    const bool first = exact && weights_first(problem);
    const Index samples = problem.shape.samples, chunks = (samples + CHUNK_ROWS - 1) / CHUNK_ROWS;
    const Index parts = chunks > 1 ? chunks : std::is_same_v<T, W> ? samples / TILE_ROWS : 1;
    const Index team = first ? 1 : std::min(problem.threads / problem.num_chosen, parts);
    if (team > 1 && multiply_adds(problem.shape) >= WORTH_A_TEAM) {
        std::vector<std::unique_ptr<Relay<T, W>>> relays;
        for (Index place = 0; place < problem.num_chosen; ++place)
            relays.push_back(std::make_unique<Relay<T, W>>(problem, problem.chosen[place]));
        on_threads(team * problem.num_chosen, [&](Index thread) {
            const Flushed flushed;
            const Index member = thread / team;
            Teammate<T, W>(problem, problem.chosen[member], *relays[member], thread % team, team).run();
        });
        return;
    }
    std::atomic<Index> next{0};
    on_threads(std::min(problem.threads, problem.num_chosen), [&](Index) {
        const Flushed flushed;
        for (Index place; (place = next++) < problem.num_chosen;) {
            if constexpr (exact)
                if (first) {
                    LinearMember<T>(problem, problem.chosen[place]).run();
                    continue;
                }
            Member<T, W>(problem, problem.chosen[place]).run();
        }
    });
}

}  // namespace

extern "C" {
void descend_float32(const Problem* problem) { descend<float, float>(*problem); }
void descend_float64(const Problem* problem) { descend<double, double>(*problem); }
void descend_mixed(const Problem* problem) { descend<float, double>(*problem); }
}
