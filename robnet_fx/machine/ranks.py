"""The processes that do one job together, as `torchrun` starts them. For a single process all of this is nothing.

Every rank runs the same program on the same arguments and data, and meets the others in the functions below, which all
of them call in the same order. What they hold is the same on all of them: work is divided, results are put together.
A rank that stops breaks its connections, and those who wait for it end with a `RobnetError`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from robnet_fx.errors import RobnetError

T = TypeVar("T")
U = TypeVar("U")

_SET_BY_TORCHRUN = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"}


@contextmanager
def joined() -> Iterator[None]:
    """Join the other processes where `torchrun` started this one, and part at the end; else, or if joined, nothing.

    Tensors on a GPU travel by NCCL, all others by gloo. "cuda" then means the GPU of this rank.
    """
    started = os.environ.keys() >= _SET_BY_TORCHRUN and int(os.environ["WORLD_SIZE"]) > 1
    if not started or dist.is_initialized():
        yield
        return
    local = int(os.environ["LOCAL_RANK"])
    if local < torch.cuda.device_count():
        torch.cuda.set_device(local)
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def world() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this one is, from 0."""
    return dist.get_rank() if world() > 1 else 0


def leader() -> bool:
    """Whether this is the process that writes files and prints."""
    return rank() == 0


def part(count: int) -> slice:
    """This rank's own part of `0 .. count - 1`: in order, nearly equal, the leader's never empty unless all are."""
    start, stop = (-(-count * place // world()) for place in (rank(), rank() + 1))  # rounded up
    return slice(start, stop)


def total(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The sums over the ranks, in one message, of tensors of the same shapes on each; of bool it is "any"."""
    if world() == 1:
        return list(tensors)
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    with _meeting():
        dist.all_reduce(flat)
    pieces = flat.split([tensor.numel() for tensor in tensors])
    return [piece.view_as(tensor).to(tensor.dtype) for piece, tensor in zip(pieces, tensors, strict=True)]


def spread(count: int, work: Callable[[slice], Iterable[Tensor]]) -> tuple[Tensor, ...]:
    """`work`'s tensors `[n, ...]` on the CPU for `0 .. count - 1`: each rank works its own part, all get the whole."""
    own = part(count)
    if world() == 1:
        return tuple(work(own))
    found = tuple(work(own)) if own.start < own.stop else None
    pieces: list[Any] = [None] * world()
    with _meeting():
        dist.all_gather_object(pieces, found)
    return tuple(map(torch.cat, zip(*(piece for piece in pieces if piece is not None), strict=True)))


def shared(items: Sequence[T], work: Callable[[list[T]], list[U]]) -> list[U]:
    """What `work` makes of the items, in no particular order: each rank takes every so-manieth, all get the whole."""
    if world() == 1:
        return work(list(items))
    own = work(list(items[rank() :: world()]))
    pieces: list[Any] = [None] * world()
    with _meeting():
        dist.all_gather_object(pieces, own)
    return [each for piece in pieces for each in piece]


def follow(tensors: Iterable[Tensor]) -> None:
    """Give tensors the leader's values, in place."""
    if world() > 1:
        for tensor in tensors:
            with _meeting():
                dist.broadcast(tensor.detach(), 0)


def by_leader(work: Callable[[], T]) -> T:
    """What `work` returns, done by the leader alone while the others wait. A `RobnetError` it raises is everybody's."""
    if world() == 1:
        return work()
    outcome: list[Any] = [None, None]
    if leader():
        try:
            outcome[0] = work()
        except RobnetError as error:
            outcome[1] = error
    with _meeting():
        dist.broadcast_object_list(outcome)
    result, refusal = outcome
    if refusal is not None:
        raise refusal
    return result


def leader_first(work: Callable[[], T]) -> T:
    """What `work` returns on this rank, begun when the leader has done its own: what it fetches is there for all."""
    own: list[T] = []
    by_leader(lambda: own.append(work()))
    return own[0] if own else work()


@contextmanager
def own_random_numbers(number: int, device: torch.device) -> Iterator[None]:
    """Random numbers that differ between ranks, another stream for each `number`; the common ones stay as they are."""
    if world() == 1:
        yield
        return
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed((number * world() + rank()) % 2**63)
        yield


@contextmanager
def _meeting() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise RobnetError(f"another process of this job is gone: {reason}") from error
