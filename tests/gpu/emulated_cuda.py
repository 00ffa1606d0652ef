"""CUDA devices that compute on the CPU: every tensor on "cuda" is a wrapper around a tensor on the CPU.

Real numbers, and the rules of real devices: tensors of different devices do not mix, a device draws from a generator of
its own, waits of the host are counted (or refused), graphs record and replay, NCCL takes no tensors of the CPU. Nothing
is known of time, memory, TensorFloat-32, and what cuBLAS, cuDNN and NCCL do. `install()` comes before `pipeline`, in a
process that has preloaded ``cuda_runtime.c``.
"""

import contextlib
import os
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
import torch.cuda.random
from torch import Tensor, distributed
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
COUNT = int(os.environ.get("EMULATED_GPUS", "1"))
GENERATORS = tuple(torch.Generator().manual_seed(7 * index + 1) for index in range(COUNT))

WAITING = {
    aten._local_scalar_dense.default,
    aten.nonzero.default,
    aten.equal.default,
    aten.masked_select.default,
    aten._unique2.default,
    aten.unique_dim.default,
    aten.item.default,
    aten.is_nonzero.default,
    aten.bincount.default,
}
"""Operations whose result the host needs."""
MIXING = {
    aten._to_copy.default,
    aten.copy_.default,
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
    aten.set_.source_Tensor,
}
"""Operations on tensors of several devices."""
RANDOM = ("bernoulli", "native_dropout", "rand", "normal_", "uniform_", "random_", "exponential_", "_fused_dropout")
VIEWS = ("view", "reshape", "expand", "transpose", "unsqueeze", "squeeze", "select", "slice", "permute", "detach")
VIEWS += ("alias", "t.default", "split", "unbind", "_unsafe_view", "as_strided", "movedim", "diagonal", "mT")


@dataclass
class Seen:
    """What the devices were asked to do since `clear`, and how they are set.

    waits: how often the host waited, by what for and where. launches: operations that launch kernels.
    """

    waits: Counter = field(default_factory=Counter)
    launches: Counter = field(default_factory=Counter)
    current: int = 0
    sync_mode: str | int = "default"
    warned: bool = False
    capture: "Graph | None" = None
    float64: bool = True  # Apple's GPUs have none

    def clear(self) -> None:
        self.waits.clear()
        self.launches.clear()

    @property
    def kernels(self) -> int:
        return sum(count for name, count in self.launches.items() if not any(f"aten.{view}" in name for view in VIEWS))


seen = Seen()


def where() -> str:
    """The last three calls in our package."""
    found, frame = [], sys._getframe()
    while frame is not None and len(found) < 3:
        _, inside, module = frame.f_code.co_filename.rpartition("/pipeline/")
        if inside:
            found.append(f"{module}:{frame.f_lineno}")
        frame = frame.f_back
    return " < ".join(found)


def leaves(value: Any) -> Iterator[Any]:
    """What lies in lists, tuples and dicts."""
    if isinstance(value, list | tuple | dict):
        for each in value.values() if isinstance(value, dict) else value:
            yield from leaves(each)
    else:
        yield value


