"""The model card, from the recipe and what was measured; every figure in it comes from there."""

from collections.abc import Iterable
from typing import Any

from message_contracts.model_description import ModelDescription
from model_training.architectures import BACKBONES
from model_training.recipe import FineTuning, Recipe

Figures = dict[str, Any]
COLOR = 3
CURVES = "training_curves.png"
CONFUSION = "confusion_matrix.png"
RELIABILITY = "reliability.png"
OPTIMIZERS = {"adamw": "AdamW", "adam": "Adam", "sgd": "SGD with Nesterov's momentum"}
AUGMENTATIONS = {
    "none": "no augmentation",
    "radiograph": "rotation, scale, shift, mirror, gamma and contrast as augmentation",
    "any_orientation": (
        "any rotation, scale, shift, mirror, gamma, contrast and color cast as augmentation"
    ),
}
PAIRS = (
    ("model_minus_thumbnail", "12 x 12 thumbnail"),
    ("model_minus_linear_head", "linear head on frozen features"),
)
MEASURED_ON = ("cross_validation", "test", "validation")
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
        _to_fill_in(recipe),
        _identity(description),
        "## Intended use\n\n" + recipe.intended_use,
        "## Limits\n\n" + _points(recipe.limits),
        "## What the data cannot show\n\n" + _points(recipe.caveats),
        _classes(description),
        _applies_to(description),
        _training(recipe, metrics),
        *(_figures(part, metrics) for part in MEASURED_ON if part in metrics),
        _pictures(metrics),
        _comparisons(metrics),
        _confound(metrics["source_confound"]),
        _left_out(metrics["left_out_rows"]),
        _calibration(metrics),
        _threshold(metrics),
        _explanation(description),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _to_fill_in(recipe: Recipe) -> str:
    if not recipe.to_fill_in:
        return ""
    return "## Before anybody uses it, a person must fill in\n\n" + _points(recipe.to_fill_in)


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
        + "\n\nWhere the sender leaves out what the rule asks for and an absent one matches, only"
        " the rest says what the picture shows. Route by station if yours does."
    )


def _training(recipe: Recipe, metrics: Figures) -> str:
    how, data = recipe.fine_tuning, metrics["data"]
    file = metrics["backbone_weights"]
    begun = f"pretrained weights (`{file}`)" if file else "random weights"
    groups = "patients" if data["groups_said"] else "groups (the data do not say the patients)"
    ended = ""
    if how.patience is not None:
        ended = (
            f", of at most {how.epochs}; it ended after {metrics['epochs']['run']}, and the"
            " version with the lowest validation loss was kept"
        )
    left_out = (
        f" {data['left_out']} rows of the train split were left out for their license."
        if data["left_out"]
        else ""
    )
    return (
        f"## Training\n\n{recipe.data_description}\n\n"
        f"{data['learned_from']} pictures of {data['groups']} {groups} to learn from,"
        f" {data['validated_on']} to validate and {data['tested_on']} to test on; split"
        f" {data['split']}, never through a group.{left_out}"
        f" {BACKBONES[how.backbone].title} from {begun}, input {how.side} x {how.side} in"
        f" {'color' if how.channels == COLOR else 'gray'}, all kernels fine-tuned"
        f" ({metrics['kernels_moved']} of {metrics['kernel_count']} moved),"
        f" {metrics['epochs']['kept']} epochs{ended}. {OPTIMIZERS[how.optimizer]}, learning rate"
        f" {how.learning_rate:g} ({how.schedule}), batches of {how.batch}, seed {metrics['seed']};"
        f" {AUGMENTATIONS[how.augmentation]}; {_balance(how)}."
    )


def _balance(how: FineTuning) -> str:
    if how.class_balance == 0:
        return "every picture counted the same"
    much = "to count alike" if how.class_balance == 1 else f"by their share ** -{how.class_balance}"
    return f"classes {'weighted' if how.balance_by == 'loss' else 'drawn'} {much}"


def _figures(part: str, metrics: Figures) -> str:
    figures, data = metrics[part], metrics["data"]
    rows = [
        (
            each["label"],
            str(each["n"]),
            *(_of_class(each, name) for name in ("sensitivity", "specificity", "roc_auc")),
        )
        for each in figures["classes"]
    ]
    labels = figures["confusion"]["labels"]
    counts = [
        (label, *(str(count) for count in row))
        for label, row in zip(labels, figures["confusion"]["counts"], strict=True)
    ]
    area = figures["roc_auc_macro"]
    how = {
        "cross_validation": (
            "## Figures by cross-validation\n\n"
            f"Patient-grouped, {figures.get('folds')} folds over the train split: every picture was"
            " judged by a network that had seen no picture of its patient, and that was calibrated"
            " as the shipped one is, by the validation part and the other folds."
        ),
        "test": (
            "## Figures on the test part\n\n"
            "None of these pictures, and none of their patients, had a say in the training, the"
            " version kept, the calibration or the threshold."
        ),
        "validation": (
            "## Figures on the validation part\n\n"
            "None of these pictures was learned from. They calibrate the network; here each fifth"
            " of their patients is calibrated by the rest."
            + (
                " They chose the version or the threshold: the figures flatter a little."
                if data["validation_chose"]
                else ""
            )
        ),
    }[part]
    return (
        f"{how} Intervals are 95 %, by resampling patients. n = {figures['n']},"
        f" {figures['groups']} patients.\n\n"
        f"Accuracy {_range(figures['accuracy'])}; balanced {_range(figures['balanced_accuracy'])};"
        f" mean ROC-AUC {'unknown' if area is None else format(area, '.3f')}; expected calibration"
        f" error {figures['expected_calibration_error']:.3f} (10 bins; perfectly calibrated"
        f" confidences would stay below {figures['calibrated_ece_limit']:.3f} in 95 of 100 samples"
        " of this size).\n\n"
        + _table(("class", "n", "sensitivity", "specificity", "ROC-AUC"), rows)
        + "\n\nRows are true classes, columns chosen ones:\n\n"
        + _table(("", *labels), counts)
    )


