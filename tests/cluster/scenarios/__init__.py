"""What users do with the driver, in the order of these imports."""

from . import volumes, copies, sizes, placement, bad_input, shares, hosts, restarts, takeover      # noqa: F401
