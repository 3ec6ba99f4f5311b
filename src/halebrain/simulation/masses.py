"""More diseases of the virtual cohort: bleeding, cavities after surgery, masses that grow from the meninges."""

import torch

from halebrain.simulation.anatomy import CSF, DEEP, GM, WM, Anatomy
from halebrain.simulation.pathology import (
    PATHOLOGIES,
    LesionParams,
    PartParams,
    draw_sign,
    new_part,
    pick_point,
    uniform,
)

Radii = tuple[float, float, float]


@PATHOLOGIES.register("haemorrhage")
def sample_haemorrhage(anatomy: Anatomy, generator: torch.Generator) -> LesionParams:
    """Draw a bleeding of any age, bright or dark in each contrast by itself, in a rim of oedema."""
    inside = (anatomy.tissues[WM] + anatomy.tissues[DEEP] + 0.3 * anatomy.tissues[GM]) * (
        anatomy.surface_distance_mm > 6
    )
    centre, size = pick_point(inside, anatomy, generator), uniform(generator, 5, 20)
    looks = (uniform(generator, -1.0, 0.8), uniform(generator, -0.8, 1.1), uniform(generator, -0.7, 1.1))
    clot = _blob(generator, centre, size, water=uniform(generator, 0.5, 1.1), looks=looks, fills_sulci=0.8)
    oedema = _blob(
        generator, centre, size * uniform(generator, 1.2, 1.8), water=uniform(generator, 0.25, 0.8), avoid_grey=0.5
    )
    return LesionParams(
        pathology="haemorrhage",
        parts=(oedema, clot),
        push_mm=uniform(generator, 0, 0.2) * size,
        push_reach_mm=size * uniform(generator, 1.0, 1.5),
        push_centre_mm=centre,
        sign=draw_sign(generator),
    )


@PATHOLOGIES.register("cavity")
def sample_cavity(anatomy: Anatomy, generator: torch.Generator) -> LesionParams:
    """Draw what surgery or old injury leaves: a hole filled with CSF that reaches the surface, with a gliotic rim."""
    near = (anatomy.tissues[GM] + anatomy.tissues[WM]) * (anatomy.surface_distance_mm > 3)
    near = near * (anatomy.surface_distance_mm < 26)
    centre, size = pick_point(near, anatomy, generator), uniform(generator, 7, 24)
    rim = _blob(
        generator, centre, size * uniform(generator, 1.1, 1.5), water=uniform(generator, 0.3, 1.0), fills_sulci=0.3
    )
    hole = _blob(generator, centre, size, water=0.0, fluid=uniform(generator, 0.8, 1.0), fills_sulci=1.0, texture=0.05)
    return LesionParams(pathology="cavity", parts=(rim, hole), sign=draw_sign(generator))


@PATHOLOGIES.register("mass")
def sample_mass(anatomy: Anatomy, generator: torch.Generator) -> LesionParams:
    """Draw one to five dense masses with sharp borders, from the surface (meningioma) or within (metastases)."""
    outer = uniform(generator, 0, 1) < 0.5
    depth = anatomy.surface_distance_mm
    place = (depth > 2) * (depth < 9) * (1 - 0.9 * anatomy.tissues[CSF]) if outer else anatomy.tissues[WM] * (depth > 8)
    parts: list[PartParams] = []
    centre, size = pick_point(place, anatomy, generator), uniform(generator, 6, 22)
    for number in range(1 if outer else int(uniform(generator, 1, 6))):
        if number > 0:
            centre, size = pick_point(place, anatomy, generator), uniform(generator, 4, 12)
        looks = (uniform(generator, -0.3, 1.2), uniform(generator, -0.2, 1.2), uniform(generator, -0.2, 1.2))
        if uniform(generator, 0, 1) < 0.6:
            parts.append(
                _blob(
                    generator,
                    centre,
                    size * uniform(generator, 1.3, 2.0),
                    water=uniform(generator, 0.3, 0.9),
                    avoid_grey=0.7,
                )
            )
        parts.append(
            _blob(
                generator,
                centre,
                size,
                water=uniform(generator, 0.2, 0.9),
                solid=uniform(generator, 0.2, 0.9),
                looks=looks,
                fills_sulci=1.0,
            )
        )
    return LesionParams(
        pathology="mass",
        parts=tuple(parts),
        push_mm=uniform(generator, 0, 0.35) * size if outer else 0.0,
        push_reach_mm=size * uniform(generator, 1.0, 1.5),
        push_centre_mm=centre,
        sign=draw_sign(generator),
    )


def _blob(generator: torch.Generator, centre_mm: Radii, size_mm: float, **values: object) -> PartParams:
    """Return a sharp, slightly irregular ellipsoid."""
    radii = tuple(size_mm * uniform(generator, 0.7, 1.3) for _ in range(3))
    usual = {
        "kind": "blob",
        "irregularity": uniform(generator, 0.1, 0.45),
        "softness_mm": uniform(generator, 0.5, 1.6),
        "texture": uniform(generator, 0.05, 0.5),
    }
    return new_part(generator, centre_mm=centre_mm, radii_mm=radii, **(usual | values))
