/* Kernels with the dual 16-bit multiply-accumulate of Cortex-M cores with DSP instructions. */
#include "kernels.h"

#include <arm_acle.h>
#include <string.h>

static inline uint32_t word(const void *p) {
    uint32_t v;
    memcpy(&v, p, 4);
    return v;
}

/* Four int8 as two pairs of int16: elements 0, 2 and 1, 3 (columns are stored in that order too). */
static inline void expanded(const int8_t *p, uint32_t *even, uint32_t *odd) {
    uint32_t v = word(p);
    *even = __sxtb16(v);
    *odd = __sxtb16(v >> 8 | v << 24);
}

/* n int8 -> int16, each four reordered to 0, 2, 1, 3; the rest in order. */
static inline int16_t *widened(const int8_t *from, int n, int16_t *to) {
    for (; n >= 4; n -= 4, from += 4, to += 4) {
        uint32_t even, odd;
        expanded(from, &even, &odd);
        memcpy(to, &even, 4);
        memcpy(to + 2, &odd, 4);
    }
    while (n-- > 0) *to++ = *from++;
    return to;
}

/* One patch of the map [side][side][channels] from (row, column) on, zero where outside. */
static KERNEL void im2col(const int8_t *map, int side, int channels, int height, int width, int row, int column,
                          int8_t *bytes) {
    for (int fy = 0; fy < height; fy++)
        for (int fx = 0; fx < width; fx++, bytes += channels) {
            int y = row + fy, x = column + fx;
            if (y < 0 || y >= side || x < 0 || x >= side)
                memset(bytes, 0, channels);
            else
                for (int i = 0; i < channels; i++) bytes[i] = map[(y * side + x) * channels + i];
        }
}

/* Sums of two rows of int8 weights with two columns of int16, all of length n. */
static inline void block(const int8_t *w0, const int8_t *w1, const int16_t *c0, const int16_t *c1, int n,
                         int32_t sum[4]) {
    int32_t s00 = sum[0], s01 = sum[1], s10 = sum[2], s11 = sum[3];
    for (; n >= 4; n -= 4, w0 += 4, w1 += 4, c0 += 4, c1 += 4) {
        uint32_t e0, o0, e1, o1, a = word(c0), b = word(c1);
        expanded(w0, &e0, &o0);
        expanded(w1, &e1, &o1);
        s00 = __smlad(e0, a, s00);
        s01 = __smlad(e0, b, s01);
        s10 = __smlad(e1, a, s10);
        s11 = __smlad(e1, b, s11);
        a = word(c0 + 2);
        b = word(c1 + 2);
        s00 = __smlad(o0, a, s00);
        s01 = __smlad(o0, b, s01);
        s10 = __smlad(o1, a, s10);
        s11 = __smlad(o1, b, s11);
    }
    for (; n > 0; n--, w0++, w1++, c0++, c1++) {
        s00 += *w0 * *c0;
        s01 += *w0 * *c1;
        s10 += *w1 * *c0;
        s11 += *w1 * *c1;
    }
    sum[0] = s00, sum[1] = s01, sum[2] = s10, sum[3] = s11;
}

/* y[2 pixels][rows] from two columns; an odd last row is computed twice. */
static KERNEL void gemm(const int8_t *w, const int32_t *bias, int rows, int n, const int16_t *columns, struct scale s,
                        int8_t *y0, int8_t *y1) {
    for (int k = 0; k < rows; k += 2) {
        int second = k + 1 < rows ? k + 1 : k;
        int32_t b0 = bias ? bias[k] : 0, b1 = bias ? bias[second] : 0, sum[4] = {b0, b0, b1, b1};
        block(w + k * n, w + second * n, columns, columns + n, n, sum);
        y0[k] = requantized(sum[0], s);
        y1[k] = requantized(sum[1], s);
        y0[second] = requantized(sum[2], s);
        y1[second] = requantized(sum[3], s);
    }
}

static int8_t patch[4096];

/* Where a window of taps [height][width] lies for output pixel q of a grid `columns` wide, and where its result goes. */
struct window {
    int height, width, columns, n_pixels, stride, row, column, out_stride, out_pitch;
};

