// What channel pruning and the exactness certificates need of whole tensors: gathered channels and sums of squares.
#include "tiles.h"

namespace {

float square_sum(const float* x, float factor, int64_t length) {
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < length; ++i) sum += (x[i] * factor) * (x[i] * factor);
    return sum;
}

void add_squares(const float* x, float factor, float* sums, int64_t length) {
#pragma omp simd
    for (int64_t i = 0; i < length; ++i) sums[i] += (x[i] * factor) * (x[i] * factor);
}

template <class T> void gather(const T* x, T* out, const int64_t* channels, int64_t kept, const Place& p) {
    const int64_t pieces = p.n_rows * (p.last ? p.plane : kept);
    std::vector<int32_t> from(channels, channels + kept);
    const int32_t* at = from.data();
#pragma omp parallel for schedule(static) num_threads(p.team())
    for (int64_t i = 0; i < pieces; ++i) {
        if (p.last) {
            const T* pixel = x + i * p.channels;
            for (int64_t j = 0; j < kept; ++j) out[i * kept + j] = pixel[at[j]];
        } else {
            const T* plane = x + i / kept * p.row_size + at[i % kept] * p.plane;
            std::copy(plane, plane + p.plane, out + i * p.plane);
        }
    }
}

}  // namespace

extern "C" {

// out [n, kept, H, W] = the `channels` of x [n, C, H, W], in its layout.
void qt_gather_f32(const float* x, float* out, const int64_t* channels, int64_t kept, const Place* place) {
    gather(x, out, channels, kept, *place);
}
void qt_gather_f64(const double* x, double* out, const int64_t* channels, int64_t kept, const Place* place) {
    gather(x, out, channels, kept, *place);
}

// squares [n_rows, C] = each instance's and channel's sum of (factor x)^2, to float's precision; returns the largest sum
// of a channel over all instances.
double qt_squares(const float* x, float factor, double* squares, const Place* place) {
    const Place p = *place;
    const Tiles t(p);
#pragma omp parallel for schedule(static) num_threads(p.team())
    for (int64_t row = 0; row < p.n_rows; ++row) {
        double* out = squares + row * p.channels;
        std::vector<float> tile(p.last ? t.length : 0);
        std::fill(out, out + p.channels, 0.0);
        for (int64_t i = 0; i < t.count; ++i) {
            const float* from = x + row * p.row_size + i * t.length;
            const int64_t length = std::min(t.length, p.row_size - i * t.length);
            if (p.last) add_squares(from, factor, tile.data(), length);
            else out[i] = square_sum(from, factor, length);
        }
        for (int64_t j = 0, c = 0; p.last && j < t.length; ++j, c = c + 1 == p.channels ? 0 : c + 1) out[c] += tile[j];
    }
    double most = 0.0;
    for (int64_t c = 0; c < p.channels; ++c) {
        double sum = 0.0;
        for (int64_t row = 0; row < p.n_rows; ++row) sum += squares[row * p.channels + c];
        most = sum > most ? sum : most;
    }
    return most;
}
}
