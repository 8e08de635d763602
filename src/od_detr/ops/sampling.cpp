// The sampling points of some queries, from the raw outputs of the layers and back: the second part of one
// translation unit. `deformable_attention.cpp` describes the tensors.

namespace {

struct Problem {
    int64_t batch, tokens, heads, channels, queries, levels, points, coordinates, threads;
    const int64_t* shapes;  // height, width of each level

    explicit Problem(const int64_t* sizes)
        : batch(sizes[0]), tokens(sizes[1]), heads(sizes[2]), channels(sizes[3]), queries(sizes[4]),
          levels(sizes[5]), points(sizes[6]), coordinates(sizes[7]), threads(sizes[8]), shapes(sizes + 9) {}

    int64_t samples() const { return levels * points; }
    int64_t width() const { return (channels + kLanes - 1) / kLanes * kLanes; }  // channels in whole vectors
};

template <typename T>
struct Inputs {
    const T *value, *anchors, *offsets, *logits;
};

template <typename T>
struct Gradients {
    T *value, *anchors, *offsets, *logits;  // anchors [batch, queries, heads, levels, coordinates], or null
};

// The maps of one image and head. Rows lie side by side, as the rows of all heads do not: strides of a power of two
// would share a few lines of the cache. They are filled up to whole vectors, and after the last comes one of zeros.
template <typename T>
struct Maps {
    struct alignas(64) Line {
        T numbers[64 / sizeof(T)];
    };
    const Problem& problem;
    std::vector<Line> lines;

    explicit Maps(const Problem& problem)
        : problem(problem), lines((problem.tokens + 1) * problem.width() * sizeof(T) / sizeof(Line) + 1) {}

    T* rows() { return lines.front().numbers; }
    void clear() { std::memset(lines.data(), 0, lines.size() * sizeof(Line)); }

    // The first channel of an image and head, in a tensor like `value`.
    int64_t place(int64_t image, int64_t head) const {
        return (image * problem.tokens * problem.heads + head) * problem.channels;
    }
    void pack(const T* from) {
        const int64_t channels = problem.channels, stride = problem.heads * channels, width = problem.width();
        for (int64_t token = 0; token < problem.tokens; ++token)
            std::copy_n(from + token * stride, channels, rows() + token * width);
    }
    void unpack(T* to) {
        const int64_t channels = problem.channels, stride = problem.heads * channels, width = problem.width();
        for (int64_t token = 0; token < problem.tokens; ++token)
            std::copy_n(rows() + token * width, channels, to + token * stride);
    }
};

// The sampling points of `kLanes` queries of one head. Arrays are [samples, queries], so that all but the reading
// and writing is arithmetic on vectors of queries; those of the four corners (top left and right, bottom left and
// right of a point) are [4, samples, queries].
template <typename T>
struct Block {
    const Problem& problem;
    const int64_t samples, count;                         // count = samples x lanes
    std::vector<T> centre_x, centre_y, scale_x, scale_y;  // [levels, queries]: location = centre + offset * scale
    std::vector<T> half_x, half_y;                        // [levels, queries]: scale by extent, 0 without an extent
    std::vector<T> x, y, weights, right, bottom;          // offset, weight, shares of the right and bottom cells
    std::vector<int32_t> cells;                           // of the corners; `tokens`, the zeros, outside of the map
    std::vector<T> shares, terms, products;               // of the corners; products: <grad_output, value>
    std::vector<T> grad_x, grad_y, grad_weights;          // of locations and weights, or logits
    std::vector<T> row;                                   // one query's channels

    explicit Block(const Problem& problem)
        : problem(problem), samples(problem.samples()), count(samples * kLanes), cells(4 * count),
          shares(4 * count), terms(4 * count * kLanes / 2), products(4 * count), row(problem.width()) {
        for (auto* array : {&centre_x, &centre_y, &half_x, &half_y}) array->resize(problem.levels * kLanes);
        for (auto* array : {&scale_x, &scale_y}) array->assign(problem.levels * kLanes, T(1));
        for (auto* array : {&x, &y, &weights, &right, &bottom, &grad_x, &grad_y, &grad_weights}) array->resize(count);
    }

    // Places the queries from `first` on; past the last query, the last again.
    void place(const Inputs<T>& inputs, int64_t image, int64_t head, int64_t first) {
        for (int lane = 0; lane < kLanes; ++lane) {
            const int64_t query = image * problem.queries + std::min(first + lane, problem.queries - 1);
            const T* offset = inputs.offsets + (query * problem.heads + head) * samples * 2;
            const T* logit = inputs.logits + (query * problem.heads + head) * samples;
            for (int64_t sample = 0; sample < samples; ++sample) {
                x[sample * kLanes + lane] = offset[2 * sample];
                y[sample * kLanes + lane] = offset[2 * sample + 1];
                weights[sample * kLanes + lane] = logit[sample];
            }
            if (problem.coordinates)
                anchor(inputs.anchors + query * problem.levels * problem.coordinates, lane);
        }
        if (problem.coordinates) softmax();
        int32_t token = 0;
        for (int64_t level = 0; level < problem.levels; ++level) {
            locate(level, token);
            token += int32_t(problem.shapes[2 * level] * problem.shapes[2 * level + 1]);
        }
    }

