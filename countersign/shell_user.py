"""Who acts by the command line: somebody with a shell on the machine itself."""

import getpass

from message_contracts.case import Stage
from message_contracts.identifiers import derived_id
from workflow_engine.commands import COMMAND_LINE, Signer


def shell_user() -> Signer:
    """Return who runs this command, as an admin: whoever has a shell here can do as much anyway."""
    name = getpass.getuser()
    return Signer(
        user_id=derived_id("shell user", name),
        printed_name=f"{name} (command line)",
        role=Stage.ADMIN,
        authentication=COMMAND_LINE,
    )
