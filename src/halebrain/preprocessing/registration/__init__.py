"""Registration of a brain to the template: engines, starts, and quality figures."""

from halebrain.preprocessing.registration import ants, greedy, simpleitk
from halebrain.preprocessing.registration.base import REGISTRATION_ENGINES, Brain, Registration, prepare_brain
from halebrain.preprocessing.registration.register import (
    EngineName,
    assess_placement,
    check_engine,
    default_engine,
    register_near,
    register_to_template,
)
from halebrain.preprocessing.registration.rigid import RigidRegistration, register_rigid

__all__ = [
    "REGISTRATION_ENGINES",
    "Brain",
    "EngineName",
    "Registration",
    "RigidRegistration",
    "assess_placement",
    "check_engine",
    "default_engine",
    "prepare_brain",
    "register_near",
    "register_rigid",
    "register_to_template",
]
