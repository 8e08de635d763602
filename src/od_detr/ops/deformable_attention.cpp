// Multi-scale deformable attention on the CPU, forward and backward, behind a plain C interface.
//
// value   [batch, tokens, heads, channels]            the levels' maps, flattened one after the other
// anchors [batch, queries, levels, coordinates]       points (x, y) or boxes (cx, cy, w, h) in [0, 1] of each map
// offsets [batch, queries, heads, levels, points, 2]  from the anchor: in cells, in a box in fractions of its half
// logits  [batch, queries, heads, levels, points]     their softmax over levels and points are the weights
// output  [batch, queries, heads, channels]
//
// With 0 coordinates there are no anchors: the offsets are the sampling locations and the logits the weights.
//
// Work is cut into items that write to disjoint memory and are each done by one thread in a fixed order, so the
// result does not depend on the number of threads. Threads live for one call: nothing survives to be broken by fork.
// A location that is far outside, infinite or NaN never leads to a read outside of the maps; NaN gives NaN.

namespace {

constexpr int64_t kFlopsPerThread = 1 << 20;  // about the price of starting a thread, several times over

template <typename Work>
void in_parallel(const Problem& problem, int64_t items, const Work& work) {
    std::atomic<int64_t> next{0};
    const auto labour = [&] {
        auto worker = work();
        for (int64_t item; (item = next.fetch_add(1)) < items;) worker(item);
    };
    const int64_t flops =
        8 * problem.batch * problem.queries * problem.heads * problem.samples() * problem.channels;
    const int64_t threads = std::min({problem.threads, items, 1 + flops / kFlopsPerThread});
    std::vector<std::thread> others;
    try {
        for (int64_t i = 1; i < threads; ++i) others.emplace_back(labour);
    } catch (const std::system_error&) {
        // The system gives no more threads: those we have, this one among them, do all the items.
    }
    labour();
    for (auto& other : others) other.join();
}

// `Fixed` vectors of channels known to the compiler, or 0 for any number. One item is a part of the queries of one
// image and head: as few parts as give every thread an item, for the maps are packed for each.
template <typename T, int Fixed>
void forward(const Problem& problem, const Inputs<T>& inputs, T* output) {
    const int64_t pairs = std::max<int64_t>(1, problem.batch * problem.heads), width = problem.width();
    const int64_t parts = (problem.threads + pairs - 1) / pairs;
    const int64_t blocks = (problem.queries + parts * kLanes - 1) / (parts * kLanes);  // of a part
    in_parallel(problem, problem.batch * problem.heads * parts, [&] {
        return [&, maps = Maps<T>(problem), block = Block<T>(problem)](int64_t item) mutable {
            const int64_t image = item / parts / problem.heads, head = item / parts % problem.heads;
            const int64_t begin = item % parts * blocks * kLanes;
            const int64_t end = std::min(begin + blocks * kLanes, problem.queries);
            if (begin < end) maps.pack(inputs.value + maps.place(image, head));
            for (int64_t first = begin; first < end; first += kLanes) {
                block.place(inputs, image, head, first);
                for (int lane = 0; lane < std::min<int64_t>(kLanes, end - first); ++lane) {
                    in_pieces<Fixed>(width, [&](auto vectors, int64_t channel) {
                        block.template gather<vectors(), Fixed>(maps.rows() + channel, lane, &block.row[channel]);
                    });
                    const int64_t to = (image * problem.queries + first + lane) * problem.heads + head;
                    std::copy_n(block.row.data(), problem.channels, output + to * problem.channels);
                }
            }
        };
    });
}

// One item is one image and head: no two items add to the same cell.
template <typename T, int Fixed>
void backward(const Problem& problem, const Inputs<T>& inputs, const T* grad_output, const Gradients<T>& gradients) {
    const int64_t width = problem.width();
    in_parallel(problem, problem.batch * problem.heads, [&] {
        return [&, maps = Maps<T>(problem), grad_maps = Maps<T>(problem),
                block = Block<T>(problem)](int64_t item) mutable {
            const int64_t image = item / problem.heads, head = item % problem.heads;
            maps.pack(inputs.value + maps.place(image, head));
            grad_maps.clear();
            for (int64_t first = 0; first < problem.queries; first += kLanes) {
                block.place(inputs, image, head, first);
                std::fill(block.products.begin(), block.products.end(), T(0));
                in_pieces<Fixed>(width, [&](auto vectors, int64_t channel) {
                    for (int lane = 0; lane < std::min<int64_t>(kLanes, problem.queries - first); ++lane) {
                        const int64_t from = (image * problem.queries + first + lane) * problem.heads + head;
                        std::copy_n(grad_output + from * problem.channels, problem.channels, block.row.data());
                        block.template scatter<vectors(), Fixed>(maps.rows() + channel, grad_maps.rows() + channel,
                                                                 lane, &block.row[channel]);
                    }
                    block.sum_terms();
                });
                block.differentiate();
                block.write(gradients, image, head, first);
            }
            grad_maps.unpack(gradients.value + maps.place(image, head));
        };
    });
}

// Calls `run` with the number of vectors in a row as a compile-time constant where it is a usual one.
template <typename Run>
void specialised(const Problem& problem, const Run& run) {
    switch (problem.width() / kLanes) {
        case 1: return run(std::integral_constant<int, 1>());
        case 2: return run(std::integral_constant<int, 2>());
        case 3: return run(std::integral_constant<int, 3>());
        case 4: return run(std::integral_constant<int, 4>());
        case 8: return run(std::integral_constant<int, 8>());
        default: return run(std::integral_constant<int, 0>());
    }
}

}  // namespace

extern "C" {

void forward_float32(const int64_t* sizes, const float* value, const float* anchors, const float* offsets,
                     const float* logits, float* output) {
    const Problem problem(sizes);
    specialised(problem, [&](auto fixed) {
        forward<float, fixed()>(problem, {value, anchors, offsets, logits}, output);
    });
}

void backward_float32(const int64_t* sizes, const float* value, const float* anchors, const float* offsets,
                      const float* logits, const float* grad_output, float* grad_value, float* grad_anchors,
                      float* grad_offsets, float* grad_logits) {
    const Problem problem(sizes);
    specialised(problem, [&](auto fixed) {
        backward<float, fixed()>(problem, {value, anchors, offsets, logits}, grad_output,
                                 {grad_value, grad_anchors, grad_offsets, grad_logits});
    });
}

void forward_float64(const int64_t* sizes, const double* value, const double* anchors, const double* offsets,
                     const double* logits, double* output) {
    forward<double, 0>(Problem(sizes), {value, anchors, offsets, logits}, output);
}

void backward_float64(const int64_t* sizes, const double* value, const double* anchors, const double* offsets,
                      const double* logits, const double* grad_output, double* grad_value, double* grad_anchors,
                      double* grad_offsets, double* grad_logits) {
    backward<double, 0>(Problem(sizes), {value, anchors, offsets, logits}, grad_output,
                        {grad_value, grad_anchors, grad_offsets, grad_logits});
}
}
