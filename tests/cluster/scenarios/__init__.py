"""What users do with the driver, in the order of these imports."""

from . import volumes           # noqa: F401
