"""A model folder: ``model.yaml`` and the weights that it names, validated before they are used."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from message_contracts.model_description import ModelDescription
from service_runtime.errors import PermanentError

DESCRIPTION_FILE = "model.yaml"


class InvalidModelFolder(PermanentError):
    """The folder cannot be used; the message names the field at fault and the remedy."""


@dataclass(frozen=True)
class ModelFolder:
    """A folder whose description is valid and whose weights are those that it describes."""

    description: ModelDescription
    path: Path
    weights_path: Path
    weights_sha256: str


@dataclass(frozen=True)
class RefusedFolder:
    """A folder that holds a ``model.yaml`` but cannot be used, and why."""

    path: Path
    reason: str
    model: tuple[str, str] | None = None
    """Name and version, where the folder says them."""


def load_model_folder(path: Path) -> ModelFolder:
    """Read and check a model folder.

    Raises
    ------
    InvalidModelFolder
        No readable ``model.yaml``, a field that is unknown, missing or wrong, no weights file, or
        weights with another digest than the one declared.
    """
    description = _description(path / DESCRIPTION_FILE)
    for name, sha256 in description.files.items():
        _require_file(path, name, sha256)
    return ModelFolder(description, path, path / description.weights, description.weights_sha256)


def _require_file(path: Path, name: str, sha256: str) -> None:
    file = path / name
    if not file.is_file():
        raise InvalidModelFolder(f"{path.name}: weights: there is no file {name} in the folder")
    try:
        digest = sha256_of(file)
    except OSError as error:
        raise InvalidModelFolder(
            f"{path.name}: weights: {name} cannot be read: {type(error).__name__}"
        ) from error
    if digest != sha256:
        raise InvalidModelFolder(
            f"{path.name}: weights_sha256: {name} has the digest {digest}; "
            "restore the weights that were described, or train and describe the model again"
        )


def find_model_folders(root: Path) -> tuple[tuple[ModelFolder, ...], tuple[RefusedFolder, ...]]:
    """Return the usable model folders directly below ``root``, and the refused ones.

    Folders without ``model.yaml`` are no model folders. Of two that say the same name and version
    the later by folder name is refused.
    """
    good: dict[tuple[str, str], ModelFolder] = {}
    refused = []
    for path in sorted(root.iterdir()) if root.is_dir() else ():
        if not (path / DESCRIPTION_FILE).exists():
            continue
        try:
            folder = load_model_folder(path)
        except InvalidModelFolder as error:
            refused.append(RefusedFolder(path, str(error), _named(path)))
            continue
        key = (folder.description.name, folder.description.version)
        if key in good:
            reason = f"{path.name}: name and version are those of {good[key].path.name}"
            refused.append(RefusedFolder(path, reason, key))
        else:
            good[key] = folder
    return tuple(good.values()), tuple(refused)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in lower-case hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_description(description: ModelDescription, folder: Path) -> None:
    """Write ``model.yaml`` so that ``load_model_folder`` reads the same description."""
    text = yaml.safe_dump(
        description.model_dump(mode="json", exclude_none=True),
        sort_keys=False,
        allow_unicode=True,
        width=100,
    )
    (folder / DESCRIPTION_FILE).write_text(text, encoding="utf-8")


def _description(file: Path) -> ModelDescription:
    name = file.parent.name
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidModelFolder(
            f"{name}: {DESCRIPTION_FILE} cannot be read: {type(error).__name__}"
        ) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        raise InvalidModelFolder(f"{name}: {DESCRIPTION_FILE}{where}: not YAML") from error
    except (ValueError, LookupError, RecursionError) as error:
        # PyYAML passes on what it comes upon: a day that is none, brackets without end.
        raise InvalidModelFolder(
            f"{name}: {DESCRIPTION_FILE}: a value in it cannot be read as YAML"
        ) from error
    if not isinstance(content, dict):
        raise InvalidModelFolder(f"{name}: {DESCRIPTION_FILE}: fields are needed at its top level")
    return validated(content, f"{name}: {DESCRIPTION_FILE}")


def validated(content: Mapping[str, Any], where: str) -> ModelDescription:
    """Return a description of these fields.

    Raises
    ------
    InvalidModelFolder
        A field is unknown, missing or wrong; all that are at fault are named.
    """
    try:
        return ModelDescription.model_validate(content)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(str(part) for part in fault['loc']) or 'model'}: {fault['msg']}"
            for fault in error.errors(include_url=False, include_input=False)
        )
        raise InvalidModelFolder(f"{where}: {faults}") from error


def _named(path: Path) -> tuple[str, str] | None:
    try:
        description = _description(path / DESCRIPTION_FILE)
    except InvalidModelFolder:
        return None
    return description.name, description.version
