"""PyTorch checkpoints as NumPy arrays: without PyTorch, and without running what they hold.

What `torch.save` writes is a pickle, and a pickle is a program that may do anything. Here no pickle
is ever executed: its instructions are read one after another, only those that put together
numbers, text, containers and tensors are understood, and the few functions they may name are the
ones in this file. (An `Unpickler` with a restricted `find_class` is not enough: deeply nested
tuples used as a key overflow the C stack of CPython and end the process.)

Formats: torch 1.6 and later (a zip archive), torch 1.5 and earlier (a stream of pickles followed by
the numbers; torch.serialization, `_legacy_save`), and safetensors.
"""

from __future__ import annotations

import dataclasses
import io
import math
import mmap
import pickletools
import re
import struct
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Literal, TypeGuard, TypeVar

import numpy as np
import safetensors

from trainer.errors import UserError

T = TypeVar("T")

# First pickle of the old format and the protocol in the second (torch.serialization).
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001

# Ours: a tensor takes about 40 instructions, so this is enough for 26,000 of them.
_MOST_INSTRUCTIONS = 2**20

# Storage class -> dtype in the file, dtype of the array. NumPy has no bfloat16: widening is exact.
_STORAGES = {
    "torch.DoubleStorage": ("f8", "f8"),
    "torch.FloatStorage": ("f4", "f4"),
    "torch.HalfStorage": ("f2", "f2"),
    "torch.BFloat16Storage": ("u2", "f4"),
    "torch.LongStorage": ("i8", "i8"),
    "torch.IntStorage": ("i4", "i4"),
    "torch.ShortStorage": ("i2", "i2"),
    "torch.CharStorage": ("i1", "i1"),
    "torch.ByteStorage": ("u1", "u1"),
    "torch.BoolStorage": ("u1", "?"),
    "torch.ComplexFloatStorage": ("c8", "c8"),
    "torch.ComplexDoubleStorage": ("c16", "c16"),
}

_TORCH_DTYPES = frozenset(
    f"torch.{name}"
    for name in (
        *("float64", "float32", "float16", "bfloat16", "complex64", "complex128"),
        *("int64", "int32", "int16", "int8", "uint8", "bool"),
    )
)

_MOST_AXES = 64  # NumPy's limit, and PyTorch's


def read_torch_checkpoint(path: str | Path) -> dict[str, Any]:
    """Reads a checkpoint saved by PyTorch or safetensors; tensors become NumPy arrays.

    float16, float32, float64, complex, integer and bool tensors keep their dtype, bfloat16 becomes
    float32. Tensors that shared memory in PyTorch share it here. dtypes become text, sizes tuples.

    Raises:
        UserError: the file is missing, damaged, no checkpoint, or holds more than plain data.
    """
    file = Path(path)
    try:
        with open(file, "rb") as opened:
            head = opened.read(9)
        if head[8:9] == b"{":
            checkpoint: Any = _read_safetensors(file)
        elif head.startswith(b"PK"):
            checkpoint = _read_archive(file)
        elif head.startswith(b"\x80"):
            checkpoint = _read_legacy(file)
        else:
            raise _RefusedError("it begins like none of them")
    except _RefusedError as error:
        raise _not_loaded(file, str(error)) from error
    except OSError as error:
        raise _not_loaded(file, f"it cannot be read ({error.strerror or error})") from error
    except _DAMAGE as error:
        raise _not_loaded(file, f"it is damaged or incomplete ({_first_line(error)})") from error
    if not isinstance(checkpoint, dict):
        raise _not_loaded(file, f"it holds a {type(checkpoint).__name__} instead of a dict")
    return checkpoint