    // Where a box has no extent it is a point.
    void anchor(const T* from, int lane) {
        const bool boxes = problem.coordinates == 4;
        const T half = T(0.5) / T(problem.points);
        for (int64_t level = 0, i = lane; level < problem.levels; ++level, i += kLanes, from += problem.coordinates) {
            centre_x[i] = from[0];
            centre_y[i] = from[1];
            half_x[i] = boxes && from[2] > 0 ? half : T(0);
            half_y[i] = boxes && from[3] > 0 ? half : T(0);
            scale_x[i] = half_x[i] > 0 ? from[2] * half : T(1) / T(problem.shapes[2 * level + 1]);
            scale_y[i] = half_y[i] > 0 ? from[3] * half : T(1) / T(problem.shapes[2 * level]);
        }
    }

    void softmax() {
        Lanes<T> highest = Lanes<T>{} - std::numeric_limits<T>::infinity(), sum = {};
        for (int64_t i = 0; i < count; i += kLanes) {
            const Lanes<T> logit = Vector<T>::load(&weights[i]);
            highest = logit > highest ? logit : highest;
        }
        for (int64_t i = 0; i < count; i += kLanes) {
            const Lanes<T> power = exponential(Vector<T>::load(&weights[i]) - highest);
            sum += power;
            Vector<T>::store(power, &weights[i]);
        }
        const Lanes<T> inverse = T(1) / sum;
        for (int64_t i = 0; i < count; i += kLanes)
            Vector<T>::store(Vector<T>::load(&weights[i]) * inverse, &weights[i]);
    }

    void locate(int64_t level, int32_t first) {
        const int32_t high = int32_t(problem.shapes[2 * level]), wide = int32_t(problem.shapes[2 * level + 1]);
        const int32_t zeros = int32_t(problem.tokens);
        const T h = T(high), w = T(wide);
        const T *cx = &centre_x[level * kLanes], *cy = &centre_y[level * kLanes];
        const T *sx = &scale_x[level * kLanes], *sy = &scale_y[level * kLanes];
        for (int64_t i = level * problem.points * kLanes; i < (level + 1) * problem.points * kLanes; i += kLanes) {
            const T *__restrict from_x = &x[i], *__restrict from_y = &y[i], *__restrict weight_of = &weights[i];
            T *__restrict to_right = &right[i], *__restrict to_bottom = &bottom[i], *__restrict share = &shares[i];
            int32_t* __restrict cell = &cells[i];
            const int64_t n = count;
#pragma omp simd
            for (int lane = 0; lane < kLanes; ++lane) {
                const T raw_x = (cx[lane] + from_x[lane] * sx[lane]) * w - T(0.5);
                const T raw_y = (cy[lane] + from_y[lane] * sy[lane]) * h - T(0.5);
                const T x = clamp(raw_x, T(-2), w), y = clamp(raw_y, T(-2), h);  // beyond, no corner is inside
                const T x0 = std::floor(x), y0 = std::floor(y), dx = x - x0, dy = y - y0;
                const int32_t column = int32_t(x0), row = int32_t(y0), here = first + row * wide + column;
                const bool is_left = is_index(column, wide), is_right = is_index(column + 1, wide);
                const bool is_top = is_index(row, high), is_bottom = is_index(row + 1, high);
                cell[lane] = is_top & is_left ? here : zeros;
                cell[n + lane] = is_top & is_right ? here + 1 : zeros;
                cell[2 * n + lane] = is_bottom & is_left ? here + wide : zeros;
                cell[3 * n + lane] = is_bottom & is_right ? here + wide + 1 : zeros;
                const T weight = weight_of[lane] + T(0) * (raw_x + raw_y);  // NaN if the location is not finite
                share[lane] = (1 - dy) * (1 - dx) * weight;
                share[n + lane] = (1 - dy) * dx * weight;
                share[2 * n + lane] = dy * (1 - dx) * weight;
                share[3 * n + lane] = dy * dx * weight;
                to_right[lane] = dx;
                to_bottom[lane] = dy;
            }
        }
    }

    // The number of channels in a row: a constant to the compiler if `Fixed`.
    template <int Fixed>
    int64_t width() const {
        return Fixed > 0 ? Fixed * kLanes : problem.width();
    }