static void correlate(const int8_t *map, int side, int channels, struct window v, const int8_t *w, const int32_t *bias,
                      int rows, struct scale s, int8_t *y, int16_t *columns) {
    int n = channels * v.height * v.width;
    for (int p = 0; p < v.n_pixels; p += 2) {
        int8_t *to[2];
        for (int i = 0; i < 2; i++) {
            int q = p + i < v.n_pixels ? p + i : p, down = q / v.columns, right = q % v.columns;
            int row = down * v.stride + v.row, column = right * v.stride + v.column;
            const int8_t *bytes = map + (row * side + column) * channels;
            if (v.height * v.width > 1) {
                im2col(map, side, channels, v.height, v.width, row, column, patch);
                bytes = patch;
            }
            widened(bytes, n, columns + i * n);
            to[i] = y + (down * v.out_pitch + right) * v.out_stride * rows;
        }
        gemm(w, bias, rows, n, columns, s, to[0], to[1]);
    }
}

/* Tap by tap over all channels: one input and one weight a product, nothing for SIMD lanes to share. */
static KERNEL void depthwise(const struct conv *c, struct scale s, const int8_t *map, const int8_t *w,
                             const int32_t *bias, int8_t *y) {
    static int32_t sums[256];
    for (int row = 0; row < c->out_side; row++)
        for (int column = 0; column < c->out_side; column++) {
            for (int k = 0; k < c->out; k++) sums[k] = bias[k];
            for (int fy = 0; fy < c->kernel; fy++)
                for (int fx = 0; fx < c->kernel; fx++) {
                    int iy = row * c->stride + fy - c->pad, ix = column * c->stride + fx - c->pad;
                    if (iy < 0 || iy >= c->side || ix < 0 || ix >= c->side) continue;
                    const int8_t *from = map + (iy * c->side + ix) * c->out;
                    const int8_t *tap = w + (fy * c->kernel + fx) * c->out;
                    for (int k = 0; k < c->out; k++) sums[k] += from[k] * tap[k];
                }
            for (int k = 0; k < c->out; k++) *y++ = requantized(sums[k], s);
        }
}

void forward(const struct conv *c, struct scale s, const int8_t *x, const int8_t *w, const int32_t *bias, int8_t *y,
             int16_t *columns) {
    struct window v = {c->kernel, c->kernel, c->out_side, c->out_side * c->out_side, c->stride, -c->pad, -c->pad,
                       1, c->out_side};
    if (c->groups > 1)
        depthwise(c, s, x, w, bias, y);
    else
        correlate(x, c->side, c->channels, v, w, bias, c->out, s, y, columns);
}

/* Taps (first_y + t * stride, first_x + u * stride), last first, with the channels exchanged. */
static KERNEL void rotate(const struct conv *c, const int8_t *w, int first_y, int first_x, int height, int width,
                          int8_t *rotated) {
    int taps = c->kernel * c->kernel;
    for (int i = 0; i < c->channels; i++)
        for (int t = height - 1; t >= 0; t--)
            for (int u = width - 1; u >= 0; u--) {
                int tap = (first_y + t * c->stride) * c->kernel + first_x + u * c->stride;
                for (int k = 0; k < c->out; k++) *rotated++ = w[(k * taps + tap) * c->channels + i];
            }
}

/* Tap by tap over all channels, scattered to the inputs that the taps came from. */
static KERNEL void depthwise_error(const struct conv *c, struct scale s, const int8_t *dy, const int8_t *w,
                                   int8_t *dx) {
    static int32_t sums[16384];
    int n = c->side * c->side * c->out;
    for (int i = 0; i < n; i++) sums[i] = 0;
    for (int row = 0; row < c->out_side; row++)
        for (int column = 0; column < c->out_side; column++, dy += c->out)
            for (int fy = 0; fy < c->kernel; fy++)
                for (int fx = 0; fx < c->kernel; fx++) {
                    int iy = row * c->stride + fy - c->pad, ix = column * c->stride + fx - c->pad;
                    if (iy < 0 || iy >= c->side || ix < 0 || ix >= c->side) continue;
                    const int8_t *tap = w + (fy * c->kernel + fx) * c->out;
                    int32_t *to = sums + (iy * c->side + ix) * c->out;
                    for (int k = 0; k < c->out; k++) to[k] += dy[k] * tap[k];
                }
    for (int i = 0; i < n; i++) dx[i] = requantized(sums[i], s);
}

/* A convolution of the errors with the kernels rotated and the channels exchanged; a stride splits the inputs, and the
 * taps that reach them, into stride x stride such convolutions. */