def state_dict(
    checkpoint: Mapping[str, Any],
    names: Sequence[str] = ("model_state", "state_dict", "model"),
) -> dict[str, np.ndarray]:
    """The weights in a checkpoint: parameter name -> array, as PyTorch's `state_dict()` names them.

    They are the checkpoint itself or stand under one of `names` (pycls writes `model_state`). The
    prefix `module.` that data-parallel training puts before every name is removed.

    Raises:
        UserError: there is no mapping from names to arrays in these places.
    """
    for candidate in (checkpoint, *(checkpoint.get(name) for name in names)):
        if _is_state(candidate):
            if all(name.startswith("module.") for name in candidate):
                return {name.removeprefix("module."): a for name, a in candidate.items()}
            return dict(candidate)
    found = ", ".join(f"{_shown(key)} ({type(v).__name__})" for key, v in checkpoint.items())
    raise UserError(
        "A checkpoint must hold its weights as a mapping from names to arrays, at the top or under "
        f"{', '.join(names)}; found {_shortened(found) or 'nothing'}. "
        "Save model.state_dict() instead."
    )


class _RefusedError(Exception):
    """What the file asks for is not done; the message says what it was."""


# What zipfile, pickletools, NumPy and the reading below raise on bytes that are not as they should.
_DAMAGE = (
    zipfile.BadZipFile,
    struct.error,
    EOFError,
    LookupError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
    TypeError,
    ValueError,
)


@dataclasses.dataclass(frozen=True)
class _Storage:
    """A flat run of numbers that tensors are views of, and the dtype it has in the file."""

    array: np.ndarray
    stored: np.dtype[Any]


class _Storages:
    """The storages a pickle names: allocated when named, filled when their bytes are read."""

    def __init__(self, file_size: int):
        self._unclaimed = file_size
        self._named: dict[str, _Storage] = {}
        self._filled: set[str] = set()

    def name(self, identity: Any) -> _Storage:
        """The storage of a persistent id `("storage", class, key, device, length, view)`."""
        match identity:
            case ("storage", _Global(kind), str(key), _, int(length), *view) if (
                kind in _STORAGES and length >= 0 and view in ([], [None])
            ):
                stored, returned = (np.dtype(t) for t in _STORAGES[kind])
            case _:
                raise _RefusedError(
                    f"it refers to {_shown(identity)} instead of a storage of numbers"
                )
        if key not in self._named:
            self._unclaimed -= length * stored.itemsize
            if self._unclaimed < 0:  # before allocating: the length is only a claim
                raise _RefusedError("its tensors are declared larger than the whole file")
            self._named[key] = _Storage(np.zeros(length, returned), stored)
        storage = self._named[key]
        if (len(storage.array), storage.stored, storage.array.dtype) != (length, stored, returned):
            raise _RefusedError(
                f"storage {_shown(key)} is declared twice with different types or sizes"
            )
        return storage

    def size(self, key: str) -> tuple[int, int]:
        """Length of a storage and bytes per number in the file."""
        return len(self._named[key].array), self._named[key].stored.itemsize

    def fill(self, key: str, data: bytes, byte_order: Literal["<", ">"]) -> None:
        """Puts the bytes of the file into a storage."""
        storage = self._named[key]
        if len(data) != math.prod(self.size(key)):
            raise _RefusedError(f"storage {_shown(key)} has {len(data):,} bytes, not as declared")
        numbers = np.frombuffer(data, storage.stored.newbyteorder(byte_order))
        if storage.stored.kind == "u" and storage.array.dtype.kind == "f":
            numbers = _widened(numbers)
        storage.array[:] = numbers
        self._filled.add(key)

    def unfilled(self) -> list[str]:
        """Keys of the storages whose bytes are still to be read."""
        return [key for key in self._named if key not in self._filled]


def _read_archive(file: Path) -> Any:
    size = file.stat().st_size
    storages = _Storages(size)
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        roots = [n.removesuffix("data.pkl") for n in names if n.endswith("/data.pkl")]
        if len(roots) != 1:
            raise _RefusedError("it is a zip archive without the one data.pkl of a checkpoint")

        def record(name: str) -> bytes:
            entry = archive.getinfo(roots[0] + name)
            # torch.save never compresses; so nothing unfolds into more than the file holds.
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > size:
                raise _RefusedError(
                    f"record {_shown(name)} is compressed or larger than the whole file"
                )
            return archive.read(entry)

        order = record("byteorder") if f"{roots[0]}byteorder" in names else b"little"
        if order not in (b"little", b"big"):
            raise _RefusedError(f"its byte order is {_shown(order)}")
        value = _unpickle(io.BytesIO(record("data.pkl")), storages)
        for key in storages.unfilled():
            storages.fill(key, record(f"data/{key}"), "<" if order == b"little" else ">")
    return value


