"""A domain that differs from the one trained on, at once or more and more: rotation, noise, blur, contrast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtrain.data.streams import generator
from qtrain.data.warp import affine, blur, rotations
from qtrain.errors import QtrainError

DRIFT = 4
"""Tells the random numbers of the noise from others'."""
ROTATION_DEGREES, NOISE_SIGMA, BLUR_PIXELS, LEAST_CONTRAST = 45.0, 1.0, 2.0, 0.2
"""What severity 1 means (chosen here); sigma in standard deviations of the training set's pixels."""


@dataclass(frozen=True)
class Drift:
    """What happens to images [n, C, H, W] float32, standardized, that are met at a step of a run.

    The severity is `severity` throughout or, if `grows`, rises linearly from 0 at the first step to it at the last.
    """

    kind: str = "none"
    severity: float = 1.0
    grows: bool = False
    n_steps: int = 1
    seed: int = 0

    @classmethod
    def of(cls, settings: Any, n_steps: int, seed: int) -> Drift:
        """The drift of an experiment's section `stream`; raises QtrainError where a drifting stream has none."""
        grows = settings.kind == "drifting"
        if grows and settings.drift == "none":
            raise QtrainError("stream.kind (--stream) = 'drifting': needs stream.drift (--stream-drift)")
        return cls(settings.drift, settings.severity, grows, n_steps, seed)

    def severity_at(self, step: int) -> float:
        """0..severity; steps beyond the last are like it."""
        if not self.grows:
            return self.severity
        return self.severity * min(step, self.n_steps - 1) / max(self.n_steps - 1, 1)

    def apply(self, images: NDArray[np.float32], step: int) -> NDArray[np.float32]:
        """The images as the device meets them at `step`; noise is drawn from (seed, step)."""
        severity = self.severity_at(step)
        if self.kind == "none" or severity == 0:
            return images
        if self.kind == "rotation":
            return affine(images, rotations(np.full(len(images), severity * ROTATION_DEGREES)))
        if self.kind == "noise":
            drawn = generator(self.seed, step, DRIFT).standard_normal(images.shape, dtype=np.float32)
            return images + np.float32(severity * NOISE_SIGMA) * drawn
        if self.kind == "blur":
            return blur(images, severity * BLUR_PIXELS)
        mean = images.mean(axis=(2, 3), keepdims=True)
        return mean + (images - mean) * np.float32(1 - severity * (1 - LEAST_CONTRAST))
