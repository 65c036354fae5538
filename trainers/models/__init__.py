"""The systems by name; a module is imported when its system is chosen."""

import pkgutil

from blurgen.options import nearest

MODELS = {
    "disentangled": "trainers.models.disentangled:Disentangled",
    "disentangled-sr": "trainers.models.disentangled_sr:DisentangledSR",
    "cyclegan": "trainers.models.cyclegan:CycleGAN",
    "as-cyclegan": "trainers.models.as_cyclegan:ASCycleGAN",
    "deblurgan": "trainers.models.deblurgan:DeblurGAN",
    "vegan": "trainers.models.vegan:VEGAN",
    "singan": "trainers.models.singan:SinGAN",
}


def method_class(name: str) -> type:
    """Return the `trainers.method.Method` of that name.

    Raises
    ------
    ValueError
        An unknown name, with the nearest known one.
    """
    if name not in MODELS:
        raise ValueError(f"there is no system {name!r}: {nearest(name, MODELS)}")
    return pkgutil.resolve_name(MODELS[name])
