    .section .start, "ax"
    .globl _start
_start:
    li sp, 0xff000
    call main
    li t0, 0x200000
    sw zero, 0(t0)
1:  j 1b
