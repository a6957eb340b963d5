"""An environment as `make demo` installs it, made of links to the one that the tests run in."""

import sysconfig
import venv
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

SITE_PACKAGES = Path(sysconfig.get_path("purelib"))


def make_plain_installation(folder: Path) -> Path:
    """Make an environment with what Countersign requires without extras; return its Python."""
    venv.create(folder, symlinks=True, with_pip=False)
    [site_packages] = folder.glob("lib/python*/site-packages")
    for name in {name for distribution in _required() for name in _installed_names(distribution)}:
        (site_packages / name).symlink_to(SITE_PACKAGES / name)
    return folder / "bin" / "python"


def _required() -> Iterator[Distribution]:
    installed = distributions(path=[str(SITE_PACKAGES)])
    known = {canonicalize_name(each.name): each for each in installed}
    wanted, met = {(canonicalize_name("countersign"), "")}, set()
    while wanted:
        name, extra = each = wanted.pop()
        met.add(each)
        yield known[name]
        for line in known[name].requires or ():
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                name_of_it = canonicalize_name(requirement.name)
                wanted |= {(name_of_it, extra) for extra in ("", *requirement.extras)} - met


def _installed_names(distribution: Distribution) -> Iterator[str]:
    for file in distribution.files or ():
        if file.parts[0] not in {"..", "__pycache__"}:
            yield file.parts[0]
