import pickle

import pytest
import torch

from robnet_fx.errors import RobnetError, UsageError
from robnet_fx.train import checkpoint
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


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(checkpoint, "MOST", 2000)


def test_a_large_state_lies_in_parts(tmp_path, small):
    path, weights = tmp_path / "c.pt", torch.rand(2000)
    save(path, {"a": torch.ones(1)})
    assert [file.name for file in tmp_path.iterdir()] == ["c.pt"]
    for scale in (1, 2):  # the parts of before go when all new ones are there
        save(path, {"a": weights * scale, "b": "x"})
        files = [file for file in tmp_path.iterdir() if file != path]
        assert len(files) == 5 and all(file.stat().st_size <= 2000 for file in files)
        state = load(path)
        assert torch.equal(state["a"], weights * scale) and state["b"] == "x"
    (tmp_path / "c.pt.bak").touch()
    save(path, {"a": torch.ones(1)})
    assert {file.name for file in tmp_path.iterdir()} == {"c.pt", "c.pt.bak"}


def test_parts_are_whole_or_absent(tmp_path, small, monkeypatch):
    path, write, written = tmp_path / "c.pt", checkpoint._write, []
    save(path, {"a": torch.zeros(2000)})
    before = {file.name for file in tmp_path.iterdir()}

    def failing(place, content):
        written.append(place)
        if len(written) == 3:
            raise RobnetError("No space left on device")
        write(place, content)

    monkeypatch.setattr(checkpoint, "_write", failing)
    with pytest.raises(RobnetError, match="No space left"):
        save(path, {"a": torch.ones(2000)})
    assert {file.name for file in tmp_path.iterdir()} == before and not load(path)["a"].any()

    def killed(place, content):
        if place == path:
            raise KeyboardInterrupt
        write(place, content)

    monkeypatch.setattr(checkpoint, "_write", killed)
    with pytest.raises(KeyboardInterrupt):
        save(path, {"a": torch.ones(2000)})
    assert not load(path)["a"].any()
    monkeypatch.setattr(checkpoint, "_write", write)
    save(path, {"a": torch.ones(2000)})  # what was left over goes
    assert load(path)["a"].all() and len([*tmp_path.iterdir()]) == len(before)


def test_parts_that_are_lost_or_damaged_are_named(tmp_path, small):
    path = tmp_path / "c.pt"
    save(path, {"a": torch.rand(2000)})
    part = next(file for file in tmp_path.iterdir() if file != path)
    content = part.read_bytes()
    part.write_bytes(bytes(len(content)))
    with pytest.raises(UsageError, match="its parts are damaged"):
        load(path)
    part.unlink()
    with pytest.raises(UsageError, match=f"its part .*{part.name} is missing"):
        load(path)


def test_random_numbers_continue():
    state = random_state(torch.device("cpu"))
    first = torch.rand(4)
    set_random_state(state, torch.device("cpu"))
    assert torch.equal(first, torch.rand(4))