def _read_legacy(file: Path) -> Any:
    storages = _Storages(file.stat().st_size)
    with (
        open(file, "rb") as opened,
        mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as stream,
    ):
        if _unpickle(stream, storages) != _LEGACY_MAGIC:
            raise _RefusedError("it is a pickle of something else")
        if _unpickle(stream, storages) != _LEGACY_PROTOCOL:
            raise _RefusedError("it is of a later edition of the old format than there is")
        _unpickle(stream, storages)  # sizes of the writer's C types, on which nothing depends
        value = _unpickle(stream, storages)
        for key in _unpickle(stream, storages):
            length, itemsize = storages.size(key)
            # Always little-endian, whatever machine wrote it (THPStorage_writeFileRaw).
            (written,) = struct.unpack("<q", stream.read(8))
            if written != length:
                raise _RefusedError(
                    f"storage {_shown(key)} has length {written:,}, not as declared"
                )
            storages.fill(key, stream.read(length * itemsize), "<")
    if storages.unfilled():
        raise _RefusedError(f"the numbers of storage {_shown(storages.unfilled()[0])} are missing")
    return value


# dtype of a safetensors file -> dtype in the file, dtype of the array.
_SAFETENSORS = {
    "F64": ("f8", "f8"),
    "F32": ("f4", "f4"),
    "F16": ("f2", "f2"),
    "BF16": ("u2", "f4"),
    "I64": ("i8", "i8"),
    "I32": ("i4", "i4"),
    "I16": ("i2", "i2"),
    "I8": ("i1", "i1"),
    "U64": ("u8", "u8"),
    "U32": ("u4", "u4"),
    "U16": ("u2", "u2"),
    "U8": ("u1", "u1"),
    "BOOL": ("u1", "?"),
    "C64": ("c8", "c8"),
}


_deserialize: Callable[[bytes], list[tuple[str, dict[str, Any]]]] = safetensors.deserialize


def _read_safetensors(file: Path) -> dict[str, np.ndarray]:
    try:
        tensors = _deserialize(file.read_bytes())
    except safetensors.SafetensorError as error:
        raise ValueError(str(error)) from error
    state = {}
    for name, tensor in tensors:
        if tensor["dtype"] not in _SAFETENSORS:
            raise _RefusedError(f"tensor {_shown(name)} has dtype {tensor['dtype']}")
        stored, returned = (np.dtype(code) for code in _SAFETENSORS[tensor["dtype"]])
        numbers = np.frombuffer(tensor["data"], stored.newbyteorder("<"))
        if tensor["dtype"] == "BF16":
            numbers = _widened(numbers)
        state[name] = numbers.astype(returned).reshape(tensor["shape"])
    return state


def _widened(bfloat16: np.ndarray) -> np.ndarray:
    """float32 numbers from the uint16 bits of bfloat16, which are the upper half of a float32."""
    return (bfloat16.astype(np.uint32) << 16).view(np.float32)


def _unpickle(stream: IO[bytes] | mmap.mmap, storages: _Storages) -> Any:
    """Reads one pickle, up to its STOP instruction."""
    machine = _Machine(storages)
    instructions = pickletools.genops(stream)  # type: ignore[arg-type] # an mmap reads like a file
    for number, (opcode, argument, _) in enumerate(instructions):
        if number >= _MOST_INSTRUCTIONS:
            raise _RefusedError("its description of the tensors is longer than any checkpoint's")
        machine.step(opcode.name, argument)
    return machine.result()


