"""``python -m dicom_listener``."""

import os
import shutil
import tempfile

_METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"


def main() -> None:
    """Run the listener, whose processes share their metrics in a folder.

    The library looks for the folder when it is imported, so that it has to be named before.
    """
    own_folder = None
    if not os.environ.get(_METRICS_FOLDER):
        own_folder = tempfile.mkdtemp(prefix="countersign-metrics-")
        os.environ[_METRICS_FOLDER] = own_folder
    try:
        from dicom_listener.listening import run  # noqa: PLC0415

        run()
    finally:
        if own_folder:
            shutil.rmtree(own_folder, ignore_errors=True)


if __name__ == "__main__":
    main()