void input_error(const struct conv *c, struct scale s, const int8_t *dy, const int8_t *w, int8_t *dx, int8_t *rotated,
                 int16_t *columns) {
    if (c->groups > 1) {
        depthwise_error(c, s, dy, w, dx);
        return;
    }
    for (int y = 0; y < c->stride; y++)
        for (int x = 0; x < c->stride; x++) { /* inputs at (y, x) of each stride x stride square */
            int first_y = (y + c->pad) % c->stride, first_x = (x + c->pad) % c->stride;
            int height = (c->kernel - first_y + c->stride - 1) / c->stride;
            int width = (c->kernel - first_x + c->stride - 1) / c->stride;
            int rows = (c->side - y + c->stride - 1) / c->stride, wide = (c->side - x + c->stride - 1) / c->stride;
            struct window v = {height, width, wide, rows * wide, 1, (y + c->pad - first_y) / c->stride - height + 1,
                               (x + c->pad - first_x) / c->stride - width + 1, c->stride, c->side};
            rotate(c, w, first_y, first_x, height, width, rotated);
            correlate(dy, c->out_side, c->out, v, rotated, 0, c->channels, s, dx + (y * c->side + x) * c->channels,
                      columns);
        }
}

/* int8 [n][width] -> int16 [width][n padded to even] */
static KERNEL void transpose(const int8_t *from, int n, int width, int16_t *to, int row_length, int offset) {
    for (int p = 0; p < n; p++)
        for (int i = 0; i < width; i++) to[i * row_length + offset + p] = *from++;
}

static KERNEL void gemm_gradient(const int16_t *errors, const int16_t *columns, int rows, int width, int n,
                                 int32_t *dw) {
    for (int k = 0; k < rows; k += 2)
        for (int r = 0; r < width; r += 2) {
            const int16_t *e0 = errors + k * n, *c0 = columns + r * n;
            const int16_t *e1 = k + 1 < rows ? e0 + n : e0, *c1 = r + 1 < width ? c0 + n : c0;
            int32_t s00 = 0, s01 = 0, s10 = 0, s11 = 0;
            for (int p = 0; p < n; p += 2) {
                uint32_t a = word(e0 + p), b = word(e1 + p), x = word(c0 + p), y = word(c1 + p);
                s00 = __smlad(a, x, s00);
                s01 = __smlad(a, y, s01);
                s10 = __smlad(b, x, s10);
                s11 = __smlad(b, y, s11);
            }
            dw[k * width + r] = s00;
            if (r + 1 < width) dw[k * width + r + 1] = s01;
            if (k + 1 < rows) dw[(k + 1) * width + r] = s10;
            if (k + 1 < rows && r + 1 < width) dw[(k + 1) * width + r + 1] = s11;
        }
}

/* Tap by tap over all channels, summed in memory. */
static KERNEL void depthwise_gradient(const struct conv *c, const int8_t *x, const int8_t *dy, int32_t *dw) {
    for (int row = 0; row < c->out_side; row++)
        for (int column = 0; column < c->out_side; column++)
            for (int fy = 0; fy < c->kernel; fy++)
                for (int fx = 0; fx < c->kernel; fx++) {
                    int iy = row * c->stride + fy - c->pad, ix = column * c->stride + fx - c->pad;
                    if (iy < 0 || iy >= c->side || ix < 0 || ix >= c->side) continue;
                    const int8_t *from = x + (iy * c->side + ix) * c->out;
                    const int8_t *e = dy + (row * c->out_side + column) * c->out;
                    int32_t *to = dw + (fy * c->kernel + fx) * c->out;
                    for (int k = 0; k < c->out; k++) to[k] += from[k] * e[k];
                }
}

/* Sums over pixels need both operands with the pixels last; `n` pixels, an odd one more is zero. */
void weight_gradient(const struct conv *c, const int8_t *x, const int8_t *dy, int32_t *dw, int16_t *columns,
                     int16_t *errors) {
    int width = c->channels * c->kernel * c->kernel, n = c->out_side * c->out_side, even = n + (n & 1);
    if (c->groups > 1) {
        depthwise_gradient(c, x, dy, dw);
        return;
    }
    if (even > n) {
        for (int k = 0; k < c->out; k++) errors[k * even + n] = 0;
        for (int r = 0; r < width; r++) columns[r * even + n] = 0;
    }
    transpose(dy, n, c->out, errors, even, 0);
    for (int p = 0; p < n; p++) {
        int row = p / c->out_side * c->stride - c->pad, column = p % c->out_side * c->stride - c->pad;
        const int8_t *bytes = x + (row * c->side + column) * c->channels;
        if (c->kernel > 1) {
            im2col(x, c->side, c->channels, c->kernel, c->kernel, row, column, patch);
            bytes = patch;
        }
        transpose(bytes, 1, width, columns, even, p);
    }
    gemm_gradient(errors, columns, c->out, width, even, dw);
}
