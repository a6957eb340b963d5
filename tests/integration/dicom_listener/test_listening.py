"""What the listener takes from the system when it starts."""

import subprocess
import sys

PROGRAM = """
import resource, sys
from dicom_listener.listening import allow_descriptors
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), 2000))
allow_descriptors(int(sys.argv[2]))
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


def test_every_association_may_have_its_descriptors() -> None:
    allowed = {
        (soft, associations): printed(soft, associations)
        for soft, associations in [(300, 100), (300, 1000), (1000, 100)]
    }

    # As many as are needed, no more than may be, and no fewer than there are.
    assert allowed == {(300, 100): 556, (300, 1000): 2000, (1000, 100): 1000}


def printed(soft: int, associations: int) -> int:
    command = [sys.executable, "-c", PROGRAM, str(soft), str(associations)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
