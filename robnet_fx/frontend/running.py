"""The user's own code, run on copies of images and so that nothing it does to its module lasts."""

from __future__ import annotations

import copy
import gc
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from robnet_fx.errors import UsageError
from robnet_fx.frontend.outputs import Name, picking, tensors_of
from robnet_fx.frontend.parity import difference
from robnet_fx.machine.torch_internals import (
    DATA_OF_TENSOR,
    forget_backward_hooks,
    forward_hooks,
    times_written,
    without_exports_own_remarks,
)

_FOR_GRADIENTS = (torch.Tensor.register_hook, torch.Tensor.register_post_accumulate_grad_hook, torch.Tensor.retain_grad)


class Guest:
    """A module of the user's while it is `undisturbed`: called on images it gives their logits `[B, classes]`, by the
    user's own code on a copy of them and without gradients. `path` is where in what it returns the logits were."""

    def __init__(self, model: nn.Module, output: Name) -> None:
        self.model, self.output, self.path = model, output, ""
        self._kept = _Kept(model)
        self._watched: list[tuple[dict[int, Any], int, _Watched]] = []
        for module in model.modules():
            forget_backward_hooks(module)
            for hooks in forward_hooks(module):
                for key, hook in list(hooks.items()):
                    hooks[key] = watched = _Watched(hook)
                    self._watched.append((hooks, key, watched))

    def __call__(self, images: Tensor) -> Tensor:
        logits = self._run(images)
        watched, self._watched = self._watched, []
        for hooks, key, hook in watched:  # which went well: those that only looked on are left out from now on
            if hook.takes_part:
                hooks[key] = hook.hook
            else:
                del hooks[key]
        if not all(hook.takes_part for _, _, hook in watched) and difference(self._run(images), logits):
            for hooks, _, _ in watched:
                hooks.clear()
            for hooks, key, hook in watched:
                hooks[key] = hook.hook
        return logits

    def _run(self, images: Tensor) -> Tensor:
        with torch.no_grad(), picking(self.model, self.output) as pick:
            logits: Tensor = self.model(images.detach().clone())
        self.path = pick.path
        return logits

    def put_back(self, *, tensors_only: bool = False) -> None:
        """Everything as it was found, or every tensor's numbers alone."""
        self._kept.put_back(tensors_only)


@contextmanager
def undisturbed(model: nn.Module, output: Name = None) -> Iterator[Guest]:
    """Eval mode inside; afterwards modes, parameters, buffers, attributes and hooks are what they were before.

    Hooks that change nothing of what the model computes (of a CAM extractor, say) see the first call and no later one,
    for a trace has no numbers to show them.
    """
    guest = Guest(model, output)
    try:
        model.eval()
        with _WithoutGradients(), without_exports_own_remarks():
            yield guest
    finally:
        guest.put_back()


@contextmanager
def uncollected() -> Iterator[None]:
    """Inside, no garbage is collected: a trace makes so many small objects that looking through all that is loaded,
    again and again, took a third of its time."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


class _Kept:
    """What a module and those in it held: attributes, what is in their lists and dictionaries, and every number."""

    def __init__(self, model: nn.Module) -> None:
        self.modules = [(module, dict(vars(module))) for module in model.modules()]
        attributes = [value for _, found in self.modules for value in found.values()]
        self.containers = [(held, copy.copy(held)) for held in attributes if isinstance(held, (dict, list, set))]
        tensors = [*model.parameters(), *model.buffers(), *(held for held in attributes if isinstance(held, Tensor))]
        if any(nn.parameter.is_lazy(tensor) for tensor in tensors):
            raise UsageError("the model has lazy layers, whose sizes are open\n  remedy  run it on an image once")
        self.numbers = {id(tensor): (tensor, tensor.detach().clone()) for tensor in tensors}

    def put_back(self, tensors_only: bool) -> None:
        for tensor, numbers in self.numbers.values():
            if tensor.shape != numbers.shape:
                tensor.data = numbers
            elif not torch.equal(tensor, numbers):  # else the graphs that hold it stay valid
                with torch.no_grad():
                    tensor.copy_(numbers)
        if tensors_only:
            return
        for module, found in self.modules:
            here = vars(module)
            for name in here.keys() - found.keys():
                del here[name]
            here.update(found)
        for held, content in self.containers:
            if isinstance(held, list):
                held[:] = content
            else:
                held.clear()
                held.update(content)


class _Watched:
    """A forward hook, and whether it takes part in what the model computes: by returning something, by writing to a
    tensor that it is shown, or by setting one of its module's, as `weight_norm` does."""

    def __init__(self, hook: Callable[..., Any]) -> None:
        self.hook, self.takes_part = hook, False

    def __call__(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        shown = [tensor for _, tensor in tensors_of((args, kwargs))]
        own = {name: value for name, value in vars(module).items() if isinstance(value, Tensor)}
        before = [times_written(tensor) for tensor in (*shown, *own.values())]
        result = self.hook(module, *args, **kwargs)
        written = before != [times_written(tensor) for tensor in (*shown, *own.values())]
        replaced = any(vars(module).get(name) is not value for name, value in own.items())
        self.takes_part |= result is not None or written or replaced
        return result


class _WithoutGradients(TorchFunctionMode):
    """What is only there for gradients is done without: hooks on them do nothing, instead of being refused, and `.data`
    is `.detach()`, which a trace can follow."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _FOR_GRADIENTS:
            return None if func is torch.Tensor.retain_grad else RemovableHandle(OrderedDict())
        if func == DATA_OF_TENSOR:
            return args[0].detach()
        return func(*args, **(kwargs or {}))
