"""Messages between server and client: numbers that survive, and everything else refused."""

import subprocess
import sys
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, FileDescriptorSet

from mocosfl.edge import federation_pb2 as pb
from mocosfl.edge import wire
from mocosfl.edge.wire import Refusal, decode_tensor, encode_tensor
from tests.support.mutations import (
    MUTATIONS,
    NUM_PARAMETERS,
    ROWS,
    field,
    mutated_messages,
    whole_messages,
)
from tests.support.paths import ROOT

SHAPE = (3, 4)


def values(shape: tuple[int, ...] = SHAPE, *, dtype: Any = np.float32) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


def there_and_back(sent: np.ndarray, dtype: int) -> np.ndarray:
    message = pb.Tensor.FromString(encode_tensor(sent, dtype).SerializeToString())
    return decode_tensor(message, dtype=dtype, shape=sent.shape, name="query")


def assert_near(sent: np.ndarray, dtype: int) -> None:
    """Check the bounds: half a step of the type that travels, in each number."""
    came, sent = there_and_back(sent, dtype).astype(np.float64), sent.astype(np.float64)
    largest = np.abs(sent).max()
    if dtype == pb.FP16:  # 11 digits, down to 2^-14 of the scale, which is at most 2 * largest
        bound = np.maximum(np.abs(sent) * 2.0**-11, largest * 2.0**-24)
    else:
        bound = largest / 127 / 2
    float32_step = np.abs(sent) * 2.0**-24 + 2.0**-150  # what came is float32
    assert (np.abs(came - sent) <= bound + float32_step).all()


@pytest.mark.parametrize(
    ("dtype", "item"), [(pb.FP32, np.float32), (pb.FP64, np.float64)], ids=["fp32", "fp64"]
)
def test_full_precision_arrives_bit_for_bit(dtype: int, item: Any) -> None:
    sent = values(dtype=item) * 10.0 ** np.arange(-20, 20, 10).astype(item)
    came = there_and_back(sent, dtype)

    assert came.dtype == item
    assert came.tobytes() == sent.tobytes()
    assert not came.flags.writeable


@pytest.mark.parametrize("dtype", [pb.FP16, pb.INT8], ids=["fp16", "int8"])
# Gradients of vanished losses, the edges of float32's range, and all that lies between.
@pytest.mark.parametrize(
    "size", [1e-44, 1e-41, 1e-38, 1e-30, 1e-12, 6e-8, 1.0, 7e4, 1e30, 1.7e38 / 4]
)
@pytest.mark.parametrize("item", [np.float32, np.float64])
def test_half_and_int8_err_by_half_a_step_at_most_whatever_the_size(
    dtype: int, size: float, item: Any
) -> None:
    assert_near((values((500,)) * size).astype(item), dtype)


@pytest.mark.parametrize("dtype", wire.DTYPES.values(), ids=wire.DTYPES)
def test_zeros_tiny_empty_and_single_numbers_travel(dtype: int) -> None:
    for sent in (np.zeros(SHAPE, np.float32), np.zeros((0, 4), np.float32), np.array(2.5)):
        np.testing.assert_array_equal(there_and_back(sent, dtype), sent)
    tiny = there_and_back(np.array([1e-12, -1e-12, 5e-13], np.float32), dtype)
    np.testing.assert_allclose(tiny, [1e-12, -1e-12, 5e-13], rtol=1 / 127)


@pytest.mark.parametrize("dtype", [pb.FP16, pb.INT8, pb.FP32])
@pytest.mark.parametrize("size", [5e-324, 1e-321, 1e-310, 1e-60])
def test_what_float32_can_not_hold_arrives_as_zero(dtype: int, size: float) -> None:
    np.testing.assert_array_equal(there_and_back(np.array([size, -size]), dtype), [0, 0])


@pytest.mark.parametrize("dtype", [pb.FP16, pb.INT8, pb.FP32])
@pytest.mark.parametrize("size", [2.0**127, 3.4e38, 1e300, 1.79e308])
def test_too_large_value_is_not_sent(dtype: int, size: float) -> None:
    assert np.isfinite(there_and_back(np.array([2.0**127 * 0.9999999]), dtype)).all()
    with pytest.raises(
        ValueError, match=r"value of .* can't be sent as .*, only values below 1.7e"
    ):
        encode_tensor(np.array([1.0, -size]), dtype)


