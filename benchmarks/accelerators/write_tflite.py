"""Write a shipped network, normalizations folded, as an int8 TFLite model with random weights, for ethos-u-vela.

Runs in the environment of ethos-u-vela, whose package brings the TFLite flatbuffer schema:
    python benchmarks/accelerators/write_tflite.py resnet8 resnet8.tflite
"""

from __future__ import annotations

import sys
from pathlib import Path

import flatbuffers
import numpy as np
from ethosu.vela.tflite import (
    AddOptions,
    Buffer,
    Conv2DOptions,
    DepthwiseConv2DOptions,
    FullyConnectedOptions,
    Model,
    Operator,
    OperatorCode,
    Pool2DOptions,
    QuantizationParameters,
    SubGraph,
    Tensor,
)

sys.path.insert(0, str(Path(__file__).parents[2]))
from hwmodel.network import load
from hwmodel.operations import Layer

ADD, AVERAGE_POOL, CONV, DEPTHWISE, FULLY_CONNECTED, MAX_POOL, RESHAPE = 0, 1, 3, 4, 9, 17, 22
OPTIONS = {CONV: 1, DEPTHWISE: 2, AVERAGE_POOL: 5, MAX_POOL: 5, FULLY_CONNECTED: 8, ADD: 11, RESHAPE: 0}
INT8, INT32 = 9, 2
RELU, RELU6 = 1, 3
SAME, VALID = 0, 1


class Writer:
    """Collects buffers, tensors and operators of one subgraph; offsets are the flatbuffer's."""

    def __init__(self) -> None:
        self.b = flatbuffers.Builder(1 << 20)
        self.rng = np.random.default_rng(0)
        self.buffers = [self._buffer(None)]
        self.tensors: list[int] = []
        self.operators: list[int] = []
        self.codes: list[int] = []

    def _vector(self, values: list[int], start=None) -> int:
        """A vector of 32-bit integers, or of offsets where `start` begins one."""
        if start is None:
            return self.b.CreateNumpyVector(np.asarray(values, np.int32))
        start(self.b, len(values))
        for value in reversed(values):
            self.b.PrependUOffsetTRelative(value)
        return self.b.EndVector()

    def _buffer(self, data: np.ndarray | None) -> int:
        raw = None if data is None else self.b.CreateByteVector(data.tobytes())
        Buffer.BufferStart(self.b)
        if raw is not None:
            Buffer.BufferAddData(self.b, raw)
        return Buffer.BufferEnd(self.b)

    def tensor(self, name: str, shape: list[int], kind: int = INT8, data: np.ndarray | None = None) -> int:
        """A tensor with one scale; constant if it has data."""
        index = 0
        if data is not None:
            self.buffers.append(self._buffer(data))
            index = len(self.buffers) - 1
        scale = self.b.CreateNumpyVector(np.array([0.02 if kind == INT8 else 0.0004], np.float32))
        zero = self.b.CreateNumpyVector(np.array([0], np.int64))
        QuantizationParameters.QuantizationParametersStart(self.b)
        QuantizationParameters.QuantizationParametersAddScale(self.b, scale)
        QuantizationParameters.QuantizationParametersAddZeroPoint(self.b, zero)
        quantization = QuantizationParameters.QuantizationParametersEnd(self.b)
        text, dims = self.b.CreateString(name), self._vector(shape)
        Tensor.TensorStart(self.b)
        Tensor.TensorAddShape(self.b, dims)
        Tensor.TensorAddType(self.b, kind)
        Tensor.TensorAddBuffer(self.b, index)
        Tensor.TensorAddName(self.b, text)
        Tensor.TensorAddQuantization(self.b, quantization)
        self.tensors.append(Tensor.TensorEnd(self.b))
        return len(self.tensors) - 1

    def constant(self, name: str, shape: list[int], kind: int = INT8) -> int:
        dtype = np.int8 if kind == INT8 else np.int32
        return self.tensor(name, shape, kind, self.rng.integers(-127, 128, shape).astype(dtype))

    def operator(self, code: int, inputs: list[int], output: int, options: int | None) -> None:
        if code not in self.codes:
            self.codes.append(code)
        ins, outs = self._vector(inputs), self._vector([output])
        Operator.OperatorStart(self.b)
        Operator.OperatorAddOpcodeIndex(self.b, self.codes.index(code))
        Operator.OperatorAddInputs(self.b, ins)
        Operator.OperatorAddOutputs(self.b, outs)
        if options is not None:
            Operator.OperatorAddBuiltinOptionsType(self.b, OPTIONS[code])
            Operator.OperatorAddBuiltinOptions(self.b, options)
        self.operators.append(Operator.OperatorEnd(self.b))

    def finish(self, inputs: list[int], outputs: list[int]) -> bytes:
        codes = []
        for code in self.codes:
            OperatorCode.OperatorCodeStart(self.b)
            OperatorCode.OperatorCodeAddDeprecatedBuiltinCode(self.b, code)
            OperatorCode.OperatorCodeAddBuiltinCode(self.b, code)
            OperatorCode.OperatorCodeAddVersion(self.b, 1)
            codes.append(OperatorCode.OperatorCodeEnd(self.b))
        tensors = self._vector(self.tensors, SubGraph.SubGraphStartTensorsVector)
        operators = self._vector(self.operators, SubGraph.SubGraphStartOperatorsVector)
        ins, outs, name = self._vector(inputs), self._vector(outputs), self.b.CreateString("main")
        SubGraph.SubGraphStart(self.b)
        SubGraph.SubGraphAddTensors(self.b, tensors)
        SubGraph.SubGraphAddInputs(self.b, ins)
        SubGraph.SubGraphAddOutputs(self.b, outs)
        SubGraph.SubGraphAddOperators(self.b, operators)
        SubGraph.SubGraphAddName(self.b, name)
        graphs = self._vector([SubGraph.SubGraphEnd(self.b)], Model.ModelStartSubgraphsVector)
        code_vector = self._vector(codes, Model.ModelStartOperatorCodesVector)
        buffers = self._vector(self.buffers, Model.ModelStartBuffersVector)
        Model.ModelStart(self.b)
        Model.ModelAddVersion(self.b, 3)
        Model.ModelAddOperatorCodes(self.b, code_vector)
        Model.ModelAddSubgraphs(self.b, graphs)
        Model.ModelAddBuffers(self.b, buffers)
        self.b.Finish(Model.ModelEnd(self.b), file_identifier=b"TFL3")
        return bytes(self.b.Output())


