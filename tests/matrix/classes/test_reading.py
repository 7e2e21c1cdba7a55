from __future__ import annotations

from matrix.classes.reading import classes

SOURCE = """
import torch

if torch.maybe():
    class Behind: ...

class Base(torch.nn.Module):
    number = 1
    bare: int
    def update(self, keys, *, extra=None): self.late = keys
    def open(self, **kwargs): ...

class Cache(Base):
    def __init__(self, config=None):
        super().__init__()
        self.layers: list = []
        self.a, self.b = 1, 2
        with torch.no_grad():
            self.inside = 1
        if config:
            self.sometimes = self.both = 1
        elif config is None:
            self.both = 2
        else:
            raise ValueError(config)
    @property
    def length(self): return 0

class Alone(Cache):
    def __init__(self):
        self.own = 1

@dataclass
class Config:
    field: int

class Odd(dict[str, int]): ...
class _Private: ...
"""


def test_an_instance_has_what_its_class_and_bases_give_it() -> None:
    found = classes(SOURCE)
    assert set(found) == {"Behind", "Base", "Cache", "Alone", "Config", "Odd"}
    assert found["Base"].attributes == {"number", "update", "open"}
    assert found["Cache"].attributes == {"number", "update", "open", "layers", "a", "b", "inside", "both", "length"}
    assert found["Alone"].attributes == {"number", "update", "open", "length", "own"}
    assert found["Config"].attributes == {"field"}


def test_methods_that_take_anything_have_no_parameters_to_miss() -> None:
    found = classes(SOURCE)
    assert found["Base"].parameters == {"update": {"keys", "extra"}}
    assert found["Cache"].parameters == {"__init__": {"config"}, "length": set()}