def mapped(function: Callable[[Any], Any], value: Any) -> Any:
    """The same lists, tuples and dicts of other things."""
    if isinstance(value, dict):
        return {key: mapped(function, each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        found = [mapped(function, each) for each in value]
        return found if isinstance(value, list) else tuple(found)
    return function(value)


def on_gpu(device: Any) -> bool:
    return device is not None and torch.device(device).type == "cuda"


def numbered(device: Any) -> torch.device:
    """With the number of the current device, if it has none."""
    device = torch.device(device)
    return torch.device("cuda", seen.current) if device.type == "cuda" and device.index is None else device


class OnGpu(Tensor):
    """A tensor of a device; `values` are on the CPU."""

    @staticmethod
    def __new__(cls, values: Tensor, device: torch.device) -> "OnGpu":
        made = Tensor._make_wrapper_subclass(
            cls,
            values.size(),
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            layout=values.layout,
            requires_grad=False,
            device=device,
        )
        made.values_on_cpu = values
        return made

    def __repr__(self) -> str:
        return f"OnGpu({self.values_on_cpu}, {self.device})"

    def __reduce_ex__(self, protocol: int) -> Any:
        return self.values_on_cpu.detach().__reduce_ex__(protocol)

    def __deepcopy__(self, memo: dict) -> "OnGpu":
        return OnGpu(self.values_on_cpu.detach().clone(), self.device).requires_grad_(self.requires_grad)

    def __tensor_flatten__(self) -> tuple[list[str], torch.device]:
        return ["values_on_cpu"], self.device

    @staticmethod
    def __tensor_unflatten__(inner: dict, device: torch.device, size: Any, stride: Any) -> "OnGpu":
        return OnGpu(inner["values_on_cpu"], device)

    @classmethod
    def __torch_dispatch__(cls, operation: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return run(operation, args, kwargs or {})


def waited(what: str) -> None:
    seen.waits[f"{what} @ {where()}"] += 1
    if seen.sync_mode in ("error", 2):
        raise RuntimeError(f"called a synchronizing CUDA operation ({what})")
    if seen.capture is not None:
        seen.capture.broken = True
        raise torch.AcceleratorError(f"CUDA error: operation not permitted when stream is capturing ({what})")


def run(operation: Any, args: tuple, kwargs: dict) -> Any:
    """An operation on tensors of which some are of a device, or with a result there."""
    tensors = [leaf for leaf in leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    own = [tensor for tensor in tensors if isinstance(tensor, OnGpu)]
    target, name = kwargs.get("device"), str(operation)
    if not own and not on_gpu(target):
        return operation(*args, **kwargs)
    seen.launches[name] += 1
    _refuse_what_devices_refuse(operation, name, args, kwargs, tensors, own)
    _count_waits(operation, args, kwargs, own)
    values, options = mapped(lambda leaf: leaf.values_on_cpu if isinstance(leaf, OnGpu) else leaf, (args, kwargs))
    device = numbered(target) if on_gpu(target) else own[0].device if own else None
    to_host = (target is not None and not on_gpu(target)) or (
        operation is aten.copy_.default and not isinstance(args[0], OnGpu)
    )
    if target is not None:
        options = options | {"device": torch.device("cpu")}
        if on_gpu(target):
            options.pop("pin_memory", None)
    found = _computed(operation, values, options, args, kwargs, own, device)
    if operation is aten._local_scalar_dense.default:
        return found
    known = {id(tensor.values_on_cpu): tensor for tensor in own} | {id(tensor): tensor for tensor in tensors}
    first = args[0] if args else None
    is_view = operation is aten.detach.default or operation.is_view
    outside = is_view and torch.is_inference_mode_enabled() and isinstance(first, OnGpu) and not first.is_inference()

    def wrapped(leaf: Any) -> Any:
        if type(leaf) is not Tensor and not isinstance(leaf, torch.nn.Parameter):
            return leaf
        if id(leaf) in known or to_host:
            return known.get(id(leaf), leaf)
        with torch.inference_mode(False) if outside else contextlib.nullcontext():
            return OnGpu(leaf, device)

    return mapped(wrapped, found)


def _refuse_what_devices_refuse(
    operation: Any, name: str, args: tuple, kwargs: dict, tensors: list[Tensor], own: list[Tensor]
) -> None:
    target, wanted = kwargs.get("device"), kwargs.get("dtype")
    on_cpu = [tensor for tensor in tensors if not isinstance(tensor, OnGpu) and tensor.dim() > 0]
    devices = {str(tensor.device) for tensor in own} | {"cpu" for _ in on_cpu if own}
    shared = name.startswith(("c10d.", "aten._foreach", "aten._fused"))
    if len(devices) > 1 and operation not in MIXING and not (shared and "cpu" in devices):
        raise RuntimeError(f"Expected all tensors to be on the same device, but found {devices} ({name}) @ {where()}")
    if not seen.float64:
        stays = on_gpu(target) or (own and target is None)
        given = operation is aten._to_copy.default and on_gpu(target) and args[0].dtype is torch.float64
        if (wanted is torch.float64 and stays) or (given and wanted in (None, torch.float64)):
            raise TypeError(f"Cannot convert a MPS Tensor to float64 dtype as the framework has none @ {where()}")


def _count_waits(operation: Any, args: tuple, kwargs: dict, own: list[Tensor]) -> None:
    if operation in WAITING and own:
        waited(str(operation))
    elif operation is aten.index.Tensor:
        indices = [index for index in args[1] or [] if isinstance(index, Tensor)]
        if any(index.dtype in (torch.bool, torch.uint8) for index in indices):
            waited("index by a mask")
        elif own and any(not isinstance(index, OnGpu) for index in indices):
            waited("index from the host")
    elif operation is aten._to_copy.default:
        here, target = isinstance(args[0], OnGpu), kwargs.get("device")
        if target is not None and here != on_gpu(target) and not kwargs.get("non_blocking"):
            waited("copy to the host" if here else "copy to the device")
    elif operation is aten.copy_.default and isinstance(args[0], OnGpu) != isinstance(args[1], OnGpu) and len(args) < 3:
        waited("copy_ between host and device")


def _computed(
    operation: Any,
    values: tuple,
    options: dict,
    args: tuple,
    kwargs: dict,
    own: list[Tensor],
    device: torch.device | None,
) -> Any:
    call = operation
    if operation is aten._to_copy.default and "device" in options:

        def call(first: Tensor, **options: Any) -> Tensor:  # a copy, though CPU to CPU needs none
            found = operation(first, **options)
            return found.clone() if found is first else found

    if seen.capture is not None and own:
        return seen.capture.record(operation, call, values, options)
    if device is not None and operation._schema.name.split("::")[1].startswith(RANDOM):
        with _generator_of(device.index):
            return call(*values, **options)
    return call(*values, **options)


@contextlib.contextmanager
def _generator_of(index: int) -> Iterator[None]:
    host = torch._C.default_generator
    before = host.get_state()
    host.set_state(GENERATORS[index].get_state())
    try:
        yield
    finally:
        GENERATORS[index].set_state(host.get_state())
        host.set_state(before)


class Dispatch(TorchDispatchMode):
    """Every operation comes by here; in inference mode also those that are made of others."""

    composite: dict = {}  # noqa: RUF012

    def __torch_dispatch__(self, operation: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if not any(kind is OnGpu for kind in types) and not on_gpu(kwargs.get("device")):
            return operation(*args, **kwargs)
        if operation not in self.composite:
            made_of_others = isinstance(operation, torch._ops.OpOverload) and operation is not aten.is_nonzero.default
            key = "CompositeImplicitAutograd"
            self.composite[operation] = made_of_others and torch._C._dispatch_has_kernel_for_dispatch_key(
                operation.name(), key
            )
        if self.composite[operation]:
            with self:
                found = operation.decompose(*args, **kwargs)
            if found is not NotImplemented:
                return found
        return run(operation, args, kwargs)


class Functions(TorchFunctionMode):
    """What would ask the driver is answered before it does: "cuda" is "cuda:<current>", and data come from the host."""

    def __torch_function__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs, name = kwargs or {}, getattr(function, "__name__", "")
        first = args[0] if args else None
        here = isinstance(first, OnGpu)
        if function is Tensor.cuda:
            device = args[1] if len(args) > 1 else kwargs.get("device")
            return first.to(torch.device("cuda", device) if isinstance(device, int) else numbered(device or "cuda"))
        if function is Tensor.is_cuda.__get__:
            return first.device.type == "cuda"
        if here and function is Tensor.tolist:
            return first.cpu().tolist()
        if here and function in (Tensor.numpy, Tensor.__array__):
            raise TypeError(f"can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first. @ {where()}")
        if here and function is Tensor.data_ptr:
            return first.values_on_cpu.data_ptr()
        if function is torch.device or name in ("save", "load", "fork_rng"):
            return function(*args, **kwargs)
        new = name == "new_tensor" and here and "device" not in kwargs
        if name in ("tensor", "as_tensor", "asarray", "new_tensor", "scalar_tensor") and (
            new or on_gpu(kwargs.get("device"))
        ):
            rest = {key: value for key, value in kwargs.items() if key != "device"}
            made = torch.tensor(*args[1:], **rest) if name == "new_tensor" else function(*args, **rest)
            return made.to(numbered(kwargs.get("device") or first.device))
        if here and name in ("__getitem__", "__setitem__"):
            args = (first, _as_index(args[1]), *args[2:])
        fixed = tuple(_numbered_if_device(each) for each in args)
        return function(*fixed, **{key: _numbered_if_device(value) for key, value in kwargs.items()})


def _as_index(index: Any) -> Any:
    if isinstance(index, list):
        return torch.tensor(index, dtype=None if index else torch.long)
    if isinstance(index, tuple):
        return tuple(torch.tensor(each) if isinstance(each, list) else each for each in index)
    return index


def _numbered_if_device(value: Any) -> Any:
    text = isinstance(value, str) and (value == "cuda" or value.startswith("cuda:"))
    return numbered(value) if text or (isinstance(value, torch.device) and value.type == "cuda") else value


class Graph:
    """Records what is launched, and replays it on the same memory."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.tape: list[Callable[[], Any]] = []
        self.broken = False

    def record(self, operation: Any, call: Callable, args: tuple, kwargs: dict) -> Any:
        if operation.is_view:  # launches nothing
            return call(*args, **kwargs)
        schema = operation._schema
        if schema.is_mutable:
            self.tape.append(lambda: call(*args, **kwargs))
            written = next(i for i, it in enumerate(schema.arguments) if it.alias_info and it.alias_info.is_write)
            name = schema.arguments[written].name
            return kwargs[name] if name in kwargs else args[written]
        found = call(*args, **kwargs)

        def again() -> None:
            for old, new in zip(leaves(found), leaves(call(*args, **kwargs)), strict=True):
                old.copy_(new)

        self.tape.append(again)
        return found

    def replay(self) -> None:
        for launch in self.tape:
            launch()


class Capture:
    """`torch.cuda.graph`."""

    def __init__(self, graph: Graph, *_: Any, **__: Any) -> None:
        self.graph = graph

    def __enter__(self) -> None:
        seen.capture = self.graph

    def __exit__(self, *_: object) -> None:
        seen.capture = None
        if self.graph.broken:
            raise torch.AcceleratorError("CUDA error: operation failed due to a previous error during capture")


class Stream:
    """Of streams and events there is one, which is always done."""

    device, cuda_stream = torch.device("cuda", 0), 0

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def wait_stream(self, other: "Stream") -> None:
        pass

    record = wait_event = synchronize = lambda self, *_: None

    def record_event(self, *_: object) -> "Stream":
        return Stream()

    def query(self) -> bool:
        return True

    def elapsed_time(self, other: "Stream") -> float:
        return 1.0


class Guard:
    """`torch.cuda.device`."""

    def __init__(self, device: Any) -> None:
        self.index = device if isinstance(device, int) else numbered(device).index

    def __enter__(self) -> None:
        self.before, seen.current = seen.current, self.index

    def __exit__(self, *_: object) -> None:
        seen.current = self.before


def set_device(device: Any) -> None:
    index = device if isinstance(device, int) else numbered(device).index
    if not 0 <= index < COUNT:
        raise torch.AcceleratorError("CUDA error: invalid device ordinal")
    seen.current = index


def set_sync_debug_mode(mode: str | int) -> None:
    if not seen.warned:
        seen.warned = True
        warnings.warn("Synchronization debug mode is a prototype feature and does not yet detect all", stacklevel=2)
    seen.sync_mode = mode


def install() -> None:
    """From now on PyTorch finds CUDA devices in this process."""
    properties = SimpleNamespace(
        name="emulated", major=9, minor=0, total_memory=80 * 2**30, multi_processor_count=132, warp_size=32
    )
    answers = {
        "is_available": True,
        "device_count": COUNT,
        "is_initialized": True,
        "init": None,
        "_lazy_init": None,
        "_is_in_bad_fork": False,
        "get_device_name": "emulated",
        "get_device_capability": (9, 0),
        "get_device_properties": properties,
        "is_bf16_supported": True,
        "empty_cache": None,
        "memory_allocated": 0,
        "max_memory_allocated": 0,
        "reset_peak_memory_stats": None,
        "memory_stats": {},
        "utilization": 50,
    }
    for name, answer in answers.items():
        setattr(torch.cuda, name, lambda *_, answer=answer, **__: answer)
    torch.cuda.current_device = lambda: seen.current
    torch.cuda.is_current_stream_capturing = lambda: seen.capture is not None
    torch.cuda.synchronize = lambda *_: waited("synchronize")
    torch.cuda.set_device, torch.cuda.set_sync_debug_mode = set_device, set_sync_debug_mode
    torch.cuda.get_sync_debug_mode = lambda: seen.sync_mode
    torch.cuda.default_generators = GENERATORS
    torch.cuda.Stream = torch.cuda.Event = Stream
    torch.cuda.CUDAGraph, torch.cuda.graph, torch.cuda.device = Graph, Capture, Guard
    torch.cuda.current_stream = torch.cuda.default_stream = Stream
    torch.cuda.stream, torch.cuda.set_stream = (lambda _: contextlib.nullcontext()), (lambda _: None)
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    torch.backends.cudnn.enabled = False  # batch norms by the plain kernels
    torch.autograd.set_multithreading_enabled(False)
    _install_nccl()
    Dispatch().__enter__()
    Functions().__enter__()


def _install_nccl() -> None:
    """Whoever asks for NCCL gets gloo, under its name and rules."""
    of_c10d, begin, backend_of = distributed.distributed_c10d, distributed.init_process_group, distributed.get_backend

    def init_process_group(backend: str | None = None, *args: Any, **kwargs: Any) -> None:
        distributed.told = backend
        begin("gloo" if backend == "nccl" else backend, *args, **kwargs)

    def get_backend(group: Any = None) -> str:
        return distributed.told if group is None and hasattr(distributed, "told") else backend_of(group)

    for module in (distributed, of_c10d):
        module.init_process_group, module.get_backend = init_process_group, get_backend
    for name in ("all_reduce", "all_gather", "broadcast", "reduce", "all_gather_into_tensor"):
        function = getattr(distributed, name)

        def checked(*args: Any, function: Callable = function, name: str = name, **kwargs: Any) -> Any:
            tensors = [leaf for leaf in leaves(args) if isinstance(leaf, Tensor)]
            if kwargs.get("group") is None and getattr(distributed, "told", "") == "nccl":
                for tensor in tensors:
                    if not isinstance(tensor, OnGpu):
                        raise RuntimeError(f"No backend type associated with device type cpu ({name}) @ {where()}")
                    if tensor.device.index != seen.current:
                        raise RuntimeError(f"{name} on {tensor.device}, but this rank's device is {seen.current}")
            return function(*args, **kwargs)

        for module in (distributed, of_c10d):
            setattr(module, name, checked)
