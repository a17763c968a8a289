"""Number formats, rounding rules and the noise of stochastic rounding. The arithmetic is written in ARITHMETIC.md."""
