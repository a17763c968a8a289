/* The kernels as plain loops, the way one would write them first: a sum per output and per weight gathers its products,
 * an error is scattered to the inputs it came from, which holds for any stride. */
#include "kernels.h"

static int32_t sums[16384];

static KERNEL void forward_dense(const struct conv *c, struct scale s, const int8_t *x, const int8_t *w,
                                 const int32_t *bias, int8_t *y) {
    int taps = c->kernel * c->kernel;
    for (int row = 0; row < c->out_side; row++)
        for (int column = 0; column < c->out_side; column++)
            for (int k = 0; k < c->out; k++) {
                int32_t sum = bias ? bias[k] : 0;
                for (int fy = 0; fy < c->kernel; fy++) {
                    int iy = row * c->stride + fy - c->pad;
                    if (iy < 0 || iy >= c->side) continue;
                    for (int fx = 0; fx < c->kernel; fx++) {
                        int ix = column * c->stride + fx - c->pad;
                        if (ix < 0 || ix >= c->side) continue;
                        for (int i = 0; i < c->channels; i++)
                            sum += x[(iy * c->side + ix) * c->channels + i] *
                                   w[(k * taps + fy * c->kernel + fx) * c->channels + i];
                    }
                }
                *y++ = requantized(sum, s);
            }
}

static KERNEL void forward_depthwise(const struct conv *c, struct scale s, const int8_t *x, const int8_t *w,
                                     const int32_t *bias, int8_t *y) {
    for (int row = 0; row < c->out_side; row++)
        for (int column = 0; column < c->out_side; column++)
            for (int k = 0; k < c->out; k++) {
                int32_t sum = bias ? bias[k] : 0;
                for (int fy = 0; fy < c->kernel; fy++) {
                    int iy = row * c->stride + fy - c->pad;
                    if (iy < 0 || iy >= c->side) continue;
                    for (int fx = 0; fx < c->kernel; fx++) {
                        int ix = column * c->stride + fx - c->pad;
                        if (ix < 0 || ix >= c->side) continue;
                        sum += x[(iy * c->side + ix) * c->out + k] * w[(fy * c->kernel + fx) * c->out + k];
                    }
                }
                *y++ = requantized(sum, s);
            }
}

static KERNEL void error_dense(const struct conv *c, const int8_t *dy, const int8_t *w) {
    int taps = c->kernel * c->kernel;
    for (int row = 0; row < c->out_side; row++)
        for (int column = 0; column < c->out_side; column++)
            for (int k = 0; k < c->out; k++) {
                int error = *dy++;
                for (int fy = 0; fy < c->kernel; fy++) {
                    int iy = row * c->stride + fy - c->pad;
                    if (iy < 0 || iy >= c->side) continue;
                    for (int fx = 0; fx < c->kernel; fx++) {
                        int ix = column * c->stride + fx - c->pad;
                        if (ix < 0 || ix >= c->side) continue;
                        for (int i = 0; i < c->channels; i++)
                            sums[(iy * c->side + ix) * c->channels + i] +=
                                error * w[(k * taps + fy * c->kernel + fx) * c->channels + i];
                    }
                }
            }
}

static KERNEL void error_depthwise(const struct conv *c, const int8_t *dy, const int8_t *w) {
    for (int row = 0; row < c->out_side; row++)
        for (int column = 0; column < c->out_side; column++)
            for (int k = 0; k < c->out; k++) {
                int error = *dy++;
                for (int fy = 0; fy < c->kernel; fy++) {
                    int iy = row * c->stride + fy - c->pad;
                    if (iy < 0 || iy >= c->side) continue;
                    for (int fx = 0; fx < c->kernel; fx++) {
                        int ix = column * c->stride + fx - c->pad;
                        if (ix < 0 || ix >= c->side) continue;
                        sums[(iy * c->side + ix) * c->out + k] += error * w[(fy * c->kernel + fx) * c->out + k];
                    }
                }
            }
}

static KERNEL void gradient_dense(const struct conv *c, const int8_t *x, const int8_t *dy, int32_t *dw) {
    for (int k = 0; k < c->out; k++)
        for (int fy = 0; fy < c->kernel; fy++)
            for (int fx = 0; fx < c->kernel; fx++)
                for (int i = 0; i < c->channels; i++) {
                    int32_t sum = 0;
                    for (int row = 0; row < c->out_side; row++) {
                        int iy = row * c->stride + fy - c->pad;
                        if (iy < 0 || iy >= c->side) continue;
                        for (int column = 0; column < c->out_side; column++) {
                            int ix = column * c->stride + fx - c->pad;
                            if (ix < 0 || ix >= c->side) continue;
                            sum += x[(iy * c->side + ix) * c->channels + i] *
                                   dy[(row * c->out_side + column) * c->out + k];
                        }
                    }
                    *dw++ = sum;
                }
}

static KERNEL void gradient_depthwise(const struct conv *c, const int8_t *x, const int8_t *dy, int32_t *dw) {
    for (int fy = 0; fy < c->kernel; fy++)
        for (int fx = 0; fx < c->kernel; fx++)
            for (int k = 0; k < c->out; k++) {
                int32_t sum = 0;
                for (int row = 0; row < c->out_side; row++) {
                    int iy = row * c->stride + fy - c->pad;
                    if (iy < 0 || iy >= c->side) continue;
                    for (int column = 0; column < c->out_side; column++) {
                        int ix = column * c->stride + fx - c->pad;
                        if (ix < 0 || ix >= c->side) continue;
                        sum += x[(iy * c->side + ix) * c->out + k] * dy[(row * c->out_side + column) * c->out + k];
                    }
                }
                *dw++ = sum;
            }
}

void forward(const struct conv *c, struct scale s, const int8_t *x, const int8_t *w, const int32_t *bias, int8_t *y,
             int16_t *columns) {
    (void)columns;
    if (c->groups > 1)
        forward_depthwise(c, s, x, w, bias, y);
    else
        forward_dense(c, s, x, w, bias, y);
}

void input_error(const struct conv *c, struct scale s, const int8_t *dy, const int8_t *w, int8_t *dx, int8_t *rotated,
                 int16_t *columns) {
    int n = c->side * c->side * c->channels;
    (void)rotated, (void)columns;
    for (int i = 0; i < n; i++) sums[i] = 0;
    if (c->groups > 1)
        error_depthwise(c, dy, w);
    else
        error_dense(c, dy, w);
    for (int i = 0; i < n; i++) dx[i] = requantized(sums[i], s);
}

void weight_gradient(const struct conv *c, const int8_t *x, const int8_t *dy, int32_t *dw, int16_t *columns,
                     int16_t *errors) {
    (void)columns, (void)errors;
    if (c->groups > 1)
        gradient_depthwise(c, x, dy, dw);
    else
        gradient_dense(c, x, dy, dw);
}
