"""Three of Brevitas' example networks in their published shapes, as a user would write them: plain Brevitas code.

LeNet: documentation, "Getting started", weights, activations and biases quantized (4 bits, CIFAR-10 images).
CNV and TFC: the examples `bnn_pynq` (CNV_4W4A and CNV_8W8A on CIFAR-10, TFC_2W2A on MNIST).
"""

import brevitas.nn as qnn
import torch
import torch.nn.functional as F
from brevitas.core.zero_point import ZeroZeroPoint
from brevitas.inject import ExtendedInjector
from brevitas.inject.enum import BitWidthImplType, FloatToIntImplType, QuantType, RestrictValueType, ScalingImplType
from brevitas.quant import Int32Bias
from brevitas.quant.solver import ActQuantSolver, WeightQuantSolver
from torch import Tensor, nn


class LeNet(nn.Module):
    """LeNet-5 on 3x32x32; tensors travel with their scales, which the 32-bit biases need."""

    def __init__(self, bits: int = 4) -> None:
        super().__init__()
        weights = {"bias": True, "weight_bit_width": bits, "bias_quant": Int32Bias}
        self.image = qnn.QuantIdentity(bit_width=bits, return_quant_tensor=True)
        self.conv1 = qnn.QuantConv2d(3, 6, 5, **weights)
        self.conv2 = qnn.QuantConv2d(6, 16, 5, **weights)
        self.fc1 = qnn.QuantLinear(16 * 5 * 5, 120, **weights)
        self.fc2 = qnn.QuantLinear(120, 84, **weights)
        self.fc3 = qnn.QuantLinear(84, 10, **weights)
        for i in range(1, 5):
            setattr(self, f"relu{i}", qnn.QuantReLU(bit_width=bits, return_quant_tensor=True))

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.relu1(self.conv1(self.image(x))), 2)
        x = F.max_pool2d(self.relu2(self.conv2(x)), 2)
        x = x.reshape(x.shape[0], -1)
        return self.fc3(self.relu4(self.fc2(self.relu3(self.fc1(x)))))


class _Constant(ExtendedInjector):
    """bnn_pynq's quantizers: a constant scale of one, symmetric codes."""

    quant_type = QuantType.INT
    bit_width_impl_type = BitWidthImplType.CONST
    scaling_impl_type = ScalingImplType.CONST
    restrict_scaling_type = RestrictValueType.FP
    float_to_int_impl_type = FloatToIntImplType.ROUND
    zero_point_impl = ZeroZeroPoint
    scaling_per_output_channel = False
    narrow_range = True
    signed = True


class ConstantWeight(_Constant, WeightQuantSolver):
    scaling_const = 1.0


class ConstantAct(_Constant, ActQuantSolver):
    min_val = -1.0
    max_val = 1.0


class TensorNorm(nn.Module):
    """A batch normalization with one mean, variance, scale and shift for the whole tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.bias = nn.Parameter(torch.zeros(1))
        self.register_buffer("running_mean", torch.zeros(1))
        self.register_buffer("running_var", torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            mean, variance = x.mean(), x.var(unbiased=False)
            self.running_mean = 0.9 * self.running_mean + 0.1 * mean.detach()
            self.running_var = 0.9 * self.running_var + 0.1 * x.var().detach()
        else:
            mean, variance = self.running_mean, self.running_var
        return (x - mean) / (variance + 1e-4).sqrt() * self.weight + self.bias


def _uniform(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, (qnn.QuantConv2d, qnn.QuantLinear)):
            nn.init.uniform_(module.weight, -1, 1)


class CNV(nn.Module):
    """Six 3x3 convolutions (64, 64, pool, 128, 128, pool, 256, 256) and three linear layers (512, 512, 10)."""

    def __init__(self, bits: int = 4) -> None:
        super().__init__()
        self.features = nn.ModuleList([
            qnn.QuantIdentity(
                act_quant=ConstantAct, bit_width=8, min_val=-1.0, max_val=1.0 - 2.0**-7, narrow_range=False,
                restrict_scaling_type=RestrictValueType.POWER_OF_TWO,
            )
        ])  # fmt: skip
        self.classifier = nn.ModuleList()
        weights = {"bias": False, "weight_quant": ConstantWeight, "weight_bit_width": bits}
        n_in = 3
        for n_out, pool in ((64, False), (64, True), (128, False), (128, True), (256, False), (256, False)):
            self.features.append(qnn.QuantConv2d(n_in, n_out, 3, **weights))
            self.features.append(nn.BatchNorm2d(n_out, eps=1e-4))
            self.features.append(qnn.QuantIdentity(act_quant=ConstantAct, bit_width=bits))
            if pool:
                self.features.append(nn.MaxPool2d(2))
            n_in = n_out
        for n_in, n_out in ((256, 512), (512, 512)):
            self.classifier.append(qnn.QuantLinear(n_in, n_out, **weights))
            self.classifier.append(nn.BatchNorm1d(n_out, eps=1e-4))
            self.classifier.append(qnn.QuantIdentity(act_quant=ConstantAct, bit_width=bits))
        self.classifier.append(qnn.QuantLinear(512, 10, **weights))
        self.classifier.append(TensorNorm())
        _uniform(self)

    def forward(self, x: Tensor) -> Tensor:
        x = 2.0 * x - torch.tensor([1.0], device=x.device)
        for module in self.features:
            x = module(x)
        x = x.view(x.shape[0], -1)
        for module in self.classifier:
            x = module(x)
        return x


class TFC(nn.Module):
    """Three hidden layers of 64 on 28x28 images, with dropout."""

    def __init__(self, bits: int = 2) -> None:
        super().__init__()
        self.features = nn.ModuleList([qnn.QuantIdentity(act_quant=ConstantAct, bit_width=bits), nn.Dropout(p=0.2)])
        weights = {"bias": False, "weight_quant": ConstantWeight, "weight_bit_width": bits}
        n_in = 28 * 28
        for _ in range(3):
            self.features.append(qnn.QuantLinear(n_in, 64, **weights))
            self.features.append(nn.BatchNorm1d(64))
            self.features.append(qnn.QuantIdentity(act_quant=ConstantAct, bit_width=bits))
            self.features.append(nn.Dropout(p=0.2))
            n_in = 64
        self.features.append(qnn.QuantLinear(64, 10, **weights))
        self.features.append(TensorNorm())
        _uniform(self)

    def forward(self, x: Tensor) -> Tensor:
        x = x.view(x.shape[0], -1)
        x = 2.0 * x - torch.tensor([1.0], device=x.device)
        for module in self.features:
            x = module(x)
        return x