@pytest.mark.parametrize("dtype", wire.DTYPES.values(), ids=wire.DTYPES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_value_that_is_not_finite_is_not_sent(dtype: int, value: float) -> None:
    with pytest.raises(ValueError, match="NaN or infinite"):
        encode_tensor(np.array([1.0, value]), dtype)


@pytest.mark.parametrize("dtype", wire.DTYPES.values(), ids=wire.DTYPES)
def test_order_of_bytes_and_of_axes_is_that_of_the_wire_whatever_the_array_s(dtype: int) -> None:
    plain = encode_tensor(values(), dtype)

    assert encode_tensor(values().astype(">f4"), dtype) == plain
    assert encode_tensor(np.asfortranarray(values()), dtype) == plain
    assert encode_tensor(values((4, 3)).T, dtype) == encode_tensor(values((4, 3)).T.copy(), dtype)
    assert encode_tensor(values()[:, ::2], dtype) == encode_tensor(values()[:, ::2].copy(), dtype)


def test_numbers_are_little_endian_in_c_order() -> None:
    tensor = encode_tensor(np.array([[1.0, 2.0], [-2.0, 0.5]], np.float32), pb.FP32)

    assert tensor.data.hex() == "0000803f" + "00000040" + "000000c0" + "0000003f"
    assert list(tensor.shape) == [2, 2]
    assert tensor.scale == 1


GOOD = encode_tensor(values(), pb.FP32)
GOOD_HALF = encode_tensor(values(), pb.FP16)
SIGNALLING_NAN = {pb.FP32: "0100807f", pb.FP16: "017c", pb.FP64: "010000000000f07f"}


def changed(tensor: pb.Tensor, **fields: Any) -> pb.Tensor:
    result = pb.Tensor.FromString(tensor.SerializeToString())
    for name, value in fields.items():
        if name == "shape":
            result.shape[:] = value
        else:
            setattr(result, name, value)
    return result


@pytest.mark.parametrize(
    ("tensor", "dtype", "words"),
    [
        (pb.Tensor(), pb.FP32, "FP32 expected, DTYPE_UNSPECIFIED came"),
        (GOOD, pb.INT8, "INT8 expected, FP32 came"),
        (changed(GOOD, dtype=99), pb.FP32, "FP32 expected, type 99 came"),
        (changed(GOOD, shape=[12]), pb.FP32, r"shape \(3, 4\) expected, \(12,\) came"),
        (changed(GOOD, shape=[4, 3]), pb.FP32, r"shape \(3, 4\) expected, \(4, 3\) came"),
        (changed(GOOD, shape=[]), pb.FP32, r"shape \(3, 4\) expected, \(\) came"),
        (changed(GOOD, shape=[1] * 9**5), pb.FP32, r"shape \(3, 4\) expected, \((1, ){7}1\) came"),
        (changed(GOOD, data=b""), pb.FP32, "48 bytes expected, 0 came"),
        (changed(GOOD, data=GOOD.data + b"0"), pb.FP32, "48 bytes expected, 49 came"),
        (changed(GOOD, data=GOOD.data[:-4]), pb.FP32, "48 bytes expected, 44 came"),
        (changed(GOOD, scale=0), pb.FP32, "scale 1 expected, 0.0 came"),
        (changed(GOOD, scale=2), pb.FP32, "scale 1 expected, 2.0 came"),
        (changed(GOOD, scale=np.nan), pb.FP32, "scale 1 expected, nan came"),
        (changed(GOOD_HALF, scale=0), pb.FP16, "scale above 0 expected, 0.0 came"),
        (changed(GOOD_HALF, scale=-1), pb.FP16, "scale above 0 expected, -1.0 came"),
        (changed(GOOD_HALF, scale=np.inf), pb.FP16, "scale above 0 expected, inf came"),
        (changed(GOOD_HALF, scale=np.nan), pb.FP16, "scale above 0 expected, nan came"),
        (changed(GOOD_HALF, scale=1e300), pb.FP16, "NaN or infinite"),
    ],
)
def test_tensor_that_is_not_as_agreed_is_refused_with_what_was_expected(
    tensor: pb.Tensor, dtype: int, words: str
) -> None:
    with pytest.raises(Refusal, match=f"query: .*{words}"):
        decode_tensor(tensor, dtype=dtype, shape=SHAPE, name="query")


@pytest.mark.parametrize("dtype", [pb.FP32, pb.FP16, pb.FP64], ids=["fp32", "fp16", "fp64"])
@pytest.mark.parametrize("value", ["nan", "signalling nan", "inf", "-inf"])
def test_number_that_is_not_finite_is_refused_without_a_warning(dtype: int, value: str) -> None:
    item = wire.ITEMS[dtype]
    if value == "signalling nan":
        damage = bytes.fromhex(SIGNALLING_NAN[dtype])
    else:
        damage = np.array(float(value), item).tobytes()
    good = encode_tensor(values(), dtype)
    tensor = changed(good, data=good.data[: -item.itemsize] + damage)

    with pytest.raises(Refusal, match="query: has NaN or infinite values"):
        decode_tensor(tensor, dtype=dtype, shape=SHAPE, name="query")


def test_finite_numbers_whose_sum_overflows_are_accepted() -> None:
    sent = np.full(SHAPE, 3e38, np.float32)
    tensor = pb.Tensor(dtype=pb.FP32, shape=SHAPE, data=sent.tobytes(), scale=1)

    np.testing.assert_array_equal(
        decode_tensor(tensor, dtype=pb.FP32, shape=SHAPE, name="query"), sent
    )


def test_message_that_lies_about_its_shape_costs_no_memory() -> None:
    lies = [
        changed(GOOD, shape=[2**32 - 1] * 4),
        changed(GOOD, shape=[2**31, 2**31]),
        changed(GOOD_HALF, dtype=pb.FP32, shape=[10**9]),
    ]
    expected = [(2**16, 2**16), (2**32 - 1,) * 4, SHAPE]  # the last two are believed by nobody
    tracemalloc.start()
    try:
        for tensor in lies:
            for shape in expected:
                with pytest.raises(Refusal):
                    decode_tensor(tensor, dtype=pb.FP32, shape=shape, name="query")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 200_000


def test_messages_come_back_as_they_were_sent() -> None:
    for name, data in whole_messages().items():
        message = wire.parse_client_message(data, max_bytes=wire.ENVELOPE_BYTES)
        assert message.SerializeToString() == data
        assert message.WhichOneof("content") == name.split()[0]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "without content"),
        (field(15, b"from a newer program"), "without content"),
        (b"garbage", "7 bytes that are no message"),
        (whole_messages()["hello"][:-1], "bytes that are no message"),
        (field(1, field(5, b"\xff\xfe")), "bytes that are no message"),  # text that isn't UTF-8
        (field(2, bytes(1000)), "a message of 1003 bytes, at most 1000 are expected"),
    ],
)
def test_bytes_that_are_no_message_are_refused(data: bytes, words: str) -> None:
    with pytest.raises(Refusal, match=words):
        wire.parse_client_message(data, max_bytes=1000)


