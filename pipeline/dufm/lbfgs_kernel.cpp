// L-BFGS of DUFMs, squared error or cross-entropy with free features: the method of lbfgs.py, each member on one thread
// with all that it remembers in that thread's cache. Built once per machine by lbfgs_native.py.
#include <atomic>
#include <cmath>
#include <limits>
#include <utility>

#include "kernels/layers.hpp"
#include "kernels/linear.hpp"

extern "C" {
struct Task {
    Shape shape;
    Index squares;               // features are the squares of the coordinates
    const double* weight_decay;  // (L,)
    double feature_decay;
    const void* const* masks;    // L - 1 times (N, d_{l+1}), or null: which units fire
};

struct Settings {  // the constants of lbfgs.py
    double sufficient, curvature, rounding;
    Index most_trials, patience;
};
}

namespace {

using V = Vector<double>::type;

inline V& vector(double* at) { return *reinterpret_cast<V*>(at); }
inline V vector(const double* at) { return *reinterpret_cast<const V*>(at); }

double product(const double* a, const double* b, Index count) {
    V sum[4] = {};
    constexpr Index length = Vector<double>::length;
    Index i = 0;
    for (; i + 4 * length <= count; i += 4 * length)
        for (Index j = 0; j < 4; ++j) sum[j] += vector(a + i + j * length) * vector(b + i + j * length);
    for (; i < count; i += length) sum[0] += vector(a + i) * vector(b + i);
    return lanes<double>((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

// F of one member: coordinates are features, then W_1..W_L, as the layers want them in memory; padding is zero.
class Function {
public:
    explicit Function(const Task& task) : task_(task) {}
    virtual ~Function() = default;

    Index size() const { return offsets_.back(); }
    virtual void pack(const double* position, double* x) const = 0;
    virtual void unpack(const double* x, double* position) const = 0;

    // F at x; its gradient goes to g.
    double value(double* x, double* g) {
        const Index features = offsets_[0];
        double* entering = x;
        if (task_.squares) {
            entering = squares_;
            for (Index i = 0; i < features; i += Vector<double>::length)
                vector(entering + i) = vector(x + i) * vector(x + i);
        }
        double sum = task_.feature_decay * product(entering, entering, features);
        for (Index l = 0; l < task_.shape.depth; ++l)
            sum += task_.weight_decay[l] * product(x + offsets_[l], x + offsets_[l], offsets_[l + 1] - offsets_[l]);
        const double fit = differentiate(entering, x, g);
        if (task_.squares)
            for (Index i = 0; i < features; i += Vector<double>::length) vector(g + i) *= 2 * vector(x + i);
        return fit + sum / 2;
    }

protected:
    // The gradient of all of F, with respect to `entering` where features are; returns the fit.
    virtual double differentiate(double* entering, double* x, double* g) = 0;

    void lay_out(Index features) {
        const Shape& shape = task_.shape;
        offsets_.push_back(features);
        for (Index l = 0; l < shape.depth; ++l)
            offsets_.push_back(offsets_[l] + shape.widths[l + 1] * padded<double>(shape.widths[l]));
        if (task_.squares) squares_ = Buffer<double>(features);
    }

    // Rows without padding, and rows with it.
    template <class From, class To>
    static void copy(const From* from, Index from_row, To* to, Index to_row, Index rows, Index width) {
        for (Index i = 0; i < rows; ++i) std::copy_n(from + i * from_row, width, to + i * to_row);
    }
    void pack_weights(const double* position, double* x) const {
        each_weight([&](Index l, Index rows, Index width, Index before) {
            copy(position + before, width, x + offsets_[l], padded<double>(width), rows, width);
        });
    }
    void unpack_weights(const double* x, double* position) const {
        each_weight([&](Index l, Index rows, Index width, Index before) {
            copy(x + offsets_[l], padded<double>(width), position + before, width, rows, width);
        });
    }

    const Task& task_;
    std::vector<Index> offsets_;  // where weights begin, and the end

private:
    template <class Work>
    void each_weight(Work work) const {
        const Shape& shape = task_.shape;
        Index before = shape.samples * shape.widths[0];
        for (Index l = 0; l < shape.depth; ++l) {
            work(l, shape.widths[l + 1], shape.widths[l], before);
            before += shape.widths[l + 1] * shape.widths[l];
        }
    }
    Buffer<double> squares_{0};
};

class LinearFunction : public Function, LinearLayers<double> {
    using V = Vector<double>::type;

public:
    explicit LinearFunction(const Task& task) : Function(task), LinearLayers<double>(task.shape) {
        lay_out(LinearLayers<double>::size());
        weights_.resize(task.shape.depth);
    }
    void pack(const double* position, double* x) const override {
        const Index samples = task_.shape.samples, width = task_.shape.widths[0];
        Buffer<double> rows(samples * padded<double>(width));
        copy(position, width, (double*)rows, padded<double>(width), samples, width);
        into_columns(rows, width, x);
        pack_weights(position, x);
    }
    void unpack(const double* x, double* position) const override {
        const Index samples = task_.shape.samples, width = task_.shape.widths[0];
        Buffer<double> rows(samples * padded<double>(width));
        into_rows(x, width, rows);
        copy((const double*)rows, padded<double>(width), position, width, samples, width);
        unpack_weights(x, position);
    }

private:
    double differentiate(double* entering, double* x, double* g) override {
        for (Index l = 0; l < task_.shape.depth; ++l) weights_[l] = x + offsets_[l];
        return pass<true>(
            entering, weights_,
            [=, decay = task_.feature_decay](Index at, V sum) {
                vector(g + at) = sum + decay * vector(entering + at);
            },
            [this, x, g](Index l, Index at, V sum) {
                at += offsets_[l];
                vector(g + at) = sum + task_.weight_decay[l] * vector(x + at);
            });
    }
    std::vector<double*> weights_;
};

template <bool MASKED>
class LayeredFunction : public Function, Layers<double, double, MASKED> {
    using Base = Layers<double, double, MASKED>;
    using typename Base::Rows;

public:
    explicit LayeredFunction(const Task& task) : Function(task), Base(task.shape, CHUNK_ROWS, false) {
        lay_out(task.shape.samples * this->stride(0));
        this->weights_.resize(task.shape.depth);
        if constexpr (MASKED)
            for (Index l = 0; l + 1 < task.shape.depth; ++l)
                this->masks_.push_back(static_cast<const double*>(task.masks[l]));
    }
    void pack(const double* position, double* x) const override {
        copy(position, this->width(0), x, this->stride(0), task_.shape.samples, this->width(0));
        pack_weights(position, x);
    }
    void unpack(const double* x, double* position) const override {
        copy(x, this->stride(0), position, this->width(0), task_.shape.samples, this->width(0));
        unpack_weights(x, position);
    }

private:
    double differentiate(double* entering, double* x, double* g) override {
        const Shape& shape = task_.shape;
        this->features_ = entering;
        for (Index l = 0; l < shape.depth; ++l) {
            this->weights_[l] = x + offsets_[l];
            this->prepare(l, this->weights_[l]);
        }
        double cost = 0;
        for (Index row = 0; row < shape.samples; row += this->block_) {
            const Rows rows{row, 0, std::min(this->block_, shape.samples - row)};
            this->forward(rows);
            cost += this->fit(rows);
            this->output_gradient(rows);
            for (Index l = shape.depth - 1; l >= 0; --l) {
                this->add_weight_gradient(l, rows, row == 0);
                if (l > 0) {
                    this->gradient_below(l, rows);
                    continue;
                }
                const Index begin = row * this->stride(0);
                this->into_below(0, rows, [=, decay = task_.feature_decay](Index at, V sum) {
                    vector(g + begin + at) = sum + decay * vector(entering + begin + at);
                });
            }
        }
        for (Index l = 0; l < shape.depth; ++l)
            for (Index i = 0, begin = offsets_[l]; begin + i < offsets_[l + 1]; i += Vector<double>::length)
                vector(g + begin + i) =
                    vector((const double*)this->gradients_[l] + i) + task_.weight_decay[l] * vector(x + begin + i);
        return cost;
    }
};

// The last steps s and gradient differences y, and what the inverse Hessian needs of them (Byrd, Nocedal, Schnabel
// 1994, eq. 2.25). They are rounded to float32, so that they fit into the cache: that makes them other pairs by 1e-7,
// whose products are exact. Eight numbers of each stand together: one stream from memory is read for all.
class History {
    static constexpr Index PAIRS = 10, SLOTS = 2 * PAIRS, LANES = 8;
    typedef double Wide __attribute__((vector_size(64), may_alias));
    typedef float Narrow __attribute__((vector_size(32), may_alias));

public:
    explicit History(Index size) : size_(size), kept_(size * SLOTS) {}

    void forget() { order_.clear(), fresh_ = false; }

    // p <- -H g; whether there was anything to make H of.
    bool direction(const double* g, double* p) {
        if (order_.empty()) {
            for (Index i = 0; i < size_; ++i) p[i] = -g[i];
            return false;
        }
        const Wide* slope = reinterpret_cast<const Wide*>(g);
        Wide sums[SLOTS] = {};
        for (Index block = 0; block < size_ / LANES; ++block)
#pragma GCC unroll 20
            for (Index j = 0; j < SLOTS; ++j) sums[j] += wide(block, j) * slope[block];
        double now[SLOTS];
        for (Index j = 0; j < SLOTS; ++j) {
            now[j] = 0;
            for (Index lane = 0; lane < LANES; ++lane) now[j] += sums[j][lane];
        }
        if (fresh_)  // products with the newest y, which is a difference of gradients
            for (const Index i : order_)
                if (const Index last = order_.back(); i != last) {
                    products_[i][last] = now[i] - before_[i];
                    squares_[i][last] = squares_[last][i] = now[PAIRS + i] - before_[PAIRS + i];
                }
        std::copy_n(now, SLOTS, before_);
        fresh_ = false;
        double of[SLOTS] = {};
        coefficients(now, of);
        Wide* out = reinterpret_cast<Wide*>(p);
        for (Index block = 0; block < size_ / LANES; ++block) {
            Wide one = -scale_ * slope[block], other{};
#pragma GCC unroll 10
            for (Index j = 0; j < PAIRS; ++j) {
                one -= of[j] * wide(block, j);
                other += of[PAIRS + j] * wide(block, PAIRS + j);
            }
            out[block] = one - other;
        }
        return true;
    }

    // Keep the newest pair in the place of the oldest, if its curvature is positive.
    void remember(const double* x, const double* x_before, const double* g, const double* g_before) {
        const Index place = Index(order_.size()) < PAIRS ? free_place() : order_.front();
        Wide curvature{}, square{}, length{};
        for (Index block = 0; block < size_ / LANES; ++block) {
            const Index at = block * LANES;
            const Narrow step = __builtin_convertvector(wide(x + at) - wide(x_before + at), Narrow);
            const Narrow change = __builtin_convertvector(wide(g + at) - wide(g_before + at), Narrow);
            narrow(block, place) = step;
            narrow(block, PAIRS + place) = change;
            const Wide s = __builtin_convertvector(step, Wide), y = __builtin_convertvector(change, Wide);
            curvature += s * y;
            square += y * y;
            length += s * s;
        }
        double sy = 0, yy = 0, ss = 0;
        for (Index lane = 0; lane < LANES; ++lane) sy += curvature[lane], yy += square[lane], ss += length[lane];
        if (Index(order_.size()) == PAIRS) order_.erase(order_.begin());
        fresh_ = sy > 1e-12 * std::sqrt(yy * ss);
        if (!fresh_) return;
        order_.push_back(place);
        products_[place][place] = sy;
        squares_[place][place] = yy;
        scale_ = sy / yy;
    }

private:
    Narrow& narrow(Index block, Index slot) {
        return *reinterpret_cast<Narrow*>(kept_ + (block * SLOTS + slot) * LANES);
    }
    Wide wide(Index block, Index slot) { return __builtin_convertvector(narrow(block, slot), Wide); }
    static Wide wide(const double* at) { return *reinterpret_cast<const Wide*>(at); }
    Index free_place() const {
        Index place = 0;
        while (std::find(order_.begin(), order_.end(), place) != order_.end()) ++place;
        return place;
    }

    // H g = scale g + sum_j of_j s_j + of_{PAIRS + j} y_j, from the products of all s and y with g.
    void coefficients(const double* now, double* of) const {
        const Index count = order_.size();
        double inner[PAIRS], middle[PAIRS];
        for (Index i = count - 1; i >= 0; --i) {
            inner[i] = now[order_[i]];
            for (Index j = i + 1; j < count; ++j) inner[i] -= products_[order_[i]][order_[j]] * inner[j];
            inner[i] /= products_[order_[i]][order_[i]];
        }
        for (Index i = 0; i < count; ++i) {
            double sum = -now[PAIRS + order_[i]];
            for (Index j = 0; j < count; ++j) sum += squares_[order_[i]][order_[j]] * inner[j];
            middle[i] = products_[order_[i]][order_[i]] * inner[i] + scale_ * sum;
            for (Index j = 0; j < i; ++j) middle[i] -= products_[order_[j]][order_[i]] * middle[j];
            middle[i] /= products_[order_[i]][order_[i]];
        }
        for (Index i = 0; i < count; ++i) {
            of[order_[i]] = middle[i];
            of[PAIRS + order_[i]] = -scale_ * inner[i];
        }
    }

    const Index size_;
    Buffer<float> kept_;
    std::vector<Index> order_;  // places, the oldest first
    bool fresh_ = false;        // whether products with the newest pair are still to come
    double products_[PAIRS][PAIRS] = {}, squares_[PAIRS][PAIRS] = {};  // s.y, y.y
    double before_[SLOTS] = {}, scale_ = 1;
};

struct Place {
    Buffer<double> x, g;
    double value = 0;

    explicit Place(Index size) : x(size), g(size) {}
};

class Search {
public:
    Search(std::unique_ptr<Function> function, const Settings& settings, const double* position)
        : function_(std::move(function)), settings_(settings), size_(function_->size()), now_(size_), tried_(size_),
          best_(size_), direction_(size_), history_(size_) {
        function_->pack(position, now_.x);
        now_.value = function_->value(now_.x, now_.g);
        norm_ = std::sqrt(product(now_.g, now_.g, size_));
    }

    bool done(double tolerance) const { return !(norm_ > tolerance && idle_ < settings_.patience); }

    // Up to so many iterations; returns how many.
    Index run(Index iterations, double tolerance) {
        Index count = 0;
        for (; count < iterations && !done(tolerance); ++count) iterate();
        return count;
    }

    void read(double* position) const { function_->unpack(now_.x, position); }

private:
    void iterate() {
        double* p = direction_;
        bool first = !history_.direction(now_.g, p);
        double steep = product(p, now_.g, size_);
        const bool descends = steep < 0;
        if (!descends) {
            for (Index i = 0; i < size_; ++i) p[i] = -now_.g[i];
            steep = -norm_ * norm_;
        }
        const double before = now_.value, norm = norm_;
        const bool moved = line_search(steep, first || !descends ? std::min(1 / norm, 1.0) : 1.0);
        if (moved) {
            norm_ = std::sqrt(product(now_.g, now_.g, size_));
        } else {
            history_.forget();
        }
        const bool gained = before - now_.value > settings_.rounding * std::abs(before), fell = norm_ < 0.9 * norm;
        idle_ = gained || fell ? 0 : idle_ + 1;
        if (!moved && first) idle_ = settings_.patience;
    }

    // To a length that satisfies the approximate Wolfe conditions, by bracketing and secants, or to the best that was
    // tried; whether there was one.
    bool line_search(double steep, double length) {
        constexpr double infinity = std::numeric_limits<double>::infinity();
        const double ceiling = now_.value + settings_.rounding * std::abs(now_.value);
        double low = 0, low_slope = steep, high = infinity, high_slope = 0;
        best_.value = now_.value;
        bool any = false;
        for (Index trial = 0; trial < settings_.most_trials; ++trial) {
            const V along = V{} + length;
            for (Index i = 0; i < size_; i += Vector<double>::length)
                vector(tried_.x + i) = vector(now_.x + i) + along * vector(direction_ + i);
            tried_.value = function_->value(tried_.x, tried_.g);
            const double there = tried_.value, rise = product(tried_.g, direction_, size_);
            const bool below = std::isfinite(there) && std::isfinite(rise) && there <= ceiling;
            const bool armijo = there <= now_.value + settings_.sufficient * length * steep;
            const bool approximate = rise <= (2 * settings_.sufficient - 1) * steep;
            if (below && (armijo || approximate) && rise >= settings_.curvature * steep) {
                take(tried_);
                return true;
            }
            if (below && there < best_.value) {
                std::swap(best_, tried_);
                any = true;
            }
            if (!below || rise >= 0) high = length, high_slope = below ? rise : std::nan("");
            else low = length, low_slope = rise;
            length = next(low, low_slope, high, high_slope);
        }
        if (any) take(best_);
        return any;
    }

    static double next(double low, double low_slope, double high, double high_slope) {
        if (std::isinf(high)) return 4 * std::max(low, 1e-8);
        const double width = high - low, secant = low - low_slope * width / (high_slope - low_slope);
        const bool inside = std::isfinite(secant) && secant > low + 0.05 * width && secant < high - 0.05 * width;
        return inside ? secant : low + 0.5 * width;
    }

    void take(Place& found) {
        history_.remember(found.x, now_.x, found.g, now_.g);
        std::swap(now_, found);
    }

    std::unique_ptr<Function> function_;
    const Settings settings_;
    const Index size_;
    Place now_, tried_, best_;
    Buffer<double> direction_;
    History history_;
    double norm_ = 0;
    Index idle_ = 0;
};

std::unique_ptr<Function> function(const Task& task) {
    if (!task.shape.relu || task.shape.depth == 1) return std::make_unique<LinearFunction>(task);
    if (task.masks) return std::make_unique<LayeredFunction<true>>(task);
    return std::make_unique<LayeredFunction<false>>(task);
}

template <class Work>
void for_each(Index count, Index threads, Work work) {
    std::atomic<Index> next{0};
    on_threads(std::min(threads, count), [&](Index) {
        const Flushed flushed;
        for (Index i; (i = next++) < count;) work(i);
    });
}

}  // namespace

extern "C" {
// A search begins at each of `count` positions, rows of features and of weights without padding. Tasks stay where they
// are until it ends.
void search_begin(const Task* tasks, const Settings* settings, const double* const* positions, Index count,
                  Index threads, void** searches) {
    for_each(count, threads, [&](Index i) { searches[i] = new Search(function(tasks[i]), *settings, positions[i]); });
}
void search_run(void* const* searches, Index count, Index iterations, double tolerance, Index threads, Index* taken,
                Index* done) {
    for_each(count, threads, [&](Index i) {
        taken[i] = static_cast<Search*>(searches[i])->run(iterations, tolerance);
        done[i] = static_cast<Search*>(searches[i])->done(tolerance);
    });
}
void search_read(const void* search, double* position) { static_cast<const Search*>(search)->read(position); }
void search_end(void* search) { delete static_cast<Search*>(search); }
}
