"""A benchmark at toy size: an autoencoder and a segmenter on it, and further entries that tests add."""

GRID = {"shape": [32, 32, 24], "spacing_mm": 6.0, "registration": "none", "bias_correction": "none"}
LOOP = {"steps": 2, "batch_size": 2, "validate_every": 2, "validation_batches": 1, "precision": "32-true"}
SEGMENTER = {"channels": [8, 16], "patch": 2}
AE = {"settings": {"reconstructor": {"name": "ae", "settings": {"channels": [8, 8]}}}, "row": "AE"}
PAIR = {
    "reconstructor": "ae",
    "settings": {"regime": "weak"},
    "rows": {"segmenter": "Unet_res", "fused": "SADM_res"},
    "block": "III",
    "each_pathology": ["ms"],
}
DRAEM = {"reconstructor": None, "rows": {"segmenter": "DRAEM-Net"}, "block": "II", "trained_on": "DRAEM"}
MATRIX = {
    "pathologies": ["ms"],
    "preprocessing": GRID,
    "seeds": [0],
    "reconstructor_defaults": {"loop": LOOP},
    "segmenter_defaults": {"loop": LOOP, "segmenter": SEGMENTER},
    "reconstructors": {"ae": AE},
    "segmenters": {"pair": PAIR},
    "reference": "AE",
}


def ddpm(unet):
    """Return the entry of a DDPM at two levels, which has a row."""
    settings = {"unet": unet, "test_levels": [300, 500]}
    return {"settings": {"reconstructor": {"name": "ddpm", "settings": settings}}, "row": "DDPM"}


def joint(unet, loop=LOOP):
    """Return the settings of a joint training."""
    reconstructor = {"name": "restoration", "settings": {"unet": unet}}
    return {"loop": loop, "reconstructor": reconstructor, "segmenter": SEGMENTER}
