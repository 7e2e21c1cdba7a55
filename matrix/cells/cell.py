"""A cell: one environment, named by its id everywhere (folder, record, CI job, place in the table)."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from packaging.version import InvalidVersion, Version

from matrix.errors import UserError

MOVING = {"torch": "nightly", "transformers": "main"}
"""The axis value that means "whatever is newest upstream", by axis."""

DEVICES = ("cpu", "cuda")
DEFAULT_PYTHON = "3.11"

_ID = re.compile(
    r"torch(?P<torch>[^-]+)-tf(?P<transformers>[^-]+)-py(?P<python>[^-+]+)"
    r"(\+(?P<extra>[a-z]+))?-(?P<device>[a-z]+)"
)
_BEYOND = Version("99999")
VersionKey = tuple[Version, int]


def version_key(value: str) -> VersionKey:
    """Orders axis values as versions, the moving ones last: 2.9.0, 2.9, 2.9.1, 2.10, nightly.

    As versions 2.9.0 and 2.9 are equal, as values they are not: one is the first patch, the other the newest.
    """
    version = _BEYOND if value in MOVING.values() else Version(value)
    return version, -len(version.release)


def minor_of(value: str) -> str:
    """The minor release an axis value belongs to: "2.5" for "2.5" and for "2.5.1"; a moving value is its own minor."""
    if value in MOVING.values():
        return value
    version = Version(value)
    return f"{version.major}.{version.minor}"


def is_axis_value(axis: str, value: str) -> bool:
    """Whether a text can stand on an axis at all: 2.5, 2.5.1, or the axis's moving value."""
    if value == MOVING.get(axis):
        return True
    try:
        return len(Version(value).release) in {2, 3} and re.fullmatch(r"[0-9.]+", value) is not None
    except InvalidVersion:
        return False


@dataclass(frozen=True)
class Cell:
    """One environment.

    Attributes:
        torch: an axis value: a minor ("2.5"), a full version ("2.5.0") or "nightly".
        transformers: the same, or "main".
        python: a minor, or a full version.
        device: one of `DEVICES`.
        extra: what is installed beside what every cell has, by its name in `cells.toml`; empty for nothing.
    """

    torch: str
    transformers: str
    python: str = DEFAULT_PYTHON
    device: str = "cpu"
    extra: str = ""

    def __post_init__(self) -> None:
        for axis in ("torch", "transformers", "python"):
            value = getattr(self, axis)
            if not is_axis_value(axis, value):
                message = f"{value!r} is no {axis} version: write a minor such as {_EXAMPLE[axis]}, or a full version"
                raise UserError(message, "python -m matrix plan")
        if self.device not in DEVICES:
            raise UserError(f"{self.device!r} is no device: cpu or cuda", "python -m matrix plan")
        if not re.fullmatch("[a-z]*", self.extra):
            raise UserError(f"{self.extra!r} is no name of something to install beside", "python -m matrix plan")

    @property
    def id(self) -> str:
        """The name of the cell, for example `torch2.5-tf4.53-py3.11-cpu`."""
        return f"{self.venv}-{self.device}"

    @property
    def venv(self) -> str:
        """The name of its virtual environment: the id without the device, since one serves both devices."""
        return f"torch{self.torch}-tf{self.transformers}-py{self.interpreter}"

    @property
    def interpreter(self) -> str:
        """Its Python, and what is installed beside what every cell has: `3.11`, `3.11+optree`."""
        return f"{self.python}+{self.extra}" if self.extra else self.python

    @property
    def moving(self) -> bool:
        """Whether the cell follows upstream, so that it means something else tomorrow."""
        return self.torch == MOVING["torch"] or self.transformers == MOVING["transformers"]

    @property
    def order(self) -> tuple[VersionKey, VersionKey, Version, str, str]:
        """Sorts cells by torch, then transformers, then Python, as versions."""
        return version_key(self.torch), version_key(self.transformers), Version(self.python), self.extra, self.device

    @property
    def session(self) -> str:
        """The nox session that runs the cell; `to_argv` follows after `--`."""
        return f"conformance(torch={self.torch!r}, transformers={self.transformers!r})"

    def to_argv(self) -> list[str]:
        """The options of the session that its name does not tell."""
        options = [] if self.python == DEFAULT_PYTHON else [f"--python={self.python}"]
        return [*options, *([f"--extra={self.extra}"] if self.extra else []), f"--device={self.device}"]

    @property
    def command(self) -> str:
        """The command that runs the cell."""
        options = [option for option in self.to_argv() if option != "--device=cpu"]
        return " ".join([f'python -m nox -s "{self.session}"', *(["--", *options] if options else [])])

    def on(self, device: str) -> Cell:
        """The same cell on another device."""
        return replace(self, device=device)

    @classmethod
    def parse(cls, text: str) -> Cell:
        """Read an id.

        Raises:
            UserError: the text is no cell id.
        """
        match = _ID.fullmatch(text)
        if match is None:
            raise UserError(f"{text!r} is no cell id: torch2.5-tf4.53-py3.11-cpu is one", "python -m matrix plan")
        return cls(**{name: value or "" for name, value in match.groupdict().items()})

    def to_json(self) -> dict[str, str]:
        """The cell as the plan shows it."""
        return {
            "id": self.id,
            "torch": self.torch,
            "transformers": self.transformers,
            "python": self.python,
            "device": self.device,
            "extra": self.extra,
        }

    @classmethod
    def from_json(cls, data: dict[str, str]) -> Cell:
        """The inverse of `to_json`."""
        return cls(data["torch"], data["transformers"], data["python"], data["device"], data.get("extra", ""))


_EXAMPLE = {"torch": "2.5", "transformers": "4.53", "python": "3.11"}
