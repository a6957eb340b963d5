"""What a finding does not rest on, although the model was asked about it. Pure."""

import re
from collections.abc import Iterable, Mapping, Sequence

from message_contracts.inference import NotRead

MOST_REASONS = 10
MOST_UIDS = 10
_LONGEST_REASON = 500
_NUMBERS = re.compile(r"\d[\d.,%]*")


def not_read(unreadable: Mapping[str, str], refused: Mapping[str, str]) -> tuple[NotRead, ...]:
    """Return what could not be read and what was refused, most instances first.

    Both are SOP Instance UID to reason. Reasons that differ in their numbers alone, such as a
    distance or a size, are one reason, told in the words of its first instance. What is left over
    after so many reasons that a message would grow long is told with the last. An instance of which
    a frame was refused before another could not be read is unreadable, and counted once.
    """
    only_refused = {uid: reason for uid, reason in refused.items() if uid not in unreadable}
    found = [*_grouped(unreadable, is_refusal=False), *_grouped(only_refused, is_refusal=True)]
    found.sort(key=lambda each: -each.instance_count)
    if len(found) <= MOST_REASONS:
        return tuple(found)
    last, *others = found[MOST_REASONS - 1 :]
    rest = sum(each.instance_count for each in others)
    reason = f"{last.reason[: _LONGEST_REASON - 60]} (and others, for other reasons)"
    told = {"reason": reason, "instance_count": last.instance_count + rest}
    return (*found[: MOST_REASONS - 1], last.model_copy(update=told))


def statement(missing: Sequence[NotRead]) -> str | None:
    """Return in a few sentences what was not read; ``None`` where all was."""
    if not missing:
        return None
    count = sum(each.instance_count for each in missing)
    told = "; ".join(
        f"{each.instance_count} {'refused' if each.is_refusal else 'unreadable'}: "
        f"{each.reason.rstrip('.')}"
        for each in missing
    )
    return f"The finding does not rest on all instances. Not read, or not whole: {count} ({told})."


def _grouped(reasons: Mapping[str, str], *, is_refusal: bool) -> Iterable[NotRead]:
    groups: dict[str, list[tuple[str, str]]] = {}
    for uid, reason in reasons.items():
        groups.setdefault(_NUMBERS.sub("#", reason), []).append((uid, reason))
    for group in groups.values():
        yield NotRead(
            reason=group[0][1][:_LONGEST_REASON],
            is_refusal=is_refusal,
            instance_count=len(group),
            sop_instance_uids=tuple(uid for uid, _ in group[:MOST_UIDS]),
        )
