"""What this environment is, read without importing torch: the header of a record."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCHEMA = 2
_CUDA_PROBE = (
    "import json, torch; ok = torch.cuda.is_available(); "
    "print(json.dumps(torch.cuda.get_device_name(0) if ok else None))"
)


class EnvironmentMismatchError(Exception):
    """The environment is not the one that was asked for (exit code 4)."""


@dataclass(frozen=True)
class Environment:
    """The versions, platform and device that a run is about."""

    torch: str
    transformers: str
    python: str
    platform: str
    device: str
    gpu: str | None
    packages: dict[str, str]
    commit: str | None

    @classmethod
    def here(cls, device: str) -> Environment:
        """Describe this environment; `device` is `auto`, `cpu` or `cuda`.

        Raises:
            EnvironmentMismatchError: torch or transformers is not installed, or CUDA was asked for and there is none.
        """
        gpu = None if device == "cpu" else _gpu_name()
        if device == "cuda" and gpu is None:
            raise EnvironmentMismatchError("--device cuda: torch finds no CUDA device here; run with --device cpu")
        return cls(
            torch=_version_of("torch"),
            transformers=_version_of("transformers"),
            python=platform.python_version(),
            platform=f"{platform.system()}-{platform.machine()}",
            device="cuda" if gpu else "cpu",
            gpu=gpu,
            packages=_packages(),
            commit=_commit(),
        )

    @property
    def cell(self) -> str:
        """The id of the cell that this environment is, from minors."""
        minors = [".".join(version.split(".")[:2]) for version in (self.torch, self.transformers, self.python)]
        return f"torch{minors[0]}-tf{minors[1]}-py{minors[2]}-{self.device}"

    def verify(self, expectations: list[str]) -> None:
        """Check each `package=version` by whole version components: `2.1` does not match `2.10`.

        Raises:
            EnvironmentMismatchError: a package is missing or has another version.
        """
        for expectation in expectations:
            package, _, wanted = expectation.partition("=")
            got = {"torch": self.torch, "transformers": self.transformers, "python": self.python}.get(
                package, self.packages.get(package.lower().replace("_", "-"), "not installed")
            )
            if not _starts_with(got, wanted):
                raise EnvironmentMismatchError(
                    f"{package} is {got}, expected {wanted}: recreate the environment (nox: add `-- --fresh`)"
                )

    def to_json(self, cell: str | None, digest: str | None) -> dict[str, Any]:
        """The fields of the header line that come from the environment."""
        return {
            "schema": SCHEMA,
            "cell": cell or self.cell,
            "torch": self.torch,
            "transformers": self.transformers,
            "python": self.python,
            "platform": self.platform,
            "device": self.device,
            "gpu": self.gpu,
            "packages": self.packages,
            "commit": self.commit,
            "digest": digest,
        }


def _starts_with(version: str, wanted: str) -> bool:
    """Whether `version` is `wanted` or a patch of it; a local part (`+cu124`) need not be named."""
    return bool(wanted) and re.match(rf"{re.escape(wanted)}(?=$|[.+]|[a-z])", version) is not None


def _version_of(package: str) -> str:
    """The version a package tells about itself, without importing it (torch takes seconds)."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise EnvironmentMismatchError(f"{package} is not installed here: python -m pip install {package}")
    folder = Path(next(iter(spec.submodule_search_locations)))
    for name in ("version.py", "__init__.py"):
        path = folder / name
        match = (
            re.search(r"^__version__\s*(?::.*)?=\s*['\"]([^'\"]+)", path.read_text("utf-8"), re.MULTILINE)
            if path.is_file()
            else None
        )
        if match:
            return match.group(1)
    return importlib.metadata.version(package)


def _packages() -> dict[str, str]:
    """Every installed distribution with its version, by normalized name."""
    found: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        name = distribution.metadata["Name"]
        if name:
            found.setdefault(re.sub(r"[-_.]+", "-", name).lower(), distribution.version)
    return dict(sorted(found.items()))


def _gpu_name() -> str | None:
    """The name of the CUDA device that torch can use; asked only where a driver is to be seen."""
    if not shutil.which("nvidia-smi") and not Path("/dev/nvidiactl").exists():
        return None
    answer = subprocess.run(  # noqa: S603 - arguments are ours
        [sys.executable, "-c", _CUDA_PROBE], capture_output=True, text=True, timeout=120, check=False
    )
    if answer.returncode != 0:
        return None
    name: str | None = json.loads(answer.stdout.strip().splitlines()[-1])
    return name


def _commit() -> str | None:
    """The commit of the checkout that this file is tracked in, if it is: an installed wheel has none."""
    git = shutil.which("git")
    here = Path(__file__)
    if git is None:
        return None
    tracked = [git, "-C", str(here.parent), "ls-files", "--error-unmatch", here.name]
    if subprocess.run(tracked, capture_output=True, check=False).returncode != 0:  # noqa: S603 - arguments are ours
        return None
    head = [git, "-C", str(here.parent), "rev-parse", "--short=12", "HEAD"]
    answer = subprocess.run(head, capture_output=True, text=True, check=False)  # noqa: S603 - arguments are ours
    return answer.stdout.strip() or None