# Small parts that each become an object: parsed, a megabyte of them would take 30.
MANY_KEPT = field(1, field(8, b"") * 2**19)


@pytest.mark.parametrize(
    "data",
    [
        MANY_KEPT,
        field(2, b"") + MANY_KEPT,
        bytes.fromhex("1280808080808000") + MANY_KEPT,  # a length of too many bytes
        field(15, b"") + field(2, bytes(5000)),
        field(4, bytes(5000)),
    ],
)
def test_large_message_must_be_smashed_or_weights_alone(data: bytes) -> None:
    with pytest.raises(Refusal, match=f"of {len(data)} bytes that is not Smashed or Weights alone"):
        wire.parse_client_message(data, max_bytes=wire.MAX_MESSAGE_BYTES)


@pytest.mark.parametrize("num_rows", [1, 30, 300, 3000, 30_000])  # lengths of 2 to 4 bytes
def test_large_smashed_and_weights_are_read(num_rows: int) -> None:
    tensor = encode_tensor(values((num_rows, 40)), pb.FP32)
    weights = pb.Weights(step=1, online=tensor)
    for sent in (
        pb.ClientMessage(smashed=pb.Smashed(step=1, query=tensor, key=tensor)),
        pb.ClientMessage(weights=weights),
    ):
        data = sent.SerializeToString()
        assert wire.parse_client_message(data, max_bytes=len(data)) == sent
        with pytest.raises(Refusal, match="at most"):
            wire.parse_client_message(data, max_bytes=len(data) - 1)


