"""What a model refuses: pictures of its kind, of other kinds, and odd DICOM files.

``python -m bench.refusal --model models/chest-radiograph --data ../shared/data/chest
--other ../shared/data/brain --dicom ../shared/data/dicom --in-domain 'cr_chest_*'``

Prints JSON. With ``--record`` the figures go into the folder's metrics.json and model card too.
Nothing here has set a threshold: validation splits and the DICOM files are the check.
"""

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from countersign.model_matching import NotAnInstance, attributes_of
from imaging_pixels.decode import UndecodablePixels, frame_count
from imaging_pixels.render import Picture, render
from inference_worker.decoding import parse
from inference_worker.grouped_intervals import grouped_bootstrap, share_of
from inference_worker.input_quality import quality_fault
from inference_worker.labeled_pictures import LabeledPicture, read_picture
from inference_worker.model_folder import load_model_folder
from inference_worker.predictor import Predictor
from inference_worker.preprocessing import to_network_geometry
from message_contracts.model_description import ModelDescription
from model_training.data_set import is_excluded
from model_training.domain_card import with_refusals
from model_training.domain_features import some_pictures

BATCH = 32
ALL = 10**9
BOOTSTRAP_SEED = 20260101


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    folder = load_model_folder(options.model)
    predictor = Predictor(folder)
    described = folder.description
    found: dict[str, Any] = {
        "model": described.name,
        "version": described.version,
        "domain": None if described.domain is None else described.domain.model_dump(mode="json"),
        "in_domain": _in_domain(predictor, described, options),
        "wrong_domain": _wrong_domain(predictor, described, options),
        "dicom": _dicom(predictor, described, options),
    }
    print(json.dumps(found, indent=2))
    if options.record:
        metrics_file, card = folder.path / "metrics.json", folder.path / "MODEL_CARD.md"
        metrics = json.loads(metrics_file.read_text(encoding="utf-8")) | {"refusal": found}
        metrics_file.write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
        text = with_refusals(card.read_text(encoding="utf-8"), described, metrics)
        card.write_text(text, encoding="utf-8")


def _reasons(
    predictor: Predictor, described: ModelDescription, pictures: Sequence[Picture]
) -> list[str | None]:
    """Say of rendered pictures by what they are refused: ``quality``, ``domain`` or not at all."""
    takes = described.input
    reasons: list[str | None] = []
    for picture in pictures:
        if quality_fault(picture) is not None:
            reasons.append("quality")
            continue
        shaped = to_network_geometry(picture, takes.rows, takes.columns)
        _, (refusal,) = predictor.assess(shaped[np.newaxis])
        reasons.append(None if refusal is None else "domain")
    return reasons


def _of_rows(
    predictor: Predictor, described: ModelDescription, rows: Sequence[LabeledPicture]
) -> np.ndarray[Any, np.dtype[np.bool_]]:
    channels = described.input.channels
    pictures = (read_picture(row.path, channels) for row in rows)
    return np.array([_reasons(predictor, described, [each])[0] is not None for each in pictures])


def _in_domain(
    predictor: Predictor, described: ModelDescription, options: argparse.Namespace
) -> dict[str, Any]:
    rows = [
        row
        for row in some_pictures(options.data, "val", ALL, options.seed)
        if not is_excluded(row.licence, options.exclude_licence)
    ]
    refused = _of_rows(predictor, described, rows)
    groups = np.array([row.group_id for row in rows])
    interval = grouped_bootstrap(groups, share_of(refused), BOOTSTRAP_SEED)
    return {
        "split": "val",
        "n": len(rows),
        "groups": len(np.unique(groups)),
        "refused": int(refused.sum()),
        "share": round(float(refused.mean()), 4),
        "lower": None if interval is None else round(interval.lower, 4),
        "upper": None if interval is None else round(interval.upper, 4),
    }


def _wrong_domain(
    predictor: Predictor, described: ModelDescription, options: argparse.Namespace
) -> dict[str, Any]:
    sets = {}
    for other in options.other:
        rows = some_pictures(other, "val", options.others, options.seed)
        refused = _of_rows(predictor, described, rows)
        sets[other.name] = {"n": len(rows), "refused": int(refused.sum())}
    count, refused_count = (sum(each[key] for each in sets.values()) for key in ("n", "refused"))
    share = round(refused_count / count, 4) if count else None
    return {"n": count, "refused": refused_count, "share": share, "sets": sets}


def _dicom(
    predictor: Predictor, described: ModelDescription, options: argparse.Namespace
) -> dict[str, Any]:
    files = sorted(options.dicom.rglob("*.dcm"))
    inside: dict[str, str] = {}
    by: Counter[str] = Counter()
    judged: list[str] = []
    decodable = by_pixels = 0
    for file in files:
        reason, pixels = _of_file(predictor, described, file)
        if any(fnmatchcase(file.name, pattern) for pattern in options.in_domain):
            inside[file.name] = reason or "judged"
            continue
        by[reason or "judged"] += 1
        if reason is None:
            judged.append(file.name)
        if pixels != "undecodable":
            decodable += 1
            by_pixels += pixels is not None
    outside = len(files) - len(inside)
    return {
        "out_of_domain": outside,
        "refused": outside - len(judged),
        "share": round(1 - len(judged) / outside, 4) if outside else None,
        "by": dict(sorted(by.items())),
        "judged": judged,
        "decodable": decodable,
        "refused_by_pixels": by_pixels,
        "in_domain": inside,
    }


def _of_file(
    predictor: Predictor, described: ModelDescription, file: Path
) -> tuple[str | None, str | None]:
    """Return by what a file is refused, rule included, and by what its pixels alone would be."""
    try:
        dataset = parse(file.read_bytes())
        last = frame_count(dataset) - 1
        frames = [render(dataset, frame) for frame in sorted({0, last // 2, last})]
    except UndecodablePixels:
        return "undecodable", "undecodable"
    reasons = _reasons(predictor, described, frames)
    pixels = None if None in reasons else reasons[0]
    try:
        mismatches = described.applies_to.mismatches(attributes_of(file))
    except NotAnInstance:
        return "no DICOM file", pixels
    return ("rule" if mismatches else pixels), pixels


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench.refusal", description="What a model refuses.")
    parser.add_argument("--model", type=Path, required=True, help="the model folder")
    parser.add_argument("--data", type=Path, required=True, help="pictures of its kind")
    parser.add_argument("--exclude-licence", help="leave rows out whose license has this, e.g. NC")
    parser.add_argument("--other", type=Path, action="append", default=[], help="of another kind")
    parser.add_argument("--others", type=int, default=100, help="pictures of each other set")
    parser.add_argument("--dicom", type=Path, required=True, help="folder of DICOM files")
    parser.add_argument(
        "--in-domain", action="append", default=[], help="which of these are of its kind (pattern)"
    )
    parser.add_argument("--record", action="store_true", help="write metrics.json and the card")
    parser.add_argument("--seed", type=int, default=20261122)
    return parser


if __name__ == "__main__":
    main()