    // Sums the shares of `Vectors` of the channels' vectors. Four corners at a time, so that additions overlap.
    template <int Vectors, int Fixed>
    void gather(const T* rows, int lane, T* output) const {
        const int32_t* __restrict cell = cells.data() + lane;
        const T* __restrict share = shares.data() + lane;
        const int64_t n = count, wide = width<Fixed>();
        Channels<T, Vectors> sum;
        for (int64_t i = 0; i < n; i += kLanes) {
            Channels<T, Vectors> sample;
            for (int64_t corner = i; corner < 4 * n; corner += n) sample.add(share[corner], rows + cell[corner] * wide);
            sum.add(sample);
        }
        sum.write(output);
    }

    // The transpose of `gather`, and half-summed terms of the inner products with the value.
    template <int Vectors, int Fixed>
    void scatter(const T* rows, T* __restrict grad_rows, int lane, const T* grad_output) {
        const auto grad = Channels<T, Vectors>::read(grad_output);
        const int32_t* __restrict cell = cells.data() + lane;
        const T* __restrict share = shares.data() + lane;
        T* __restrict term = terms.data() + lane * kLanes / 2;
        const int64_t n = 4 * count, wide = width<Fixed>();
        for (int64_t i = 0; i < n; i += kLanes) {
            const int64_t place = cell[i] * wide;
            Vector<T>::store_folded(grad.product(rows + place), term + i * kLanes / 2);
            grad.add_to(grad_rows + place, share[i]);
        }
    }

    void sum_terms() {
        const T* __restrict term = terms.data();
        T* __restrict product = products.data();
#pragma omp simd
        for (int64_t i = 0; i < 4 * count; ++i)
            product[i] += (term[4 * i] + term[4 * i + 1]) + (term[4 * i + 2] + term[4 * i + 3]);
    }

    // The gradients of locations and weights, from the products.
    void differentiate() {
        for (int64_t level = 0; level < problem.levels; ++level) {
            const T h = T(problem.shapes[2 * level]), w = T(problem.shapes[2 * level + 1]);
            const int64_t n = count, last = (level + 1) * problem.points * kLanes;
            const T *__restrict product = products.data(), *__restrict weight = weights.data();
            const T *__restrict dx = right.data(), *__restrict dy = bottom.data();
            T *__restrict gx = grad_x.data(), *__restrict gy = grad_y.data(), *__restrict gw = grad_weights.data();
#pragma omp simd
            for (int64_t i = level * problem.points * kLanes; i < last; ++i) {
                const T p00 = product[i], p01 = product[n + i], p10 = product[2 * n + i], p11 = product[3 * n + i];
                const T top = p00 + dx[i] * (p01 - p00), low = p10 + dx[i] * (p11 - p10);
                gx[i] = ((1 - dy[i]) * (p01 - p00) + dy[i] * (p11 - p10)) * w * weight[i];
                gy[i] = (low - top) * h * weight[i];
                gw[i] = top + dy[i] * (low - top);
            }
        }
        if (problem.coordinates) differentiate_softmax();
    }

    void differentiate_softmax() {
        Lanes<T> mean = {};
        for (int64_t i = 0; i < count; i += kLanes)
            mean += Vector<T>::load(&weights[i]) * Vector<T>::load(&grad_weights[i]);
        for (int64_t i = 0; i < count; i += kLanes) {
            const Lanes<T> centred = Vector<T>::load(&grad_weights[i]) - mean;
            Vector<T>::store(Vector<T>::load(&weights[i]) * centred, &grad_weights[i]);
        }
    }

    void write(const Gradients<T>& gradients, int64_t image, int64_t head, int64_t first) const {
        for (int lane = 0; lane < std::min<int64_t>(kLanes, problem.queries - first); ++lane) {
            const int64_t item = (image * problem.queries + first + lane) * problem.heads + head;
            T *offset = gradients.offsets + item * samples * 2, *logit = gradients.logits + item * samples;
            for (int64_t level = 0, i = lane; level < problem.levels; ++level) {
                const T sx = scale_x[level * kLanes + lane], sy = scale_y[level * kLanes + lane];
                for (int64_t point = 0; point < problem.points; ++point, i += kLanes) {
                    *offset++ = grad_x[i] * sx;
                    *offset++ = grad_y[i] * sy;
                    *logit++ = grad_weights[i];
                }
            }
            if (gradients.anchors)
                write_anchors(gradients.anchors + item * problem.levels * problem.coordinates, lane);
        }
    }

    void write_anchors(T* to, int lane) const {
        for (int64_t level = 0, i = lane, j = lane; level < problem.levels; ++level, j += kLanes) {
            T sums[4] = {};
            for (int64_t point = 0; point < problem.points; ++point, i += kLanes) {
                sums[0] += grad_x[i];
                sums[1] += grad_y[i];
                sums[2] += grad_x[i] * x[i] * half_x[j];
                sums[3] += grad_y[i] * y[i] * half_y[j];
            }
            to = std::copy_n(sums, problem.coordinates, to);
        }
    }
};

}  // namespace
