"""Published evaluation protocols, so that tables can be compared."""

from dataclasses import replace

from halebrain.evaluation.evaluate import Evaluation, SetValue


def behrendt2024(evaluation: Evaluation) -> Evaluation:
    """Return the evaluation with the two numbers of Behrendt et al. 2024, Table 1, ahead of the others.

    ⌈Dice⌉ is the best Dice that any one threshold reaches over all voxels of the test set (chosen on the test labels:
    an upper bound), AUPRC the area under the precision–recall curve over the same voxels; both on the 2 mm grid with
    resampled labels.

    Raises:
        ValueError: The evaluation is not on the working grid.
    """
    if "working grid" not in str(evaluation.provenance.get("grid")):
        raise ValueError("the protocol of Behrendt et al. 2024 counts voxels of the working grid")
    renamed = {"dice_oracle_set": "behrendt2024_best_dice", "micro_auprc": "behrendt2024_auprc"}
    ahead = [
        SetValue(v.method, renamed[v.metric], v.value, f"Behrendt et al. 2024, Table 1: {v.says}")
        for v in evaluation.set_values
        if v.metric in renamed
    ]
    provenance = evaluation.provenance | {"protocol": "behrendt2024"}
    return replace(evaluation, set_values=ahead + evaluation.set_values, provenance=provenance)