def activation(layer: Layer) -> int:
    return {"none": 0, "relu": RELU, "relu6": RELU6}[layer.activation]


def padding(layer: Layer) -> int:
    same = layer.out_height == -(-layer.in_height // layer.stride_height)
    return SAME if same and layer.kernel_height > 1 else VALID


def add_layer(writer: Writer, layer: Layer, sources: list[int]) -> int:
    """The layer's operator; returns its output tensor."""
    shape = [1, layer.out_height, layer.out_width, layer.out_channels]
    kernel = [layer.kernel_height, layer.kernel_width]
    if layer.kind == "linear":
        flat = writer.tensor(layer.name + "/flat", [1, layer.in_channels])
        writer.operator(RESHAPE, sources, flat, None)
        sources, shape = [flat], [1, layer.out_channels]
    out = writer.tensor(layer.name, shape)
    b = writer.b
    if layer.kind in ("conv", "linear"):
        bias = writer.constant(layer.name + "/b", [layer.out_channels], INT32)
    if layer.kind == "conv" and layer.groups == 1:
        weights = writer.constant(layer.name + "/w", [layer.out_channels, *kernel, layer.in_channels])
        Conv2DOptions.Conv2DOptionsStart(b)
        Conv2DOptions.Conv2DOptionsAddPadding(b, padding(layer))
        Conv2DOptions.Conv2DOptionsAddStrideW(b, layer.stride_width)
        Conv2DOptions.Conv2DOptionsAddStrideH(b, layer.stride_height)
        Conv2DOptions.Conv2DOptionsAddFusedActivationFunction(b, activation(layer))
        writer.operator(CONV, [*sources, weights, bias], out, Conv2DOptions.Conv2DOptionsEnd(b))
    elif layer.kind == "conv" and layer.groups == layer.in_channels:
        weights = writer.constant(layer.name + "/w", [1, *kernel, layer.out_channels])
        options = DepthwiseConv2DOptions
        options.DepthwiseConv2DOptionsStart(b)
        options.DepthwiseConv2DOptionsAddPadding(b, padding(layer))
        options.DepthwiseConv2DOptionsAddStrideW(b, layer.stride_width)
        options.DepthwiseConv2DOptionsAddStrideH(b, layer.stride_height)
        options.DepthwiseConv2DOptionsAddDepthMultiplier(b, layer.out_channels // layer.groups)
        options.DepthwiseConv2DOptionsAddFusedActivationFunction(b, activation(layer))
        writer.operator(DEPTHWISE, [*sources, weights, bias], out, options.DepthwiseConv2DOptionsEnd(b))
    elif layer.kind == "linear":
        weights = writer.constant(layer.name + "/w", [layer.out_channels, layer.in_channels])
        FullyConnectedOptions.FullyConnectedOptionsStart(b)
        FullyConnectedOptions.FullyConnectedOptionsAddFusedActivationFunction(b, activation(layer))
        writer.operator(
            FULLY_CONNECTED, [*sources, weights, bias], out, FullyConnectedOptions.FullyConnectedOptionsEnd(b)
        )
    elif layer.kind == "add":
        AddOptions.AddOptionsStart(b)
        AddOptions.AddOptionsAddFusedActivationFunction(b, activation(layer))
        writer.operator(ADD, sources, out, AddOptions.AddOptionsEnd(b))
    elif layer.kind in ("avgpool", "maxpool"):
        Pool2DOptions.Pool2DOptionsStart(b)
        Pool2DOptions.Pool2DOptionsAddPadding(b, VALID)
        Pool2DOptions.Pool2DOptionsAddStrideW(b, layer.stride_width)
        Pool2DOptions.Pool2DOptionsAddStrideH(b, layer.stride_height)
        Pool2DOptions.Pool2DOptionsAddFilterWidth(b, layer.kernel_width)
        Pool2DOptions.Pool2DOptionsAddFilterHeight(b, layer.kernel_height)
        code = AVERAGE_POOL if layer.kind == "avgpool" else MAX_POOL
        writer.operator(code, sources, out, Pool2DOptions.Pool2DOptionsEnd(b))
    else:
        raise SystemExit(f"layer {layer.name}: a {layer.kind} has no TFLite operator here")
    return out


def main() -> None:
    name, path = sys.argv[1:]
    writer = Writer()
    layers = load(name).folded().layers
    outputs: dict[str, int] = {}
    for layer in layers:
        if layer.kind == "input":
            outputs[layer.name] = writer.tensor(layer.name, [1, layer.out_height, layer.out_width, layer.out_channels])
        else:
            outputs[layer.name] = add_layer(writer, layer, [outputs[source] for source in layer.inputs])
    Path(path).write_bytes(writer.finish([outputs[layers[0].name]], [outputs[layers[-1].name]]))


if __name__ == "__main__":
    main()
