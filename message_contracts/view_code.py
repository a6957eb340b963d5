"""What View Code Sequence (0054,0220) says, in the terms that View Position (0018,5101) has. Pure.

Senders name a view by code, by term, or by both. Of CID 4010 DX View and CID 4014 View for
Mammography (PS3.16), by SNOMED CT code and by the SNOMED RT value that older senders write.
"""

from types import MappingProxyType

_TERMS = {
    "AP": ("399348003", "R-10206"),
    "PA": ("272479007", "R-40888", "R-10214"),
    "LL": ("399173006", "R-10236"),
    "RL": ("399198007", "R-10232"),
    "LATERAL": ("399067008", "R-102CD"),
    "ML": ("399260004", "R-10224"),
    "LM": ("399352003", "R-10228"),
    "CC": ("399162004", "R-10242"),
    "MLO": ("399368009", "R-10226"),
    "LMO": ("399099002", "R-10230"),
    "XCCL": ("399192008", "R-1024A"),
    "XCCM": ("399101009", "R-1024B"),
    "AXIAL": ("399061009", "R-10241"),
    "LAO": ("399135007", "R-10220"),
    "RAO": ("399356000", "R-40985"),
    "LPO": ("399006002", "R-10212"),
    "RPO": ("399038007", "R-10210"),
    "OBLIQUE": (
        *("399182000", "R-102C1", "399184004", "R-10238", "399236003", "R-10234"),
        *("399160007", "R-10204", "399312000", "R-10208", "399059000", "R-10216"),
        *("260427002", "R-40783", "260426006", "R-40782"),
    ),
}
_BY_CODE = MappingProxyType({code: term for term, codes in _TERMS.items() for code in codes})


def view_of(code_value: str) -> str:
    """Return the term for a Code Value; empty where it tells no view that is known here.

    ``frontal`` (399033003) leaves open which of AP and PA it is: it tells nothing more either.
    """
    return _BY_CODE.get(code_value.strip(" \0"), "")
