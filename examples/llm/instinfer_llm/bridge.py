"""The C interface (instinfer_llm.h) as Python classes. Arrays are numpy's or torch's; neither is imported."""

import ctypes
import os
import pathlib
from dataclasses import dataclass

_HERE = pathlib.Path(__file__).resolve().parent
_NAME = "libinstinfer_llm.so"


class Error(RuntimeError):
    """What the library reports. The message says what, where, and what was expected."""


class BadArgument(Error, ValueError):
    pass


class UnknownSequence(Error, LookupError):
    pass


class DriveFull(Error):
    pass


class IOFailure(Error, OSError):
    pass


class OutOfMemory(Error, MemoryError):
    pass


_ERRORS = {1: BadArgument, 2: UnknownSequence, 3: DriveFull, 4: IOFailure, 5: OutOfMemory}


class _Layer(ctypes.Structure):
    _fields_ = [
        ("q_heads", ctypes.c_int32), ("kv_heads", ctypes.c_int32), ("head_dim", ctypes.c_int32),
        ("window", ctypes.c_uint32), ("scale", ctypes.c_float), ("soft_cap", ctypes.c_float),
        ("method", ctypes.c_char_p), ("budget", ctypes.c_double), ("settings", ctypes.c_char_p),
    ]


class _Config(ctypes.Structure):
    _fields_ = [
        ("layers", ctypes.c_int32), ("of_layer", ctypes.POINTER(_Layer)), ("storage", ctypes.c_char_p),
        ("context_tokens", ctypes.c_uint32), ("bytes", ctypes.c_uint64), ("rope_base", ctypes.c_double),
        ("threads", ctypes.c_int32), ("drive", ctypes.c_char_p),
    ]


class _Rows(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("token_stride", ctypes.c_int64), ("head_stride", ctypes.c_int64)]


class _Tokens(ctypes.Structure):
    _fields_ = [
        ("sequence", ctypes.c_uint32), ("tokens", ctypes.c_uint32), ("k", _Rows), ("v", _Rows), ("q", _Rows),
        ("out", ctypes.c_void_p),
    ]


class _Usage(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in (
        "attends", "timed_attends", "pages_read", "array_bytes", "wanted_bytes", "fast_bytes", "summary_bytes",
        "dense_bytes", "wall_ns", "processor_ns")] + [
        ("attend_ns", ctypes.c_double), ("attend_fast_ns", ctypes.c_double), ("written_bytes", ctypes.c_uint64), ("append_ns", ctypes.c_double)]


def _find():
    """The library: INSTINFER_LLM_LIBRARY, beside this file (pip install), or in the build folder of ./dev llm."""
    chosen = os.environ.get("INSTINFER_LLM_LIBRARY")
    if chosen:
        return chosen
    places = [_HERE / _NAME, _HERE.parents[2] / "build/release/examples/llm" / _NAME]
    for place in places:
        if place.exists():
            return str(place)
    raise ImportError(
        f"instinfer_llm: {_NAME} is in none of {', '.join(map(str, places))}; build it with ./dev llm or "
        "pip install ./examples/llm, or set INSTINFER_LLM_LIBRARY")


def _load():
    lib = ctypes.CDLL(_find())  # ctypes releases the GIL in every call
    handle, sequence = ctypes.c_void_p, ctypes.c_uint32
    signatures = {
        "create": [ctypes.POINTER(_Config), ctypes.POINTER(handle)],
        "open": [handle, ctypes.POINTER(sequence)],
        "fork": [handle, sequence, ctypes.POINTER(sequence)],
        "truncate": [handle, sequence, ctypes.c_uint64],
        "close": [handle, sequence],
        "length": [handle, sequence, ctypes.c_int32, ctypes.POINTER(ctypes.c_uint64)],
        "prefill": [handle, ctypes.c_int32, ctypes.c_int32, ctypes.c_size_t, ctypes.POINTER(_Tokens)],
        "decode": [handle, ctypes.c_int32, ctypes.c_int32, ctypes.c_size_t, ctypes.POINTER(_Tokens), ctypes.c_int32],
        "get_usage": [handle, ctypes.POINTER(_Usage)],
    }
    for name, arguments in signatures.items():
        function = getattr(lib, "instinfer_llm_" + name)
        function.argtypes, function.restype = arguments, ctypes.c_int
    for name in ("error", "methods", "formats", "target"):
        getattr(lib, "instinfer_llm_" + name).restype = ctypes.c_char_p
    for name in ("destroy", "reset_usage"):
        function = getattr(lib, "instinfer_llm_" + name)
        function.argtypes, function.restype = [handle], None
    return lib


_lib = _load()


def _check(code):
    if code:
        raise _ERRORS.get(code, Error)(_lib.instinfer_llm_error().decode())


def methods():
    """The names of all methods."""
    return _lib.instinfer_llm_methods().decode().split()


def formats():
    """What this build has, as "storage:head size"."""
    return _lib.instinfer_llm_formats().decode().split()


def target():
    """The SIMD target of the kernels."""
    return _lib.instinfer_llm_target().decode()


@dataclass(frozen=True)
class Layer:
    """One layer of a model; see instinfer_llm_layer in instinfer_llm.h."""

    q_heads: int
    kv_heads: int
    head_dim: int
    window: int = 0
    scale: float = 0.0
    soft_cap: float = 0.0
    method: str = "dense"
    budget: float = 1.0
    settings: str = ""


