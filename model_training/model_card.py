"""The model card, from the recipe and what was measured; every figure in it comes from there."""

from collections.abc import Iterable
from typing import Any

from message_contracts.model_description import ModelDescription
from model_training.recipe import Recipe

Figures = dict[str, Any]
PAIRS = (
    ("model_minus_thumbnail", "12 x 12 thumbnail"),
    ("model_minus_linear_head", "linear head on frozen features"),
)
SINGLE = (
    ("model", "this model"),
    ("linear_head_on_frozen_features", "linear head on frozen features"),
    ("thumbnail_12x12", "12 x 12 thumbnail"),
)


def model_card(recipe: Recipe, description: ModelDescription, metrics: Figures) -> str:
    """Return the card as Markdown; its first line is the warning."""
    sections = [
        f"**{recipe.warning}**",
        f"# {recipe.title}: `{description.name}` {description.version}",
        _identity(description),
        "## Intended use\n\n" + recipe.intended_use,
        "## Limits\n\n" + _points(recipe.limits),
        "## What the data cannot show\n\n" + _points(recipe.caveats),
        _classes(description),
        _applies_to(description),
        _training(recipe, metrics),
        _figures(metrics["cross_validation"]),
        _comparisons(metrics["comparison"]),
        _confound(metrics["source_confound"]),
        _left_out(metrics["left_out_rows"]),
        _threshold(metrics),
        _explanation(description),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _points(lines: tuple[str, ...]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _range(figure: dict[str, float], *, signed: bool = False) -> str:
    form = "+.3f" if signed else ".3f"
    estimate, lower, upper = (format(figure[key], form) for key in ("estimate", "lower", "upper"))
    return f"{estimate} ({lower} to {upper})"


def _identity(description: ModelDescription) -> str:
    return _table(
        ("", ""),
        [
            ("device UID", f"`{description.device_uid}`"),
            ("weights (SHA-256)", f"`{description.weights_sha256}`"),
            ("license of the weights", description.license),
            ("license of the data", description.training_data.license),
        ],
    )


def _classes(description: ModelDescription) -> str:
    rows = [
        (each.label, f"{each.code.value} {each.code.scheme_designator}", each.description)
        for each in description.classes
    ]
    return (
        "## Classes\n\n"
        + _table(("label", "code", "what it was learned from"), rows)
        + "\n\nCheck the codes with the edition of the terminology that your site uses."
    )


def _applies_to(description: ModelDescription) -> str:
    rule = description.applies_to
    lines = [f"Modality {' or '.join(rule.modality.values)}"]
    for name, allowed in (
        ("Body Part Examined", rule.body_part_examined),
        ("View Position", rule.view_position),
    ):
        if allowed is not None:
            absent = "an absent one matches" if allowed.absent == "match" else "refused if absent"
            lines.append(f"{name} {' or '.join(allowed.values)}; {absent}")
    lines.append(f"SOP Class UID {', '.join(rule.sop_class_uid)}")
    refused = [" \\ ".join(values) for values in rule.refused_image_types]
    if refused:
        lines.append(f"never Image Type {', '.join(refused)}")
    return (
        "## What it is given\n\n"
        + _points(tuple(lines))
        + "\n\nWhere the sender leaves body part or view out, nothing but the modality says that"
        " it is a frontal chest radiograph: a hand would be read too. Route by station if yours"
        " does."
    )


def _training(recipe: Recipe, metrics: Figures) -> str:
    how, data = recipe.fine_tuning, metrics["data"]
    return (
        f"## Training\n\n{recipe.data_description}\n\n"
        f"{data['learned_from']} pictures of {data['groups']} patients; {data['left_out']} rows"
        f" of the train split left out for their license. {how.backbone} from ImageNet weights,"
        f" input {how.side} x {how.side}, all kernels fine-tuned ({metrics['kernels_moved']} of"
        f" {metrics['kernel_count']} moved), {how.epochs} epochs, seed {metrics['seed']}; rotation,"
        " scale, shift, mirror, gamma and contrast as augmentation; classes weighted to count"
        " alike."
    )


def _figures(figures: Figures) -> str:
    rows = [
        (
            each["label"],
            str(each["n"]),
            f"{each['sensitivity']:.3f}",
            f"{each['specificity']:.3f}",
            f"{each['roc_auc']:.3f}",
        )
        for each in figures["classes"]
    ]
    labels = figures["confusion"]["labels"]
    counts = [
        (label, *(str(count) for count in row))
        for label, row in zip(labels, figures["confusion"]["counts"], strict=True)
    ]
    return (
        "## Figures by cross-validation\n\n"
        f"Patient-grouped, {figures['folds']} folds over the train split: every picture was judged"
        " by a network that had seen no picture of its patient. Intervals are 95 %, by resampling"
        f" patients. n = {figures['n']}, {figures['groups']} patients.\n\n"
        f"Accuracy {_range(figures['accuracy'])}; balanced {_range(figures['balanced_accuracy'])};"
        f" mean ROC-AUC {figures['roc_auc_macro']:.3f}; expected calibration error"
        f" {figures['expected_calibration_error']:.3f} (10 bins; perfectly calibrated confidences"
        f" would stay below {figures['calibrated_ece_limit']:.3f} in 95 of 100 samples of this"
        " size).\n\n"
        + _table(("class", "n", "sensitivity", "specificity", "ROC-AUC"), rows)
        + "\n\nRows are true classes, columns chosen ones:\n\n"
        + _table(("", *labels), counts)
    )


def _comparisons(comparison: Figures) -> str:
    introduction = (
        "## What that is worth\n\nThe same folds, the same resampling. The baselines' penalty was"
        " chosen on the reported figures, in their favor, and within a subgroup they were fitted to"
        " that subgroup alone, while this model was trained on all classes."
    )
    parts = [introduction]
    for name, figures in comparison.items():
        title = "All rows, all classes" if name == "all" else name
        both = (figures["accuracy"], figures["balanced_accuracy"])
        rows = [(label, *(_range(each[key]) for each in both)) for key, label in SINGLE]
        rows += [
            (f"**difference to the {label}**", *(_range(each[key], signed=True) for each in both))
            for key, label in PAIRS
        ]
        parts.append(
            f"### {title}\n\nn = {figures['n']}, {figures['groups']} patients\n\n"
            + _table(("", "accuracy", "balanced accuracy"), rows)
        )
    return "\n\n".join(parts)


def _confound(confound: Figures) -> str:
    if not confound:
        return ""
    features = _range(confound["accuracy_linear_head_on_frozen_features"])
    thumbnail = _range(confound["accuracy_thumbnail_12x12"])
    known = ", ".join(f"{name} {count}" for name, count in confound["sources"].items())
    return (
        f"### Source confound\n\nSources: {known}. The source, which should not matter, is told"
        f" with an accuracy of {features} by a linear head on frozen features and {thumbnail} by"
        " the thumbnail; knowing the true class alone gives"
        f" {confound['accuracy_from_the_true_class_alone']:.3f}. Whatever separates the sources"
        " separates the classes as well."
    )


def _left_out(left_out: Figures) -> str:
    if not left_out:
        return ""
    rows = [
        (each["label"], str(each["n"]), f"{each['sensitivity']:.3f}")
        for each in left_out["classes"]
        if each["n"]
    ]
    return (
        "### Another source\n\n"
        f"The {left_out['n']} rows of the train split that were left out for their license are"
        f" from {', '.join(left_out['sources'])}; the network has not learned from these patients."
        f" On them its accuracy is {_range(left_out['accuracy'])} ({left_out['groups']} patients),"
        f" and {left_out['uncertain']['share']:.0%} fall below the threshold."
        " This is nearer to what a new hospital would see than the figures above.\n\n"
        + _table(("class", "n", "sensitivity"), rows)
    )


def _threshold(metrics: Figures) -> str:
    uncertain = metrics["cross_validation"]["uncertain"]
    right = uncertain["accuracy_of_the_rest"]
    rest = "nothing is left" if right is None else f"{right:.3f} of the rest are right"
    return (
        "## Uncertain\n\n"
        f"Scores are divided by the temperature {metrics['temperature']:.2f} before the softmax."
        f" Below a probability of {uncertain['below']:.2f} the finding is `Uncertain`: out of fold"
        f" that is {uncertain['share']:.0%} of the pictures, and {rest}."
        " Temperature and threshold were chosen on these same out-of-fold scores."
    )


def _explanation(description: ModelDescription) -> str:
    return (
        "## Heat map\n\n"
        f"Grad-CAM (Selvaraju et al., 2017) at `{description.grad_cam_layer}` shows which places"
        " spoke for the class that was chosen. It does not show that the choice is right, nor where"
        " a disease is."
    )
