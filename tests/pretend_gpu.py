"""A GPU that is none: its tensors say `cuda:0`, are computed on the CPU, and every wait for them is counted.

The path of a GPU runs as it is written: `is_cuda`, copies between the devices, no kernels of the CPU. Waits
are the operations at which CUDA makes the host wait, those that `torch.cuda.set_sync_debug_mode` names.
"""

import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map_only

DEVICE = torch.device("cuda", 0)
SOURCE = str(Path(__file__).parents[1] / "src")

WAITS = {  # the length of the result, or a number, has to be known on the host
    "_local_scalar_dense", "item", "nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive",
    "unique_dim_consecutive", "bincount", "equal", "is_nonzero", "repeat_interleave",
}  # fmt: skip
CHECKED = {"_linalg_eigh", "_linalg_svd", "linalg_eig", "linalg_cholesky", "linalg_inv", "_linalg_solve"}
"""Decompositions that read on the host whether they succeeded."""


class OnGpu(Tensor):
    """A tensor on the pretended GPU, with its values in `here` on the CPU."""

    here: Tensor
    device = property(lambda self: DEVICE)
    is_cuda = property(lambda self: True)
    is_meta = property(lambda self: False)
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, here: Tensor) -> "OnGpu":
        tensor = torch.Tensor._make_wrapper_subclass(
            cls,
            here.shape,
            strides=here.stride(),
            storage_offset=here.storage_offset(),
            dtype=here.dtype,
            device="meta",  # autograd needs no device for it, and nothing takes it for one on the CPU
        )
        tensor.here = here
        return tensor

    def new_tensor(self, data: Any, *, dtype: torch.dtype | None = None) -> Tensor:
        return torch.tensor(data, dtype=dtype or self.dtype, device=DEVICE)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {})


def computed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Compute an operation on the CPU; what is on the GPU gives a result there."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    away = any(isinstance(tensor, OnGpu) for tensor in tensors)
    plain_args, plain_kwargs = tree_map_only(OnGpu, lambda tensor: tensor.here, (args, kwargs))
    device = plain_kwargs.get("device")
    if device is not None:
        away = is_gpu(device)
        plain_kwargs["device"] = torch.device("cpu")
    if func._schema.name == "aten::copy_":
        away = isinstance(args[0], OnGpu)
    plain_kwargs.pop("pin_memory", None)
    result = func(*plain_args, **plain_kwargs)
    if func._schema.name == "aten::_to_copy" and plain_args[0] is result:
        result = result.clone()
    if not away:
        return result
    result = tree_map_only(Tensor, OnGpu, result)
    return return_and_correct_aliasing(func, args, kwargs, result)


class PretendGpu(TorchDispatchMode):
    """Counts in `waits` the operations at which a GPU would make the host wait, by their place."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        self.pinned: list[Tensor] = []

    def __enter__(self) -> "PretendGpu":
        self.lazy_init, torch.cuda._lazy_init = torch.cuda._lazy_init, lambda: None
        self.before = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        torch._C._set_only_lift_cpu_tensors(self.before)
        torch.cuda._lazy_init = self.lazy_init

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.removeprefix("aten::")
        if name in ("pin_memory", "_pin_memory"):
            self.pinned.append(args[0].clone())
            return self.pinned[-1]
        if name == "is_pinned":
            return self.is_pinned(args[0])
        if kwargs.get("pin_memory"):
            self.pinned.append(func(*args, **{**kwargs, "pin_memory": False}))
            return self.pinned[-1]
        if self.is_waiting(name, args, kwargs):
            self.waits[f"{name} at {place()}"] += 1
        return computed(func, args, kwargs)

    def is_pinned(self, tensor: Tensor) -> bool:
        return any(
            tensor.untyped_storage().data_ptr() == pinned.untyped_storage().data_ptr()
            for pinned in self.pinned
        )

    def is_waiting(self, name: str, args: Any, kwargs: dict[str, Any]) -> bool:
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        away = [tensor for tensor in tensors if isinstance(tensor, OnGpu)]
        if name == "_to_copy":
            to = kwargs.get("device")
            if to is None or is_gpu(to) == bool(away):
                return False
            host = None if away else args[0]
            return not kwargs.get("non_blocking") or (host is not None and not self.is_pinned(host))
        if not away:
            return False
        if name == "copy_":
            if len(away) == 2:
                return False
            non_blocking = kwargs.get("non_blocking") or (len(args) > 2 and args[2])
            (host,) = (tensor for tensor in tensors if not isinstance(tensor, OnGpu))
            return not non_blocking or not self.is_pinned(host)
        here = [tensor for tensor in tensors if not isinstance(tensor, OnGpu)]
        if name in ("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"):
            masks = [
                tensor for tensor in tree_leaves(args[1]) if tensor is not None and tensor.dtype == torch.bool
            ]
            return bool(masks or here)
        if any(tensor.ndim for tensor in here):
            raise AssertionError(f"{name} mixes devices at {place()}")
        if name == "repeat_interleave":
            return kwargs.get("output_size") is None
        return name in WAITS or name in CHECKED


def is_gpu(device: Any) -> bool:
    """Whether a result goes to the GPU; "meta" is what torch takes its tensors for."""
    return torch.device(device).type in ("cuda", "meta")


def place() -> str:
    """The innermost place in the source of the package, module:function."""
    for frame in reversed(traceback.extract_stack()):
        if frame.filename.startswith(SOURCE):
            return f"{Path(frame.filename).stem}:{frame.name}"
    return "elsewhere"


def to_gpu(module: torch.nn.Module) -> torch.nn.Module:
    """Move the weights and buffers of a module to the pretended GPU, in place."""
    for part in module.modules():
        for name, weight in list(part._parameters.items()):
            if weight is not None:
                part._parameters[name] = torch.nn.Parameter(OnGpu(weight.detach()), weight.requires_grad)
        for name, buffer in list(part._buffers.items()):
            if buffer is not None:
                part._buffers[name] = OnGpu(buffer)
    return module
