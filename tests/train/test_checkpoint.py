import pickle

import pytest
import torch

from robnet_fx.errors import UsageError
from robnet_fx.train.checkpoint import load, random_state, save, set_random_state


def test_a_state_comes_back(tmp_path):
    path = tmp_path / "c.pt"
    save(path, {"a": torch.arange(3), "b": [1, 2.5, "x"], "c": {"d": None}})
    state = load(path)
    assert torch.equal(state["a"], torch.arange(3))
    assert (state["b"], state["c"]) == ([1, 2.5, "x"], {"d": None})


class Evil:
    def __reduce__(self):
        return (print, ("run",))


def test_what_is_not_a_checkpoint_is_refused_without_running_it(tmp_path, capsys):
    path = tmp_path / "c.pt"
    for content in (b"", b"not a checkpoint", pickle.dumps(Evil())):
        path.write_bytes(content)
        with pytest.raises(UsageError, match="not a checkpoint"):
            load(path)
    torch.save({"a": Evil()}, path)
    with pytest.raises(UsageError, match="not a checkpoint"):
        load(path)
    torch.save({"weights": torch.ones(1)}, path)
    with pytest.raises(UsageError, match="not a checkpoint of this version"):
        load(path)
    save(path, {"a": torch.rand(1000)})
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(UsageError, match="not a checkpoint"):
        load(path)
    assert capsys.readouterr().out == ""


def test_random_numbers_continue():
    state = random_state(torch.device("cpu"))
    first = torch.rand(4)
    set_random_state(state, torch.device("cpu"))
    assert torch.equal(first, torch.rand(4))
