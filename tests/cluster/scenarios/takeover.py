"""The driver in the place of cinder-csi."""