def _of_class(figures: Figures, name: str) -> str:
    if figures[name] is None:
        return "-"
    lower, upper = figures["intervals"][name]
    return f"{figures[name]:.3f} ({lower:.3f} to {upper:.3f})"


def _pictures(metrics: Figures) -> str:
    on = {"cross_validation": "out of fold"}.get(metrics["primary"], f"{metrics['primary']} part")
    return (
        f"![Training curves]({CURVES})\n\n![Confusion, {on}]({CONFUSION})\n\n"
        f"![Reliability, {on}]({RELIABILITY})"
    )


def _comparisons(metrics: Figures) -> str:
    introduction = (
        "## What that is worth\n\nThe same rows, the same resampling. The baselines' penalty was"
        " chosen on the reported figures, in their favor, and within a subgroup they were fitted to"
        " that subgroup alone, while this model was trained on all classes."
    )
    parts = [introduction]
    judging = "test" if "test" in metrics else "validation"
    for key, on in (("comparison", "out of fold"), ("held_out_comparison", f"{judging} part")):
        for name, figures in metrics.get(key, {}).items():
            title = "All rows, all classes" if name == "all" else name
            parts.append(f"### {title}, {on}\n\n{_comparison(figures)}")
    return "\n\n".join(parts)


def _comparison(figures: Figures) -> str:
    both = (figures["accuracy"], figures["balanced_accuracy"])
    rows = [
        (label, *(_range(each[key]) for each in both)) for key, label in SINGLE if key in both[0]
    ]
    rows += [
        (f"**difference to the {label}**", *(_range(each[key], signed=True) for each in both))
        for key, label in PAIRS
        if key in both[0]
    ]
    return f"n = {figures['n']}, {figures['groups']} patients\n\n" + _table(
        ("", "accuracy", "balanced accuracy"), rows
    )


def _confound(confound: Figures) -> str:
    if not confound:
        return ""
    features = ""
    if "accuracy_linear_head_on_frozen_features" in confound:
        told = _range(confound["accuracy_linear_head_on_frozen_features"])
        features = f" {told} by a linear head on frozen features and"
    thumbnail = _range(confound["accuracy_thumbnail_12x12"])
    known = ", ".join(f"{name} {count}" for name, count in confound["sources"].items())
    return (
        f"### Source confound\n\nSources: {known}. The source, which should not matter, is told"
        f" with an accuracy of{features} {thumbnail} by"
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
    uncertain = metrics[metrics["primary"]]["uncertain"]
    crossed = "cross_validation" in metrics
    on = "out of fold" if crossed else f"on the {metrics['primary']} part"
    chose = "these same out-of-fold probabilities" if crossed else "the validation part"
    right = uncertain["accuracy_of_the_rest"]
    rest = "nothing is left" if right is None else f"{right:.3f} of the rest are right"
    return (
        "## Uncertain\n\n"
        f"Below a probability of {uncertain['below']:.2f} the finding is `Uncertain`: {on}"
        f" that is {uncertain['share']:.0%} of the pictures, and {rest}."
        f" The threshold was chosen on {chose}."
    )


def _calibration(metrics: Figures) -> str:
    found = metrics["calibration"]
    offsets = ", ".join(f"{label} {offset:+.2f}" for label, offset in found["offsets"].items())
    more = (
        "the validation part and the scores out of fold, each network with offsets of its own"
        if "cross_validation" in metrics
        else "the validation part"
    )
    return (
        "## Calibration\n\n"
        f"Scores are divided by the temperature {found['temperature']:.2f}, and each class's offset"
        f" is added before the softmax: {offsets} (bias-corrected temperature scaling, Alexandari"
        " et al., ICML 2020). How sure networks of this recipe are was learned from"
        f" {more}; which classes this one leans to, from the validation part alone, for that"
        " differs from network to network. Both are part of the weights. They hold where the"
        " classes are as frequent as in these data."
    )


def _explanation(description: ModelDescription) -> str:
    return (
        "## Heat map\n\n"
        f"Grad-CAM (Selvaraju et al., 2017) at `{description.grad_cam_layer}` shows which places"
        " spoke for the class that was chosen. It does not show that the choice is right, nor where"
        " a disease is."
    )
