"""Makes a registered model ready to read: its files found and checked, its network loaded."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from imaging_store.instances import InstanceStore, NotInStore
from imaging_store.model_registry import RegisteredModel, weights_key
from inference_worker.forward_process import USUAL_LIMITS, Limits
from inference_worker.model_folder import (
    InvalidModelFolder,
    ModelFolder,
    load_model_folder,
    validated,
    write_description,
)
from inference_worker.results import LoadedModel
from inference_worker.served_model import Opened, ServedModel
from message_contracts.inference import ModelReference


def load_model(opened: Opened, limits: Limits) -> LoadedModel:
    """Load and warm a model, in a process of its own.

    Raises
    ------
    InvalidModelFolder
        The network cannot be loaded, or does not fit its description.
    """
    served = ServedModel(opened, limits)
    return LoadedModel(
        served.description,
        served.weights_sha256,
        served.predict,
        served.reader,
        served.close,
        served.explain,
    )


def keep_files(store: InstanceStore, folder: ModelFolder) -> None:
    """Keep a model's files where every worker can have them, whatever becomes of the folder.

    Raises
    ------
    StorageFull
        There is no room.
    """
    for name, sha256 in folder.description.files.items():
        key = weights_key(sha256)
        if not store.exists(key):
            store.put_artifact(key, (folder.path / name).read_bytes())


@dataclass(frozen=True)
class ModelSource:
    """Where a worker has its models from: its own folders, or else the instance store."""

    store: InstanceStore
    folders: Mapping[ModelReference, ModelFolder]
    """The usable ones that were found at the start."""
    refused: Mapping[ModelReference, str]
    """Why the others were not."""
    limits: Limits = USUAL_LIMITS
    """What each model may take."""

    def load(self, registered: RegisteredModel) -> LoadedModel:
        """Load a registered model; its files' digests are checked each time.

        Raises
        ------
        InvalidModelFolder
            The files are nowhere, or are not those that were registered; or as `load_model`.
        """
        return load_model(partial(self._folder, registered), self.limits)

    def folder_name(self, registered: RegisteredModel) -> str:
        """Return what the folder is called in which a registered model is looked for."""
        found = self.folders.get(registered.reference)
        reference = registered.reference
        return found.path.name if found else f"{reference.name}-{reference.version}"

    def is_kept(self, sha256: str) -> bool:
        """Tell whether the weights of this digest can be had."""
        found = any(each.weights_sha256 == sha256 for each in self.folders.values())
        return found or self.store.exists(weights_key(sha256))

    @contextmanager
    def _folder(self, registered: RegisteredModel) -> Iterator[ModelFolder]:
        found = self.folders.get(registered.reference)
        if found is not None and found.weights_sha256 == registered.weights_sha256:
            folder = load_model_folder(found.path)
            # It may hold another version by now, of which nothing may pass for this one.
            if folder.description == found.description:
                yield folder
                return
        name = self.folder_name(registered)
        description = validated(registered.description, f"{name}: registered description")
        with TemporaryDirectory(prefix="model-") as temporary:
            path = Path(temporary) / name
            path.mkdir()
            for file, sha256 in description.files.items():
                (path / file).write_bytes(self._content(registered, file, sha256))
            write_description(description, path)
            yield load_model_folder(path)

    def _content(self, registered: RegisteredModel, file: str, sha256: str) -> bytes:
        try:
            return self.store.read(weights_key(sha256))
        except NotInStore:
            name = self.folder_name(registered)
            reason = self.refused.get(registered.reference) or (
                f"{name}: weights: {file} is neither among the model folders nor in the instance "
                "store; add the model again with `countersign models add`"
            )
            raise InvalidModelFolder(reason) from None