def receive(data: bytes, dtype: int) -> list[np.ndarray]:
    """Do what a server does with a client's bytes; returns the tensors."""
    message = wire.parse_client_message(data, max_bytes=wire.MAX_MESSAGE_BYTES)
    if message.WhichOneof("content") == "smashed":
        tensors, shape = [message.smashed.query, message.smashed.key], ROWS
    elif message.WhichOneof("content") == "weights":
        tensors, shape = [message.weights.online, message.weights.momentum], (NUM_PARAMETERS,)
    else:
        return []
    return [decode_tensor(tensor, dtype=dtype, shape=shape, name="a tensor") for tensor in tensors]


@pytest.mark.timeout(60)
def test_ten_thousand_damaged_messages_are_each_read_whole_or_refused() -> None:
    outcomes: Counter[tuple[str, str]] = Counter()
    tracemalloc.start()
    try:
        for name, data in mutated_messages(10_000):
            sent_as = name.split(",")[0].split()[-1]
            dtype = wire.DTYPES.get(sent_as, pb.FP32)
            try:
                arrays = receive(data, dtype)
            except Refusal:
                outcome = "refused"
            except BaseException as error:
                pytest.fail(f"{name}: {error!r} from {data.hex()}")
            else:
                outcome = "read"
                for array in arrays:
                    assert array.shape in (ROWS, (NUM_PARAMETERS,)), name
                    assert array.dtype == (np.float64 if dtype == pb.FP64 else np.float32), name
                    assert np.isfinite(array).all(), name
            outcomes[name.split(", ")[1], outcome] += 1
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 2**20
    assert outcomes.total() == 10_000
    for mutation in MUTATIONS:  # each does harm; most let some messages pass, with other numbers
        assert outcomes[mutation, "refused"] > 100, mutation
    assert sum(outcomes[mutation, "read"] for mutation in MUTATIONS) > 1000


def without_json_names(file: FileDescriptorProto) -> FileDescriptorProto:
    """Take away what the compiler adds to a set of descriptors and leaves out of Python."""

    def strip(message: DescriptorProto) -> None:
        for part in message.field:
            part.ClearField("json_name")
        for nested in message.nested_type:
            strip(nested)

    for message in file.message_type:
        strip(message)
    return file


def test_generated_python_is_that_of_the_proto_file(tmp_path: Path) -> None:
    proto, compiled = "mocosfl/edge/federation.proto", tmp_path / "set"
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I.", f"--descriptor_set_out={compiled}"]
    subprocess.run([*command, proto], cwd=ROOT, check=True)

    (made,) = FileDescriptorSet.FromString(compiled.read_bytes()).file
    ours = FileDescriptorProto.FromString(pb.DESCRIPTOR.serialized_pb)
    assert without_json_names(made) == without_json_names(ours)
    method = made.service[0].method[0].name
    assert f"/{made.package}.{made.service[0].name}/{method}" == wire.METHOD


def test_digest_of_a_head_stays_what_it_was() -> None:
    head = np.arange(6, dtype=np.float32) / 7
    digest = "6b54b8e41082fe0c1cddb0d5c888964250f3eea075a895705d5d7ca0df7aacea"

    assert wire.head_digest(head) == digest
    assert wire.head_digest(head.astype(">f4")) == digest
    assert wire.head_digest(np.repeat(head, 2)[::2]) == digest
    assert wire.head_digest(head[::-1]) != digest