class _Machine:
    """The part of the pickle machine that data needs: it calls nothing but `_CONSTRUCTORS`."""

    def __init__(self, storages: _Storages):
        self._storages = storages
        self._stack: list[Any] = []
        self._outer: list[list[Any]] = []  # the stacks below each MARK
        self._memo: dict[int, Any] = {}

    def result(self) -> Any:
        """What the pickle put together."""
        return self._stack.pop()

    def step(self, opcode: str, argument: Any) -> None:
        """Carries out one instruction."""
        stack = self._stack
        match opcode:
            case "PROTO" | "FRAME" | "STOP":
                pass
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(opcode == "NEWTRUE")
            case "INT" | "BININT" | "BININT1" | "BININT2" | "LONG" | "LONG1" | "LONG4":
                if argument.bit_length() > 128:  # ours: none is longer than the magic number, 80
                    raise _RefusedError("it holds an integer of more than 128 bits")
                stack.append(argument)
            case (
                ("FLOAT" | "BINFLOAT")
                | ("STRING" | "BINSTRING" | "SHORT_BINSTRING")
                | ("UNICODE" | "BINUNICODE" | "SHORT_BINUNICODE" | "BINUNICODE8")
                | ("BINBYTES" | "SHORT_BINBYTES" | "BINBYTES8")
            ):
                stack.append(argument)
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_TUPLE":
                stack.append(())
            case "MARK":
                self._outer.append(stack)
                self._stack = []
            case "DICT":
                self._push(_dictionary(_pairs(self._to_mark())))
            case "LIST":
                self._push(self._to_mark())
            case "TUPLE":
                self._push(tuple(self._to_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                items = [stack.pop() for _ in range(int(opcode[-1]))]
                stack.append(tuple(reversed(items)))
            case "APPEND":
                item = stack.pop()
                _of_type(stack[-1], list).append(item)
            case "APPENDS":
                items = self._to_mark()
                _of_type(self._stack[-1], list).extend(items)
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                _of_type(stack[-1], dict).update(_dictionary([(key, value)]))
            case "SETITEMS":
                items = self._to_mark()
                _of_type(self._stack[-1], dict).update(_dictionary(_pairs(items)))
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self._memo[argument] = stack[-1]
            case "MEMOIZE":
                self._memo[len(self._memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(self._memo[argument])
            case "GLOBAL":
                stack.append(_named(argument.replace(" ", ".")))
            case "STACK_GLOBAL":
                name, module = _of_type(stack.pop(), str), _of_type(stack.pop(), str)
                stack.append(_named(f"{module}.{name}"))
            case "BINPERSID":
                stack.append(self._storages.name(stack.pop()))
            case "REDUCE":
                arguments = _of_type(stack.pop(), tuple)
                stack.append(_construct(stack.pop(), arguments))
            case "BUILD":
                _check_attributes(stack.pop(), stack[-1])
            case _:
                raise _RefusedError(
                    f"it uses the pickle instruction {opcode}, which data does not need"
                )

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _to_mark(self) -> list[Any]:
        """What was pushed since the last MARK."""
        items = self._stack
        self._stack = self._outer.pop()
        return items


@dataclasses.dataclass(frozen=True)
class _Global:
    """A function or class that a pickle names; only its name is kept."""

    name: str


def _named(name: str) -> _Global | str:
    """What stands for a global of the pickle; a torch dtype is its name."""
    if name in _CONSTRUCTORS or name in _STORAGES:
        return _Global(name)
    if name in _TORCH_DTYPES:
        return name
    raise _RefusedError(f"it names {_shown(name)}, which is not part of plain data")


def _construct(named: Any, arguments: tuple[Any, ...]) -> Any:
    if not isinstance(named, _Global) or named.name not in _CONSTRUCTORS:
        raise _RefusedError(f"it calls a {type(named).__name__}, which cannot be called")
    return _CONSTRUCTORS[named.name](*arguments)


def _check_attributes(attributes: Any, target: Any) -> None:
    """Lets pass the attributes that torch and NumPy give to dicts and dtypes, but needs none."""
    if isinstance(target, np.dtype):
        if attributes[1] == ">":
            raise _RefusedError("it holds big-endian NumPy numbers")
    elif not isinstance(target, dict):
        raise _RefusedError(f"it sets attributes of a {type(target).__name__}")


def _pairs(items: list[Any]) -> list[tuple[Any, Any]]:
    return list(zip(items[::2], items[1::2], strict=True))


def _dictionary(pairs: Iterable[Sequence[Any]] = ()) -> dict[Any, Any]:
    """A dict with names or numbers as keys: hashing anything deeper could overflow the C stack."""
    return {_of_type(key, str, int): value for key, value in pairs}


def _tensor(
    storage: Any, offset: Any, size: Any, stride: Any, *_gradient_and_hooks: Any
) -> np.ndarray:
    """A view of a storage that begins at number `offset` and steps by `stride` numbers."""
    array = _of_type(storage, _Storage).array
    size, stride = _of_type(size, tuple), _of_type(stride, tuple)
    if len(size) != len(stride) or len(size) > _MOST_AXES:
        raise _RefusedError(f"a tensor has {len(size)} sizes and {len(stride)} strides")
    if any(_of_type(number, int) < 0 for number in (offset, *size, *stride)):
        raise _RefusedError("a tensor has a negative size, stride or offset")
    count = math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if count and last >= len(array):
        raise _RefusedError(
            f"a tensor reaches to number {last + 1:,} of a storage of {len(array):,}"
        )
    if count > len(array):  # also bounds what a later copy of the tensor takes
        raise _RefusedError("a tensor repeats numbers; save it contiguous")
    if not count:
        return np.empty(size, array.dtype)
    # The stride of an axis of length 1 means nothing and may be anything.
    steps = [step * array.itemsize if n > 1 else 0 for n, step in zip(size, stride, strict=True)]
    return np.ndarray(size, array.dtype, array, offset * array.itemsize, steps)


def _parameter(tensor: Any, *_gradient_and_hooks: Any) -> np.ndarray:
    return _of_type(tensor, np.ndarray)


def _latin1(text: Any, encoding: Any) -> bytes:
    """Bytes as Python 3 writes them in protocol 2."""
    if encoding != "latin1":
        raise _RefusedError(f"it encodes text as {_shown(encoding)}")
    return _of_type(text, str).encode("latin-1")


def _numpy_dtype(code: Any, *_align_and_copy: Any) -> np.dtype[Any]:
    if not re.fullmatch(r"[biufc]\d{1,2}", _of_type(code, str)):
        raise _RefusedError(f"it holds NumPy numbers of type {_shown(code)}")
    dtype: np.dtype[Any] = np.dtype(code)
    return dtype.newbyteorder("<")


def _numpy_number(dtype: Any, data: Any) -> Any:
    if isinstance(data, str):  # Python 2's bytes
        data = data.encode("latin-1")
    return np.frombuffer(_of_type(data, bytes), _of_type(dtype, np.dtype)).reshape(())[()]


_CONSTRUCTORS: Mapping[str, Callable[..., Any]] = {
    "collections.OrderedDict": _dictionary,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.Size": lambda sizes: tuple(_of_type(sizes, list, tuple)),
    "_codecs.encode": _latin1,
    "numpy.dtype": _numpy_dtype,
    "numpy.core.multiarray.scalar": _numpy_number,
    "numpy._core.multiarray.scalar": _numpy_number,
}


def _of_type(value: Any, *kinds: type[T]) -> T:
    """The value, if it is what its place in the pickle asks for."""
    if not isinstance(value, kinds):
        raise _RefusedError(f"it has a {type(value).__name__} where another type must stand")
    return value


def _is_state(candidate: Any) -> TypeGuard[Mapping[str, np.ndarray]]:
    return (
        isinstance(candidate, Mapping)
        and bool(candidate)
        and all(isinstance(k, str) and isinstance(v, np.ndarray) for k, v in candidate.items())
    )


def _not_loaded(file: Path, reason: str) -> UserError:
    return UserError(
        "Weights must be a checkpoint of plain tensors, saved by torch.save or as .safetensors; "
        f"{str(file)!r} was not loaded: {reason}. Save model.state_dict() alone."
    )


def _shown(value: Any) -> str:
    """A name from the file, short enough for a message; of anything else only the type."""
    return (
        _shortened(repr(value)) if isinstance(value, str | bytes) else f"a {type(value).__name__}"
    )


def _shortened(text: str, longest: int = 300) -> str:
    return text if len(text) <= longest else f"{text[:longest]}…"


def _first_line(error: BaseException) -> str:
    return _shortened(str(error).partition("\n")[0]) or type(error).__name__