_TYPES = {"float32": 0, "float16": 1, "bfloat16": 2}
_types_seen = {}  # by the dtype itself: its name costs a microsecond


def _type_of(x):
    found = _types_seen.get(x.dtype)
    if found is None:
        name = str(x.dtype).removeprefix("torch.")
        if name not in _TYPES:
            raise BadArgument(f"rows must be float32, float16 or bfloat16, are {name}")
        found = _types_seen[x.dtype] = _TYPES[name]
    return found


def _rows(x, what, tokens, heads, dim):
    if x.shape != (tokens, heads, dim):
        raise BadArgument(f"{what} must be [{tokens}, {heads}, {dim}], is {list(x.shape)}")
    if hasattr(x, "data_ptr"):
        if x.device.type != "cpu":
            raise BadArgument(f"{what} must be in host memory, is on {x.device}")
        data, strides = x.data_ptr(), x.stride()
    else:
        data, strides = x.ctypes.data, [s // x.itemsize for s in x.strides]
    if dim > 1 and strides[2] != 1:
        raise BadArgument(f"{what}: the dims of a head must lie side by side, have stride {strides[2]}")
    return _Rows(data, strides[0], strides[1])


class Model:
    """The caches of one model. `layers`: a Layer for each; k, v, q, out: [tokens, heads, head_dim]."""

    def __init__(self, layers, storage="fp16", context_tokens=4096, bytes=1 << 30, rope_base=0.0, threads=1,
                 drive=None):
        self._handle = None
        self.layers = list(layers)
        packed = (_Layer * len(self.layers))(*[
            _Layer(l.q_heads, l.kv_heads, l.head_dim, l.window, l.scale, l.soft_cap, l.method.encode(), l.budget,
                   l.settings.encode()) for l in self.layers])
        config = _Config(len(self.layers), packed, storage.encode(), context_tokens, bytes, rope_base, threads,
                         str(drive).encode() if drive else None)
        handle = ctypes.c_void_p()
        _check(_lib.instinfer_llm_create(ctypes.byref(config), ctypes.byref(handle)))
        self._handle = handle

    def __del__(self):
        if getattr(self, "_handle", None):
            _lib.instinfer_llm_destroy(self._handle)
            self._handle = None

    def open(self):
        sequence = ctypes.c_uint32()
        _check(_lib.instinfer_llm_open(self._handle, ctypes.byref(sequence)))
        return sequence.value

    def fork(self, sequence):
        copy = ctypes.c_uint32()
        _check(_lib.instinfer_llm_fork(self._handle, sequence, ctypes.byref(copy)))
        return copy.value

    def truncate(self, sequence, tokens):
        _check(_lib.instinfer_llm_truncate(self._handle, sequence, tokens))

    def close(self, sequence):
        _check(_lib.instinfer_llm_close(self._handle, sequence))

    def length(self, sequence, layer=0):
        tokens = ctypes.c_uint64()
        _check(_lib.instinfer_llm_length(self._handle, sequence, layer, ctypes.byref(tokens)))
        return tokens.value

    def _batch(self, layer, rows):
        if not 0 <= layer < len(self.layers):
            raise BadArgument(f"layer must be in [0, {len(self.layers)}), got {layer}")
        shape = self.layers[layer]
        packed = (_Tokens * len(rows))()
        kinds = set()
        for to, (sequence, k, v, q, out) in zip(packed, rows):
            n = k.shape[0]
            to.sequence, to.tokens = sequence, n
            to.k = _rows(k, "k", n, shape.kv_heads, shape.head_dim)
            to.v = _rows(v, "v", n, shape.kv_heads, shape.head_dim)
            kinds.update((_type_of(k), _type_of(v)))
            if q is not None:
                to.q = _rows(q, "q", n, shape.q_heads, shape.head_dim)
                kinds.add(_type_of(q))
            if out is not None:
                of_out = _rows(out, "out", n, shape.q_heads, shape.head_dim)
                whole = shape.q_heads * shape.head_dim
                if _type_of(out) != 0 or n > 0 and (
                        of_out.head_stride, of_out.token_stride) != (shape.head_dim, whole):
                    raise BadArgument("out must be float32 without gaps")
                to.out = of_out.data
        if len(kinds) > 1:
            raise BadArgument("k, v and q of a call must have one element type")
        return packed, kinds.pop() if kinds else 0

    def prefill(self, layer, rows):
        """Parts of prompts: rows of (sequence, k, v, q or None, out or None)."""
        packed, kind = self._batch(layer, rows)
        _check(_lib.instinfer_llm_prefill(self._handle, layer, kind, len(rows), packed))

    def decode(self, layer, rows, timed=False):
        """New tokens: rows of (sequence, k, v, q, out). `out` is filled, one token after the other."""
        packed, kind = self._batch(layer, rows)
        _check(_lib.instinfer_llm_decode(self._handle, layer, kind, len(rows), packed, int(timed)))

    def usage(self):
        """Counts since the model was made, by the names of instinfer_llm_usage."""
        counts = _Usage()
        _check(_lib.instinfer_llm_get_usage(self._handle, ctypes.byref(counts)))
        return {name: getattr(counts, name) for name, _ in _Usage._fields_}

    def reset_usage(self):
        _lib.instinfer_llm_reset_usage(self._handle)
